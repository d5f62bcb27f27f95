"""What a job may choose besides OpenAI's three numbers, through the official SDK: which weights move, the shape of an
adapter, and what becomes of rows that are too long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from openai import BadRequestError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from stillroom.student.bases.base_models import open_untuned
from stillroom.student.bases.checkpoint import BaseReference
from stillroom.student.chats.examples import encode_rows, read_rows
from tests.journeys.conftest import await_end
from tests.support import Server, example_lines
from tests.units.student.conftest import save_tiny_base

CONTEXT = 512  # of the tiny base
LONG = json.dumps(
    {"messages": [{"role": "user", "content": "thing"}, {"role": "assistant", "content": "colour " * CONTEXT}]}
).encode()
CHOSEN: dict[str, Any] = {
    "n_epochs": 1,
    "batch_size": 4,
    "lora_rank": 4,
    "lora_targets": ["q_proj", "v_proj"],
    "long_rows": "truncate",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, and a random Qwen3 that knows their words."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "rows.jsonl").write_bytes(example_lines(30))
    save_tiny_base(folder / "model", read_rows(folder / "rows.jsonl"), "qwen3")
    return folder


@pytest.fixture(scope="module")
def own(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the base as `tiny`, and the same one, to be opened in 4 bits, as `tiny4`."""
    path = str(base / "model")
    students = {"tiny": {"path": path}, "tiny4": {"path": path, "quantization": "4bit"}}
    with Server(tmp_path_factory.mktemp("own") / "data", students=json.dumps(students)) as running:
        yield running


