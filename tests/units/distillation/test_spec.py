"""Job files: what they mean, and how what is wrong with one is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stillroom.config import Settings, Student, Teacher
from stillroom.distillation import InvalidJobFile
from stillroom.distillation.reading import read
from stillroom.distillation.spec import Kind, Reasoning, Task, Thinking
from tests.journeys.test_distill_run import AZURE_FILES, STUDENT, TEACHER

SETTINGS = Settings(students={STUDENT: Student(path="")}, teachers={"t": Teacher(base_url="http://localhost/v1")})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Azure's five files, with the rows they name."""
    for file in AZURE_FILES.glob("*.yaml"):
        shutil.copy(file, tmp_path)
        task = file.stem.removeprefix("distillation_")
        for part in ("train", "validation"):
            (tmp_path / f"{part}_{task}.jsonl").write_text('{"messages": []}\n')
    return tmp_path


def problems(values: dict[str, Any] | Path) -> str:
    with pytest.raises(InvalidJobFile) as caught:
        read(values, SETTINGS)
    return caught.value.message


def short(**more: Any) -> dict[str, Any]:
    return {"teacher": "t", "student": "scratch-small", "source": {"stored_completions": {}}, **more}


def test_azures_files_mean_what_they_mean_at_azure(folder: Path) -> None:
    specs = {file.stem.removeprefix("distillation_"): read(file, SETTINGS) for file in folder.glob("*.yaml")}
    assert {name: spec.prompting.task for name, spec in specs.items()} == {task.value: task for task in Task}
    assert {name: spec.minimum_rows for name, spec in specs.items()} == {
        "nli": 65, "nlu_qa": 65, "conversation": 65, "summarization": 65, "math": 40,
    }  # fmt: skip
    assert specs["nli"].prompting.thinking is Thinking.CHAIN_OF_THOUGHT
    assert specs["conversation"].prompting.thinking is Thinking.NONE
    assert specs["summarization"].prompting.thinking is Thinking.CHAIN_OF_DENSITY
    nli = specs["nli"]
    assert (nli.student, nli.suffix, nli.teacher) == (STUDENT, "llama-nli-distilled", TEACHER)
    assert nli.endpoint is not None
    assert nli.endpoint.api_key == "EXAMPLE_API_KEY"
    assert nli.inference == {"temperature": 0.1, "max_tokens": 1024, "top_p": 0.95}
    assert nli.hyperparameters == {"learning_rate_multiplier": 0.2, "n_epochs": 5, "batch_size": 2}
    assert (nli.at_once, nli.success_ratio) == (10, 0.7)
    assert nli.training.path == folder / "train_nli.jsonl"
    assert any("instance_type" in warning for warning in nli.warnings)


def test_a_teacher_that_is_configured_takes_the_place_of_the_files_endpoint(folder: Path) -> None:
    settings = Settings(students=SETTINGS.students, teachers={TEACHER: Teacher(base_url="http://localhost/v1")})
    assert read(folder / "distillation_nli.yaml", settings).endpoint is None


def test_azures_defaults_are_azures_and_ours_are_the_teachers(folder: Path) -> None:
    path = folder / "distillation_summarization.yaml"
    bare = path.read_text().split("# Teacher model related")[0]
    path.write_text(bare)
    assert read(path, SETTINGS).inference == {"max_tokens": 1024, "temperature": 0.2, "top_p": 0.1}
    path.write_text(bare.replace("summarization\n", "NLI\n", 1))
    assert read(path, SETTINGS).inference == {"max_tokens": 128, "temperature": 0.2, "top_p": 0.1}
    assert read(short(), SETTINGS).inference == {}
    assert read(short(task="Summarization"), SETTINGS).prompting.summary_words == 80


def test_everything_that_is_wrong_is_told_at_once_with_a_remedy() -> None:
    told = problems(
        short(
            teacer="x",
            student="nobody",
            source={"jsonl": "./none.jsonl", "colums": {}},
            hyperparameters={"n_epochs": "99", "lora_rnk": 4},
            teacher_model_settings={
                "inference_parameters": {"temperature": "3"},
                "endpoint_request_settings": {"request_batch_size": 200, "min_endpoint_success_ratio": 1.5},
            },
            reasoning="drop",
        )
    )
    for words in (
        "`teacer` is no key that is known here. Did you mean `teacher`?",
        '[students."nobody"]',
        "`source.jsonl` is './none.jsonl', but there is no",
        "`source.colums`", "Did you mean `columns`?",
        "`hyperparameters.n_epochs` is wrong", "from 1 to 50",
        "`hyperparameters.lora_rnk` is wrong",
        "temperature` is '3'; expected a number from 0 to 1",
        "request_batch_size` is 200; expected a whole number from 1 to 100",
        "min_endpoint_success_ratio` is 1.5",
        "`reasoning` is 'drop'; expected one of keep, strip, summarise",
    ):  # fmt: skip
        assert words in told


