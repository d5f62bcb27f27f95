"""Fine-tuning jobs through the official SDKs: asked for, watched, ended, and what comes of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from typing import Any

import pytest
from openai import AzureOpenAI, BadRequestError, ConflictError, NotFoundError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.journeys.conftest import Raw, await_end
from tests.support import Server, example_lines, wait_for

AZURE_COLUMNS = (
    "step",
    "train_loss",
    "train_mean_token_accuracy",
    "valid_loss",
    "validation_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)
OPENAI_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def upload(client: OpenAI, lines: bytes) -> str:
    return client.files.create(file=("training.jsonl", lines), purpose="fine-tune").id


def start(client: OpenAI, lines: bytes, **options: Any) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        **{"model": "scratch-small", "training_file": upload(client, lines), **options}
    )


def start_long(client: OpenAI, **options: Any) -> FineTuningJob:
    """A job that takes much longer than a test."""
    return start(client, example_lines(500), hyperparameters={"n_epochs": 50, "batch_size": 1}, **options)


def await_status(client: OpenAI, job_id: str, status: str) -> None:
    wait_for(lambda: _status(client, job_id) == status, seconds=120)


def _status(client: OpenAI, job_id: str) -> str:
    # "paused" is no status in the SDK's types.
    return str(json.loads(client.fine_tuning.jobs.with_raw_response.retrieve(job_id).text)["status"])


def _told(client: OpenAI, job_id: str, beginning: str) -> bool:
    return any(event.message.startswith(beginning) for event in client.fine_tuning.jobs.list_events(job_id, limit=100))


# --- a job that succeeds --------------------------------------------------------------------------------


def test_a_finished_job_has_its_model_tokens_and_numbers(job: FineTuningJob) -> None:
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith("scratch-small.ft-")
    assert job.fine_tuned_model.endswith("-colours")
    assert job.trained_tokens is not None
    assert job.trained_tokens > 0
    assert job.trained_tokens % 3 == 0  # each of the three epochs sees the same tokens
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    assert (job.seed, job.error, job.estimated_finish) == (7, None, None)
    assert job.model_extra is not None
    assert job.model_extra["user_provided_suffix"] == "colours"


def test_hyperparameters_are_echoed_in_both_places_as_numbers(job: FineTuningJob) -> None:
    assert job.hyperparameters.n_epochs == 3
    assert isinstance(job.hyperparameters.batch_size, int)
    assert isinstance(job.hyperparameters.learning_rate_multiplier, float)
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.to_dict() == job.hyperparameters.to_dict()


def test_the_strict_client_sees_the_same_job_under_its_openai_name(client: OpenAI, job: FineTuningJob) -> None:
    seen = client.fine_tuning.jobs.retrieve(job.id)
    assert seen.fine_tuned_model is not None
    assert seen.fine_tuned_model.startswith("ft:scratch-small:stillroom:colours:")
    assert seen.trained_tokens == job.trained_tokens
    assert job.id in [listed.id for listed in client.fine_tuning.jobs.list()]


def test_events_tell_the_story_newest_first(client: OpenAI, job: FineTuningJob) -> None:
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    messages = [event.message for event in reversed(events)]
    assert messages[0] == f"Created fine-tuning job: {job.id}"
    assert messages[1] == f"Validating training file: {job.training_file}"
    assert messages[2:4] == ["Files validated, moving job to queued state", "Fine-tuning job started"]
    assert messages[-2].startswith("New fine-tuned model created: ft:scratch-small:")
    assert messages[-1] == "The job has successfully completed"
    assert len({event.id for event in events}) == len(events)
    assert [event.created_at for event in events] == sorted((e.created_at for e in events), reverse=True)


def test_every_step_is_a_metrics_event(client: OpenAI, job: FineTuningJob) -> None:
    events = [event for event in client.fine_tuning.jobs.list_events(job.id, limit=100) if event.type == "metrics"]
    data: list[dict[str, Any]] = [dict(event.data or {}) for event in reversed(events)]  # type: ignore[call-overload]
    assert [step["step"] for step in data] == list(range(1, data[0]["total_steps"] + 1))
    assert events[-1].message.startswith(f"Step 1/{len(data)}: training loss=")
    assert data[-1]["train_loss"] < data[0]["train_loss"]


def test_events_are_paged_by_cursor(client: OpenAI, job: FineTuningJob) -> None:
    everything = [event.id for event in client.fine_tuning.jobs.list_events(job.id, limit=100).data]
    first = client.fine_tuning.jobs.list_events(job.id, limit=2)
    assert ([event.id for event in first.data], first.has_more) == (everything[:2], True)
    rest = client.fine_tuning.jobs.list_events(job.id, limit=100, after=everything[1])
    assert ([event.id for event in rest.data], rest.has_more) == (everything[2:], False)


def test_three_epochs_leave_deployable_checkpoints(client: OpenAI, job: FineTuningJob) -> None:
    found = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    steps = [checkpoint.step_number for checkpoint in found]
    assert 2 <= len(found) <= 3
    assert steps == sorted(steps, reverse=True)
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    for checkpoint in found:
        assert checkpoint.id.startswith("ftckpt_")
        assert checkpoint.fine_tuning_job_id == job.id
        assert checkpoint.fine_tuned_model_checkpoint == f"{name}:ckpt-step-{checkpoint.step_number}"
        assert checkpoint.metrics.full_valid_loss is not None
    page = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    assert ([c.id for c in page.data], page.has_more) == ([found[0].id], True)


def test_the_result_file_is_a_csv_with_both_sides_columns(client: OpenAI, job: FineTuningJob) -> None:
    file = client.files.retrieve(job.result_files[0])
    assert file.purpose == "fine-tune-results"
    rows = list(csv.DictReader(io.StringIO(client.files.content(file.id).text)))
    assert set(AZURE_COLUMNS + OPENAI_COLUMNS) <= set(rows[0])
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(float(row["train_loss"]) > 0 for row in rows)
    assert float(rows[-1]["full_valid_loss"]) > 0


def test_a_finished_job_leaves_its_report_and_curves_and_none_of_its_rows(
    client: OpenAI, server: Server, job: FineTuningJob
) -> None:
    folder = server.data / "runs" / job.id
    wait_for(lambda: not any((folder / name).exists() for name in ("training.jsonl", "checkpoints", "tokenizer")))
    told = (folder / "report.md").read_text()
    assert f"# {client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model}" in told
    assert "The run is done: " in told
    assert hashlib.sha256(client.files.content(job.training_file).content).hexdigest() in told
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [file for file in (folder / "tensorboard").iterdir() if file.stat().st_size]
    kept = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in kept if b"Answer with the colour" in text or b"thing 1" in text]


def test_models_list_the_base_the_student_and_the_teacher(
    client: OpenAI, azure: AzureOpenAI, job: FineTuningJob
) -> None:
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert name is not None
    assert {"gpt-4o", "scratch-small", name} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(name).id == name
    assert job.fine_tuned_model in {model.id for model in azure.models.list()}
    on_azure = azure.models.retrieve(job.fine_tuned_model or "").model_extra
    assert on_azure is not None
    assert on_azure["capabilities"]["chat_completion"] is True
    assert on_azure["model"] == "scratch-small"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    for call in (client.models.retrieve, client.models.delete):
        with pytest.raises(NotFoundError) as refused:
            call("ft:no-such:model::x")
        assert refused.value.code == "model_not_found"


def test_a_fine_tuned_model_answers_by_its_name_on_v1_alone(
    client: OpenAI, azure: AzureOpenAI, job: FineTuningJob, label: dict[str, str]
) -> None:
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert name is not None
    asked: list[Any] = [{"role": "user", "content": "thing 1"}]
    answer = client.chat.completions.create(
        model=name, messages=asked, temperature=0, max_tokens=8, store=True, metadata=label
    )
    assert answer.model == name
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert [item.id for item in client.chat.completions.list(model=name, metadata=label)] == [answer.id]
    with pytest.raises(NotFoundError) as refused:
        azure.chat.completions.create(model=job.fine_tuned_model or "", messages=asked)
    assert refused.value.code == "DeploymentNotFound"


def test_a_fine_tuned_model_can_be_tuned_further_and_deleted(client: OpenAI, job: FineTuningJob) -> None:
    base = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}}
    second = await_end(client, start(client, example_lines(12), model=base, method=method).id)
    assert second.status == "succeeded", second.error
    assert (second.model, second.hyperparameters.n_epochs, second.hyperparameters.batch_size) == (base, 1, 4)
    assert second.fine_tuned_model is not None
    assert client.models.delete(second.fine_tuned_model).deleted
    with pytest.raises(NotFoundError):
        client.models.retrieve(second.fine_tuned_model)


# --- jobs that do not -----------------------------------------------------------------------------------


def test_nine_rows_make_a_job_that_fails_at_the_training_file(client: OpenAI) -> None:
    failed = await_end(client, start(client, example_lines(9)).id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_n_examples", "training_file")
    assert "9 example(s)" in failed.error.message
    assert failed.fine_tuned_model is None
    assert next(iter(client.fine_tuning.jobs.list_events(failed.id))).level == "error"


def test_ten_rows_are_enough(client: OpenAI) -> None:
    made = start(client, example_lines(10))
    wait_for(lambda: _told(client, made.id, "Files validated, moving job to queued state"))
    client.fine_tuning.jobs.cancel(made.id)


def test_a_broken_row_fails_the_job_and_is_named(client: OpenAI) -> None:
    failed = await_end(client, start(client, example_lines(12) + b'{"messages": "hi"}\n').id)
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert "Line 13" in failed.error.message


def test_a_row_with_an_image_fails_on_a_text_student(client: OpenAI) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a cat"}]}
    failed = await_end(client, start(client, example_lines(12) + json.dumps(row).encode()).id)
    assert failed.error is not None
    assert "image" in failed.error.message
    assert "Line 13" in failed.error.message


def test_a_cancelled_job_is_over_and_a_second_cancel_is_refused(client: OpenAI) -> None:
    made = start_long(client)
    cancelled = client.fine_tuning.jobs.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    with pytest.raises(ConflictError) as refused:
        client.fine_tuning.jobs.cancel(made.id)
    assert refused.value.response.headers["x-should-retry"] == "false"
    for call in (client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(ConflictError):
            call(made.id)


def test_a_running_job_pauses_and_goes_on_where_it_stopped(client: OpenAI) -> None:
    made = start_long(client)
    await_status(client, made.id, "running")
    wait_for(lambda: any(e.type == "metrics" for e in client.fine_tuning.jobs.list_events(made.id).data), seconds=120)
    client.fine_tuning.jobs.with_raw_response.pause(made.id)
    await_status(client, made.id, "paused")
    client.fine_tuning.jobs.with_raw_response.resume(made.id)
    wait_for(lambda: _told(client, made.id, "Fine-tuning job goes on from step "))
    client.fine_tuning.jobs.cancel(made.id)
    assert client.fine_tuning.jobs.retrieve(made.id).status == "cancelled"


def test_unknown_jobs_and_files_are_refused_by_name(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    for call in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(NotFoundError):
            call("ftjob-unknown")
    with pytest.raises(BadRequestError) as refused:
        jobs.create(model="scratch-small", training_file="file-unknown")
    assert refused.value.param == "training_file"
    with pytest.raises(BadRequestError) as refused:
        start(client, example_lines(12), model="gpt-4o")
    assert refused.value.param == "model"
    assert "teacher" in refused.value.message


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
    ],
)
def test_values_out_of_range_are_refused_by_name(client: OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        start(client, example_lines(1), **options)
    assert refused.value.param == param


def test_azures_minus_one_means_auto(azure: AzureOpenAI) -> None:
    made = start(azure, example_lines(1), hyperparameters={"n_epochs": -1, "batch_size": -1})
    assert (made.hyperparameters.n_epochs, made.hyperparameters.batch_size) == ("auto", "auto")
    assert made.hyperparameters.learning_rate_multiplier == "auto"


def test_jobs_are_listed_by_metadata_and_page_by_page(client: OpenAI, raw: Raw, label: dict[str, str]) -> None:
    made = [start(client, example_lines(1), metadata={**label, "n": str(n)}).id for n in range(3)]
    bare = start(client, example_lines(1)).id
    assert [job.id for job in client.fine_tuning.jobs.list(metadata=label, limit=2)] == made[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={**label, "n": "1"})] == [made[1]]
    _, _, without = raw("GET", "/v1/fine_tuning/jobs?metadata=null&limit=100")
    assert bare in [job["id"] for job in without["data"]]
    assert not set(made) & {job["id"] for job in without["data"]}


def test_azure_answers_a_new_job_with_201_and_openai_with_200(client: OpenAI, azure: AzureOpenAI) -> None:
    for sdk, status in ((client, 200), (azure, 201)):
        answer = sdk.fine_tuning.jobs.with_raw_response.create(
            model="scratch-small", training_file=upload(sdk, example_lines(1))
        )
        assert answer.http_response.status_code == status