@pytest.fixture(scope="module")
def sdk(own: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{own.url}/v1", api_key=own.key, max_retries=0) as opened:
        yield opened


def start(sdk: OpenAI, hyperparameters: dict[str, Any], *, model: str = "tiny", rows: bytes = b"") -> FineTuningJob:
    file = sdk.files.create(file=("rows.jsonl", example_lines(12) + rows), purpose="fine-tune").id
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return sdk.fine_tuning.jobs.create(model=model, training_file=file, method=method, seed=1)


def numbers_of(job: FineTuningJob) -> dict[str, Any]:
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.to_dict() == job.hyperparameters.to_dict()
    return dict(job.hyperparameters.to_dict())


def warnings_of(sdk: OpenAI, job: FineTuningJob) -> list[str]:
    return [e.message for e in sdk.fine_tuning.jobs.list_events(job.id, limit=100) if e.level == "warn"]


@pytest.fixture(scope="module")
def made(sdk: OpenAI) -> FineTuningJob:
    return start(sdk, CHOSEN, rows=LONG)


@pytest.fixture(scope="module")
def adapter(sdk: OpenAI, made: FineTuningJob) -> FineTuningJob:
    ended = await_end(sdk, made.id)
    assert ended.status == "succeeded", ended.error
    return ended


def test_a_new_job_shows_what_was_asked_for_and_openais_three(made: FineTuningJob) -> None:
    assert numbers_of(made) == {**CHOSEN, "learning_rate_multiplier": "auto"}


def test_a_job_that_ran_shows_what_everything_became(own: Server, sdk: OpenAI, adapter: FineTuningJob) -> None:
    became = {**CHOSEN, "learning_rate_multiplier": 1.0, "training": "lora", "lora_alpha": 8}
    became |= {"system_prompt": "keep", "soft_label_weight": 0.0}
    assert numbers_of(adapter) == became
    # And it was known before.
    asked = {**CHOSEN, "lora_targets": "q_proj,v_proj", "model": "tiny", "examples": 13}
    request = Request(f"{own.url}/v1/stillroom/hyperparameters?{urlencode(asked)}")
    request.add_header("authorization", f"Bearer {own.key}")
    with urlopen(request, timeout=60) as answer:
        told = json.loads(answer.read())
    assert (told["values"], told["training"]) == (became, "lora")
    assert told["why"].keys() == became.keys()


def test_a_row_that_was_cut_is_named_and_counted_as_it_is(base: Path, sdk: OpenAI, adapter: FineTuningJob) -> None:
    (warning,) = warnings_of(sdk, adapter)
    assert warning.startswith("Rows of the training file that have more than the model's 512 tokens were cut")
    assert "line 13 (" in warning
    template = open_untuned(BaseReference(name="tiny", path=str(base / "model"), revision=None)).template
    whole = encode_rows(read_rows(base / "rows.jsonl")[:12], template, context_tokens=CONTEXT)
    assert adapter.trained_tokens == sum(len(each.ids) for each in whole) + CONTEXT


def test_the_model_is_what_was_asked_for(own: Server, adapter: FineTuningJob) -> None:
    config = json.loads((own.data / "blobs" / "models" / adapter.id / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (4, 8, ["q_proj", "v_proj"])


def test_it_goes_on_as_it_began_and_the_other_way_is_refused_with_the_remedy(
    sdk: OpenAI, adapter: FineTuningJob
) -> None:
    name = adapter.fine_tuned_model
    assert name is not None
    for wrong, param, words in (
        ({"training": "full"}, "training", 'fine-tune the base model itself with "full"'),
        ({"lora_rank": 8}, "lora_rank", "'lora_rank' is 8, but the model's adapter has 4"),
    ):
        with pytest.raises(BadRequestError) as refused:
            start(sdk, wrong, model=name)
        assert (refused.value.param, refused.value.type) == (f"hyperparameters.{param}", "invalid_request_error")
        assert words in refused.value.message
    second = await_end(sdk, start(sdk, {"n_epochs": 1}, model=name).id)
    assert second.status == "succeeded", second.error
    shown = numbers_of(second)
    assert (shown["training"], shown["lora_rank"], shown["lora_targets"]) == ("lora", 4, ["q_proj", "v_proj"])


def test_all_weights_are_trained_where_that_is_asked_for_and_an_adapters_numbers_have_no_effect(
    own: Server, sdk: OpenAI
) -> None:
    ended = await_end(sdk, start(sdk, {"training": "full", "n_epochs": 1, "lora_rank": 4}).id)
    assert ended.status == "succeeded", ended.error
    assert numbers_of(ended).keys() == {
        *("n_epochs", "batch_size", "learning_rate_multiplier", "training", "long_rows"),
        *("system_prompt", "soft_label_weight"),
    }
    assert warnings_of(sdk, ended) == ["'lora_rank' has no effect: all weights are trained, without an adapter."]
    assert (own.data / "blobs" / "models" / ended.id / "model.safetensors").is_file()
    answer = sdk.chat.completions.create(
        model=ended.fine_tuned_model or "", messages=[{"role": "user", "content": "thing 7"}], max_tokens=4
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_a_module_that_the_base_lacks_fails_the_job_with_those_it_has(sdk: OpenAI) -> None:
    failed = await_end(sdk, start(sdk, {"lora_targets": ["q_proj", "wq"]}).id)
    assert failed.error is not None
    assert failed.error.param == "hyperparameters.lora_targets"
    assert "names wq, but the model has no such linear module; it has q_proj, k_proj" in failed.error.message


@pytest.mark.parametrize(
    ("model", "wrong", "words"),
    [
        ("tiny", {"training": "qlora"}, "Invalid 'training': 'qlora'. Expected one of lora, full."),
        ("tiny", {"lora_rank": 0}, "Invalid 'lora_rank': 0. Expected \"auto\" or a whole number from 1 to 1024."),
        ("tiny", {"lora_targets": "q_proj"}, '"all-linear" or a list of 1 to 64 module names'),
        ("tiny", {"lora_r": 8}, "Unknown hyperparameter 'lora_r'; known are"),
        ("scratch-small", {"training": "lora"}, "choose a base model that has weights"),
        ("tiny4", {"training": "full"}, "tiny4 is opened in 4 bits here, which cannot be trained"),
    ],
)
def test_a_wrong_choice_is_refused_at_once_with_what_would_be_right(
    sdk: OpenAI, model: str, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        start(sdk, wrong, model=model)
    assert refused.value.param == f"hyperparameters.{next(iter(wrong))}"
    assert words in refused.value.message


def test_two_processes_train_one_job_within_the_memory_that_is_set(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"training_processes": 2, "training_memory_gb": 3}
    with Server(tmp_path / "data", **settings) as running:
        with OpenAI(base_url=f"{running.url}/v1", api_key=running.key, max_retries=0) as sdk:
            ended = await_end(sdk, start(sdk, {"n_epochs": 2, "batch_size": 4}, model="scratch-small").id)
            assert ended.status == "succeeded", ended.error
            events = list(sdk.fine_tuning.jobs.list_events(ended.id, limit=100))
        spec = json.loads((running.data / "runs" / ended.id / "spec.json").read_text())
    assert (spec["processes"], spec["memory_bytes"]) == (2, 3 * 10**9)
    steps = [event.message.partition(":")[0] for event in reversed(events) if event.type == "metrics"]
    assert steps == [f"Step {number}/6" for number in range(1, 7)]