def test_label_generation_needs_training_and_validation_data(folder: Path) -> None:
    path = folder / "distillation_nli.yaml"
    both = path.read_text()
    path.write_text(both.replace("validation_data:\n  type: uri_file\n  path: ./validation_nli.jsonl\n", ""))
    assert "`validation_data` is missing" in problems(path)


def test_azures_older_hyperparameters_become_ours() -> None:
    asked = {"num_train_epochs": "2", "per_device_train_batch_size": "4", "learning_rate": "3e-4"}
    spec = read(short(hyperparameters=asked), SETTINGS)
    assert spec.hyperparameters == {"n_epochs": 2, "batch_size": 4}
    assert spec.learning_rate == 3e-4
    assert "Leave one out" in problems(short(hyperparameters={"n_epochs": 1, "num_train_epochs": 1}))


def test_the_short_form_names_its_sources_and_methods(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    source = {"dataset": str(tmp_path / "data"), "split": "train", "columns": {"user": "q"}, "system": "Be brief."}
    spec = read(short(source=source, reasoning="keep", budget_usd="1.5", method={"type": "dpo"}), SETTINGS)
    assert spec.training.kind is Kind.DATASET
    assert spec.reasoning is Reasoning.KEEP
    assert (spec.budget_microusd, spec.method) == (1_500_000, "dpo")
    assert "best_of_n.judge` is missing" in problems(short(curation={"best_of_n": {"n": 3}}))
    assert "teacher's own words" in problems(
        short(
            task="math", prompt_settings={"enable_chain_of_thought": True}, hyperparameters={"soft_label_weight": 0.5}
        )
    )


def test_a_methods_own_object_is_that_of_a_job() -> None:
    spec = read(short(method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.7}}}), SETTINGS)
    assert (spec.method, spec.hyperparameters) == ("dpo", {"beta": 0.7})
    judged = read(short(method={"type": "on_policy", "on_policy": {"teacher": "t"}}, student="ft:a:b::c"), SETTINGS)
    assert judged.job_method({}) == {"type": "on_policy", "on_policy": {"hyperparameters": {}, "teacher": "t"}}
    assert "'method.typ'" in problems(short(method={"typ": "dpo"}))


def test_what_is_wrong_is_told_in_the_files_own_words(tmp_path: Path) -> None:
    told = problems(
        short(
            name="../../x",
            method="dpoo",
            hyperparameters={"n_epoch": 3},
            curation={"exact_duplicates": "yes", "near_duplicates": 7, "languages": "en"},
            seed=-1,
        )
    )
    for words in (
        "`name` is '../../x'; expected a word, not a path",
        "`method` is wrong", "`hyperparameters.n_epoch` is wrong",
        "`curation.exact_duplicates` is 'yes'; expected true or false.",
        "`curation.languages` is 'en'; expected a list.",
        "`curation.near_duplicates` cannot be used", "from 0 to 2147483647",
    ):  # fmt: skip
        assert words in told
    file = tmp_path / "file.yaml"
    for text, words in (("", "is empty"), ("- a", "is ['a']")):
        file.write_text(text)
        assert problems(file) == f"{file} {words}; expected keys and values."
    (tmp_path / "named.yaml").write_text("teacher: t\nstudent: scratch-small\nsource: {stored_completions: {}}\n")
    assert read(tmp_path / "named.yaml", SETTINGS).suffix == "named"
    assert "`student` is missing" in problems({"teacher": "t", "source": {"stored_completions": {}}})


def test_a_file_from_a_stranger_takes_no_time_and_tells_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(f"name: {'[' * 1000}{']' * 1000}\n")
    assert "nested too deeply" in problems(file)
    file.write_text("a: &a [x, x]\nname: [*a, *a]\n")
    assert "`*a` stands for another part" in problems(file)
    file.write_text(f"name: {'9' * 5000}\n")
    assert "is no valid YAML" in problems(file)
    assert "has 300 letters; expected 64 at most" in problems(short(name="a" * 300))
    nested: Any = "x"
    for _ in range(40):
        nested = [nested] * 9
    assert len(problems(short(name=nested))) < 1000
    keyed = {"name": "m", "endpoint": "http://h/", "api_key": 81234567}
    told = problems({**short(), "teacher": None, "teacher_model_endpoint_connection": keyed})
    assert "api_key` is no text" in told
    assert "8123" not in told


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    spec = read(
        short(task="conversation", prompt_settings={"enable_chain_of_thought": True}, tags={"a": "b"}), SETTINGS
    )
    assert spec.prompting.thinking is Thinking.NONE
    assert [warning.split("` ")[0] for warning in spec.warnings] == [
        "`tags",
        "`prompt_settings.enable_chain_of_thought",
    ]


def test_a_file_that_is_no_yaml_or_not_there_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert "is no valid YAML" in problems(broken)
    assert "There is no file" in problems(tmp_path / "none.yaml")
    broken.write_text("seed: 1\nseed: 2\n")
    assert "`seed` is written twice" in problems(broken)
    broken.write_text(json.dumps(["a"]))
    assert "expected keys and values" in problems(broken)
