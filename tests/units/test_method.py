"""What a job may be asked to learn by, and how a wrong way of asking, or a file of the wrong kind, is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stillroom import catalog, fine_tuning
from stillroom.assembly import Platform
from stillroom.errors import InvalidRequest
from stillroom.student.hyperparameters import MethodType
from tests.support import example_lines


def asked(method: Any = None, **body: Any) -> tuple[MethodType, dict[str, Any]]:
    kind, hyperparameters = fine_tuning.method_asked({"method": method, **body})
    return kind, msgspec.to_builtins(hyperparameters)


def dpo(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


OPENAIS = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


def test_without_a_method_a_job_imitates() -> None:
    for method in (None, {}, {"type": "supervised"}, supervised()):
        assert asked(method) == (MethodType.SUPERVISED, OPENAIS)


def test_dpo_has_beta_and_takes_hyperparameters_from_either_place() -> None:
    assert asked({"type": "dpo"}) == (MethodType.DPO, {**OPENAIS, "beta": "auto"})
    assert asked(dpo(beta=0.3), hyperparameters={"n_epochs": 2}) == (
        MethodType.DPO,
        {**OPENAIS, "n_epochs": 2, "beta": 0.3},
    )


def test_what_openai_does_not_have_is_echoed_when_it_is_asked_for() -> None:
    assert asked(supervised(system_prompt="drop", soft_label_weight=0.5))[1] == {
        **OPENAIS,
        "system_prompt": "drop",
        "soft_label_weight": 0.5,
    }
    assert asked(dpo(system_prompt="drop"))[1]["system_prompt"] == "drop"


@pytest.mark.parametrize(
    ("method", "param", "words"),
    [
        ("dpo", "method", 'an object like {"type": "dpo"}, got "dpo"'),
        (["dpo"], "method", "expected an object"),
        ({"type": None}, "method.type", "Expected one of supervised, dpo"),
        ({"type": "ppo"}, "method.type", "Invalid 'method.type': \"ppo\". Expected one of supervised, dpo"),
        ({"type": "on_policy", "on_policy": {"judge": "m"}}, "method.on_policy.judge", "hyperparameters, teacher"),
        ({"type": "dpo", "dpo": {"teacher": "m"}}, "method.dpo.teacher", "Known are: hyperparameters;"),
        ({"type": 7}, "method.type", "Expected one of supervised, dpo"),
        ({"type": "reinforcement"}, "method.type", "Use 'supervised' on a teacher's answers, or 'dpo' on pairs"),
        ({"dpo": {}}, "method.dpo", "set 'method.type' to 'dpo'"),
        ({"type": "dpo", "supervised": {}}, "method.supervised", "no effect on a job of type 'dpo'"),
        ({"type": "dpo", "dop": {}}, "method.dop", "Unknown parameter: 'method.dop'"),
        ({"type": "dpo", "dpo": []}, "method.dpo", "expected an object"),
        ({"type": "dpo", "dpo": {"beta": 0.1}}, "method.dpo.beta", "belong into 'hyperparameters'"),
        ({"type": "dpo", "dpo": {"hyperparameters": 3}}, "method.dpo.hyperparameters", "expected an object"),
        (dpo(beta=0), "hyperparameters.beta", "a number above 0, 2 at most"),
        (dpo(beta=2.5), "hyperparameters.beta", "a number above 0, 2 at most"),
        (dpo(beta=True), "hyperparameters.beta", "a number above 0, 2 at most"),
        (dpo(bta=1), "hyperparameters.bta", "Unknown hyperparameter 'bta'; known are n_epochs"),
        (dpo(bta=1), "hyperparameters.bta", "Did you mean `beta`?"),
        (dpo(soft_label_weight=0.5), "hyperparameters.soft_label_weight", "no effect on a job of type 'dpo'"),
        (supervised(beta=0.1), "hyperparameters.beta", "no effect on a job of type 'supervised'; it is for dpo"),
        (supervised(soft_label_weight=1.1), "hyperparameters.soft_label_weight", "a number from 0 to 1"),
        (supervised(soft_label_weight="much"), "hyperparameters.soft_label_weight", "a number from 0 to 1"),
        (supervised(system_prompt="omit"), "hyperparameters.system_prompt", "Expected one of keep, drop"),
    ],
)
def test_a_wrong_method_is_refused_by_name(method: Any, param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(method)
    assert refused.value.param == param
    assert words in refused.value.message


def test_the_same_number_twice_must_be_the_same() -> None:
    with pytest.raises(InvalidRequest, match=r"'beta' is 0.1 in 'hyperparameters' and 0.2 in 'method.dpo.hyper"):
        asked(dpo(beta=0.2), hyperparameters={"beta": 0.1})


def test_the_trainers_rules_read_what_was_asked() -> None:
    _, hyperparameters = fine_tuning.method_asked({"method": dpo(beta=0.3, system_prompt="drop")})
    wanted = fine_tuning.wanted_of(hyperparameters)
    assert (wanted.beta, wanted.system_prompt, wanted.n_epochs) == (0.3, "drop", "auto")


# --- a file of the other kind -------------------------------------------------------------------------

PAIR = {
    "input": {"messages": [{"role": "user", "content": "a"}]},
    "preferred_output": [{"role": "assistant", "content": "b"}],
    "non_preferred_output": [{"role": "assistant", "content": "c"}],
}


def upload(platform: Platform, lines: bytes) -> str:
    return platform.files.create(1, "a.jsonl", "fine-tune", [lines]).id


def tuned(platform: Platform, name: str = "ft:m") -> str:
    """A fine-tuned model, as far as the catalogue knows."""
    blob = f"models/{name.removeprefix('ft:')}"
    (platform.settings.folder / "blobs" / blob).mkdir(parents=True)
    known = {"openai_name": name, "azure_name": f"{name}.ft", "base": "scratch-small", "job": "j"}
    platform.writer.write(lambda c: catalog.add_model(c, project=1, **known, step=None, blob=blob))
    return name


def failed(platform: Platform, method: str, **files: str) -> dict[str, Any] | None:
    """The error of a job whose files were looked at; None when it goes on."""
    order = fine_tuning.parse_order({"model": "ft:m", "method": {"type": method}, **files})
    job = platform.fine_tuning.create(1, order)
    platform.fine_tuning.validate_waiting()
    return platform.fine_tuning.get(1, job.id).error


def test_a_job_on_the_other_kind_of_file_fails_and_is_told_the_method_to_choose(platform: Platform) -> None:
    tuned(platform)
    chats = upload(platform, example_lines(10))
    pairs = upload(platform, (msgspec.json.encode(PAIR) + b"\n") * 10)
    assert failed(platform, "supervised", training_file=chats) is None
    assert failed(platform, "dpo", training_file=pairs, validation_file=pairs) is None
    for method, training, other, words in (
        ("supervised", pairs, "dpo", f"Line 1 of {pairs} is a preference pair"),
        ("dpo", chats, "supervised", f"The rows of {chats} are conversations"),
    ):
        error = failed(platform, method, training_file=training)
        assert error is not None
        assert (error["code"], error["param"]) == ("invalid_training_file", "training_file")
        assert words in error["message"]
        assert f"Choose the method '{other}' for this file." in error["message"]
    for method, training, validation, rows in (
        ("dpo", pairs, chats, "preference pairs"),
        ("supervised", chats, pairs, "conversations"),
    ):
        error = failed(platform, method, training_file=training, validation_file=validation)
        assert error is not None
        assert error["param"] == "validation_file"
        assert f"This is the validation file: give one of {rows}" in error["message"]
        assert "Choose the method" not in error["message"]


# --- the teacher of an on-policy job ------------------------------------------------------------------


def on_policy(**own: Any) -> dict[str, Any]:
    return {"type": "on_policy", "on_policy": own}


def test_an_on_policy_student_is_judged_by_itself_unless_another_is_named(platform: Platform) -> None:
    model, file = tuned(platform), upload(platform, example_lines(10))
    for own in ({}, {"teacher": "self"}, {"hyperparameters": {"n_epochs": 1}}):
        order = fine_tuning.parse_order({"model": model, "training_file": file, "method": on_policy(**own)})
        assert (order.method, order.teacher) == (MethodType.ON_POLICY, None)
        assert platform.fine_tuning.create(1, order).teacher is None


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ("gpt-4o", "The weights of 'gpt-4o' are not here"),
        ("scratch-small", "scratch-small has no weights to judge by"),
        (7, "Expected the name of a model"),
    ],
)
def test_a_teacher_that_cannot_judge_is_refused_by_name(platform: Platform, teacher: Any, words: str) -> None:
    file = upload(platform, example_lines(10))
    body = {"model": "scratch-small", "training_file": file, "method": on_policy(teacher=teacher)}
    with pytest.raises(InvalidRequest) as refused:
        platform.fine_tuning.create(1, fine_tuning.parse_order(body))
    assert refused.value.param == "method.on_policy.teacher"
    assert words in refused.value.message


def test_a_fine_tuned_model_can_be_the_teacher(platform: Platform) -> None:
    teacher, file = tuned(platform), upload(platform, example_lines(10))
    body = {"model": tuned(platform, "ft:student"), "training_file": file, "method": on_policy(teacher=teacher)}
    job = platform.fine_tuning.create(1, fine_tuning.parse_order(body))
    reference = platform.fine_tuning.teacher_reference(1, job.teacher)
    assert reference is not None
    assert reference["path"].endswith("models/m")


# --- a student that has nothing to prefer or to go on from ----------------------------------------------


@pytest.mark.parametrize("method", ["dpo", "on_policy"])
def test_a_student_that_starts_from_nothing_must_imitate_first_and_its_fine_tune_need_not(
    platform: Platform, method: str
) -> None:
    rows = example_lines(10) if method == "on_policy" else (msgspec.json.encode(PAIR) + b"\n") * 10
    body = {"training_file": upload(platform, rows), "method": {"type": method}}
    order = fine_tuning.parse_order({"model": "scratch-small", **body})
    for asked_for in (platform.fine_tuning.create, platform.fine_tuning.check):  # a job, and a quote of one
        with pytest.raises(InvalidRequest, match=r"by imitation first .* then name the model") as refused:
            asked_for(1, order)
        assert refused.value.param == "model"
    made = platform.fine_tuning.create(1, fine_tuning.parse_order({"model": tuned(platform), **body}))
    assert made.method.value == method
