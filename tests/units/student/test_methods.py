"""Runs of each method, as their parents see them: what they need, what they tell, and that a kill changes nothing."""

from __future__ import annotations

import itertools
import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stillroom.student.bases.base_models import open_artefact
from stillroom.student.bases.checkpoint import read_artefact
from stillroom.student.chats.examples import read_rows

from .conftest import save_tiny_base, write_rows
from .nursery import Ended, Nursery
from .tickets import SYSTEM, tickets

STEPS = 4
OF_THE_MACHINE = {"tokens_per_second", "computed_tokens_per_second", "memory_bytes", "elapsed_seconds"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny Llama that somebody has."""
    folder = tmp_path_factory.mktemp("base")
    rows = read_rows(write_rows(folder / "rows.jsonl", tickets(16, seed=3)))
    return {"name": "tiny", "path": str(save_tiny_base(folder / "llama", rows, "llama")), "revision": None}


def _job(
    folder: Path, base: dict[str, Any], rows: list[dict[str, Any]], valid: list[dict[str, Any]], **changes: Any
) -> Path:
    folder.mkdir()
    spec = {
        "base": base,
        "training_file": str(write_rows(folder / "train.jsonl", rows)),
        "validation_file": str(write_rows(folder / "valid.jsonl", valid)) if valid else None,
        "hyperparameters": {"n_epochs": 2, "batch_size": 4, "lora_rank": 2} | changes.pop("hyperparameters", {}),
        "seed": 11,
        "threads": 1,
        "checkpoint_seconds": 0.0,
        "model_name": "ft:test",
    }
    (folder / "spec.json").write_text(json.dumps(spec | changes))
    return folder


def _pairs(count: int, *, seed: int) -> list[dict[str, Any]]:
    """To prefer the right answer over that of another ticket; in both spellings of the two."""
    rows = tickets(count + 1, seed=seed)
    names = [("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion")]
    return [
        {
            "input": {"messages": row["messages"][:-1]},
            names[index % 2][0]: [row["messages"][-1]],
            names[index % 2][1]: [other["messages"][-1]],
        }
        for index, (row, other) in enumerate(itertools.pairwise(rows))
    ]


def _labelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By a teacher that says its answers word by word and is not quite sure of any."""

    def entry(word: str) -> dict[str, Any]:
        told = [(word, 0.7), (" else", 0.2)]
        top = [{"token": token, "bytes": list(token.encode()), "logprob": math.log(chance)} for token, chance in told]
        return {**top[0], "top_logprobs": top}

    def answered(message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "logprobs": {"content": [entry(word) for word in re.findall(r"\s?\S+", message["content"])]}}

    return [{"messages": [*row["messages"][:-1], answered(row["messages"][-1])]} for row in rows]


def _weights(run: Path, step: int = STEPS) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{step:06d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*model.safetensors"))}


def _told(ended: Ended, kind: str) -> dict[str, Any]:
    (found,) = (event for event in ended.events if event["type"] == kind)
    return found


def _figures(*lives: Ended) -> dict[int, dict[str, Any]]:
    steps = (event for life in lives for event in life.events if event["type"] == "step")
    return {step["step"]: {name: each for name, each in step.items() if name not in OF_THE_MACHINE} for step in steps}


SOFT = {"soft_label_weight": 0.5}
KINDS: dict[str, Any] = {
    "dpo": lambda: (_pairs(8, seed=3), _pairs(3, seed=4), {"method": "dpo"}),
    "soft": lambda: (_labelled(tickets(8, seed=3)), _labelled(tickets(3, seed=4)), {"hyperparameters": SOFT}),
    "on-policy": lambda: (tickets(8, seed=3), tickets(3, seed=4), {"method": "on_policy"}),
}


@pytest.fixture(scope="module", params=list(KINDS))
def run(
    request: pytest.FixtureRequest, nursery: Nursery, base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Ended]:
    rows, valid, changes = KINDS[request.param]()
    folder = _job(tmp_path_factory.mktemp(request.param) / "run", base, rows, valid, **changes)
    return request.param, folder, nursery.run(folder)


def test_a_run_of_a_method_killed_twice_ends_bit_equal(
    run: tuple[str, Path, Ended], nursery: Nursery, base: dict[str, Any], tmp_path: Path
) -> None:
    kind, undisturbed, ended = run
    rows, valid, changes = KINDS[kind]()
    folder = _job(tmp_path / "killed", base, rows, valid, **changes)
    lives = [
        nursery.run(folder, die_at=r"os.mkdir resume/\.step-000001"),  # before it has a state
        nursery.run(folder, at_step=(2, signal.SIGKILL)),
        nursery.run(folder),
    ]
    assert [life.code for life in lives] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert _told(lives[-1], "started")["resumed_from_step"] >= 1
    assert _weights(folder) == _weights(undisturbed) != {}
    assert _figures(*lives) == _figures(ended)


def test_a_run_of_a_method_by_two_processes_is_that_of_one(
    run: tuple[str, Path, Ended], nursery: Nursery, base: dict[str, Any], tmp_path: Path
) -> None:
    kind, alone, ended = run
    if kind == "soft":
        return  # of labelled rows a process computes its part as of others
    rows, valid, changes = KINDS[kind]()
    folder = _job(tmp_path / "two", base, rows, valid, **changes, processes=2, threads=2)
    together = nursery.run(folder)
    assert together.code == 0, together.events
    if kind == "on-policy":  # each draws answers of its own
        assert list(_figures(together)) == list(_figures(ended))
        assert _weights(folder) != _weights(alone)
        return
    for step, figures in _figures(ended).items():
        for name in ("train_loss", "valid_loss"):
            assert _figures(together)[step][name] == pytest.approx(figures[name], abs=1e-5), (step, name)
    mine, others = (
        load_file(next((each / "checkpoints" / f"step-{STEPS:06d}").glob("*model.safetensors")))
        for each in (folder, alone)
    )
    for name, weight in mine.items():
        assert (weight - others[name]).abs().max() <= 1e-5, name


def test_what_a_run_of_a_method_tells(run: tuple[str, Path, Ended]) -> None:
    kind, folder, ended = run
    assert ended.code == 0, ended.events
    started, figures = _told(ended, "started"), _figures(ended)
    assert started["dropped_prompt"] is None
    report = (folder / "report.md").read_text()
    if kind == "dpo":
        assert started["hyperparameters"]["beta"] == 0.1
        assert "soft_label_weight" not in started["hyperparameters"]
        assert started["soft_label_positions"] is None
        assert figures[1]["train_loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert figures[STEPS]["rewards_margin"] != 0.0
        assert read_artefact(Path(_told(ended, "done")["path"])).method == "dpo"
        assert "| method | dpo |" in report
        assert "training pairs told apart" in report
        header, last = ((folder / "metrics.csv").read_text().splitlines()[at] for at in (0, -1))
        assert header.split(",")[-1] == "rewards_margin"
        assert float(last.split(",")[-1]) == figures[STEPS]["rewards_margin"]
    elif kind == "on-policy":
        assert read_artefact(Path(_told(ended, "done")["path"])).method == "on_policy"
        # The base reads the answer before it judges, and so differs from the student who has not.
        assert figures[1]["train_loss"] > 1e-4
        assert re.search(r"before the first step, the loss on the answers of the validation file is \d", report.lower())
        assert "| validation loss, whole file |" in report
    else:
        assert 0.05 < started["soft_label_positions"] < 1
        assert started["hyperparameters"]["soft_label_weight"] == 0.5
        assert f"| soft labels | at {started['soft_label_positions']:.1%} of the trained tokens |" in report


def test_rows_whose_prompt_is_dropped_are_trained_as_rows_that_never_had_one(nursery: Nursery, tmp_path: Path) -> None:
    """Tokenizer included: the student's own is made of what it learns from."""
    rows, valid = tickets(8, seed=3), tickets(3, seed=4)
    assert {row["messages"][0]["content"] for row in rows} == {SYSTEM}
    bare, bare_valid = ([{"messages": row["messages"][1:]} for row in some] for some in (rows, valid))
    scratch = {"name": "scratch-small", "path": None, "revision": None}
    dropped = _job(tmp_path / "dropped", scratch, rows, valid, hyperparameters={"system_prompt": "drop"})
    never = _job(tmp_path / "never", scratch, bare, bare_valid)
    told, control = nursery.run(dropped), nursery.run(never)
    assert (told.code, control.code) == (0, 0)
    assert _weights(dropped) == _weights(never) != {}
    assert _figures(told) == _figures(control)
    assert _told(control, "done")["dropped_prompt"] is None

    prompt = _told(told, "done")["dropped_prompt"]
    assert all(event["dropped_prompt"] == prompt for event in told.events if event["type"] in ("started", "checkpoint"))
    artefact = read_artefact(Path(_told(told, "done")["path"]))
    assert artefact.dropped_prompt is not None
    assert (artefact.dropped_prompt.text, artefact.dropped_prompt.tokens) == (SYSTEM, prompt["tokens"])
    # What a call that has it is longer by, with the student's own tokenizer.
    template = open_artefact(Path(_told(told, "done")["path"])).template
    with_it, without = (len(template.encode_prompt(row["messages"][:-1])) for row in (rows[1], bare[1]))
    assert prompt["tokens"] == with_it - without > 10
    # What lies in the folder when rows and models are gone has no word of it.
    assert all(SYSTEM not in (dropped / each).read_text() for each in ("events.jsonl", "report.md", "run.json"))


@pytest.mark.parametrize(
    ("rows", "changes", "code", "words"),
    [
        pytest.param(
            lambda: tickets(4, seed=3),
            {"hyperparameters": SOFT},
            "soft_labels_missing",
            r"none of the 4 rows has `logprobs`",
            id="no logprobs",
        ),
        pytest.param(
            lambda: [
                {"messages": [*row["messages"][:-1], {**row["messages"][-1], "content": "Something else."}]}
                for row in _labelled(tickets(4, seed=3))
            ],
            {"hyperparameters": SOFT},
            "soft_labels_missing",
            r"4 of 4 rows have `logprobs`, but at no token",
            id="another answer's logprobs",
        ),
        pytest.param(
            lambda: [*tickets(3, seed=3), {"messages": tickets(1, seed=4)[0]["messages"][1:]}],
            {"hyperparameters": {"system_prompt": "drop"}},
            "invalid_training_file",
            r"Here are 2 different ones; .* line 4 of the training file, with no system prompt",
            id="two prompts",
        ),
        pytest.param(
            lambda: [{"messages": row["messages"][1:]} for row in tickets(3, seed=3)],
            {"hyperparameters": {"system_prompt": "drop"}},
            "invalid_training_file",
            r"line 1 does not\. Leave it out",
            id="no prompt",
        ),
        pytest.param(
            lambda: tickets(3, seed=3), {"method": "dpo"}, "invalid_training_file", r"Line 1 has no 'input'", id="chats"
        ),
        pytest.param(
            lambda: [{"input": {"messages": []}, "preferred_output": []}],
            {"method": "dpo"},
            "invalid_training_file",
            r"Line 1 needs one assistant message in a list as 'preferred_output'",
            id="no answer",
        ),
        pytest.param(
            lambda: [{"input": {"messages": []}, "preferred_output": [], "non_preferred_completion": []}],
            {"method": "dpo"},
            "invalid_training_file",
            r"Line 1 needs two answers, 'preferred_output' and 'non_preferred_output' or",
            id="two spellings",
        ),
    ],
)
def test_rows_that_a_method_cannot_learn_from_fail_the_run_and_say_why(
    rows: Any, changes: dict[str, Any], code: str, words: str, nursery: Nursery, base: dict[str, Any], tmp_path: Path
) -> None:
    ended = nursery.run(_job(tmp_path / "run", base, rows(), [], **changes))
    assert ended.code == 1
    error = ended.events[-1]
    assert (error["type"], error["code"], error["param"]) == ("error", code, "training_file")
    assert re.search(words, error["message"])


def test_another_model_teaches_and_must_have_the_same_tokens(
    nursery: Nursery, base: dict[str, Any], tmp_path: Path
) -> None:
    rows = tickets(4, seed=3)
    taught = nursery.run(_job(tmp_path / "taught", base, rows, [], method="on_policy", teacher=base))
    assert taught.code == 0, taught.events
    # A new adapter changes nothing: student and teacher are one and the same at first.
    assert _figures(taught)[1]["train_loss"] == pytest.approx(0.0, abs=1e-5)
    assert _figures(taught)[2]["train_loss"] != _figures(taught)[1]["train_loss"]

    other = save_tiny_base(tmp_path / "other", read_rows(write_rows(tmp_path / "few.jsonl", rows[:1])), "llama")
    refused = nursery.run(
        _job(
            tmp_path / "refused",
            base,
            rows,
            [],
            method="on_policy",
            teacher={"name": "other", "path": str(other), "revision": None},
        )
    )
    assert refused.events[-1]["param"] == "method.on_policy.teacher"
    assert "their tokenizers differ" in refused.events[-1]["message"]

    # An answer that fits, but not twice, as its teacher has to read it.
    long = [*rows, {"messages": [rows[0]["messages"][1], {"role": "assistant", "content": "1" * 230}]}]
    named = nursery.run(_job(tmp_path / "long", base, long, [], method="on_policy"))
    assert re.match(r"Line 5 has \d+ tokens; the model reads at most 512", named.events[-1]["message"])


def test_pairs_that_are_too_long_are_cut_or_named(nursery: Nursery, base: dict[str, Any], tmp_path: Path) -> None:
    rows = _pairs(4, seed=3)
    rows[1]["preferred_completion"] = [{"role": "assistant", "content": "on and on " * 400}]
    named = nursery.run(_job(tmp_path / "named", base, rows, [], method="dpo"))
    assert named.events[-1]["message"].startswith("Line 2 has ")
    cut = {"hyperparameters": {"long_rows": "truncate"}}
    ended = nursery.run(_job(tmp_path / "cut", base, rows, [], method="dpo", **cut))
    assert ended.code == 0, ended.events
    assert any("were cut at their end: line 2 (" in event.get("message", "") for event in ended.events)
