"""What is recorded of a job that is interrupted: once, whoever reports it how often."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, func, select

from stillroom import catalog, fine_tuning, jobs
from stillroom.assembly import Platform
from stillroom.billing.ledger import ledger
from stillroom.config import Price
from stillroom.datasets.files import files
from stillroom.fine_tuning import Job
from stillroom.fine_tuning.table import fine_tuning_checkpoints
from stillroom.jobs import Claim, StaleClaim, State
from stillroom.store.blobs import Blobs
from stillroom.worker.fine_tune import FineTune, reported_before, tidy
from tests.support import example_lines

PROJECT = 1


def claimed(platform: Platform, **options: Any) -> tuple[Job, Claim]:
    """A job that a worker has just taken."""
    file = platform.files.create(PROJECT, "a.jsonl", "fine-tune", [example_lines(10)])
    order = fine_tuning.parse_order({"model": "scratch-small", "training_file": file.id, **options})
    job = platform.fine_tuning.create(PROJECT, order)
    platform.fine_tuning.validate_waiting()
    return job, claim(platform)


def claim(platform: Platform) -> Claim:
    found = platform.writer.write(lambda c: jobs.claim(c, "worker", [fine_tuning.KIND]))
    assert found is not None
    return found


def checkpoint(platform: Platform, job: Job, held: Claim, step: int) -> list[str]:
    """The blobs that are to go."""

    def record(connection: Connection) -> list[str]:
        return fine_tuning.record_checkpoint(connection, held, job, step, {"step": step}, f"models/{step}")

    return platform.writer.write(record)


def steps_of(platform: Platform, job: Job) -> list[int]:
    """Of its checkpoints, in the order in which they were recorded."""
    table = fine_tuning_checkpoints.c
    with platform.database.read() as connection:
        return list(connection.execute(select(table.step).where(table.job == job.id).order_by(table.number)).scalars())


def test_deaths_of_the_process_count_between_two_new_checkpoints(platform: Platform) -> None:
    job, held = claimed(platform)

    def die() -> int:
        nonlocal held
        platform.writer.write(lambda c: fine_tuning.record_crash(c, held))
        held = claim(platform)
        return held.crashes

    assert [die(), die()] == [1, 2]
    checkpoint(platform, job, held, 5)
    assert [die(), die()] == [1, 2]
    # Reported again after an interruption, it says nothing about getting further.
    checkpoint(platform, job, held, 5)
    assert die() == 3


def test_a_worker_that_dies_is_no_death_of_the_process(platform: Platform) -> None:
    job, _ = claimed(platform)
    platform.writer.write(lambda c: jobs.move(c, job.id, expected=(State.RUNNING,), to=State.QUEUED))
    assert claim(platform).crashes == 0


def test_a_checkpoint_that_was_dropped_is_not_recorded_again_by_a_run_that_begins_anew(platform: Platform) -> None:
    job, held = claimed(platform)
    assert [checkpoint(platform, job, held, step) for step in (2, 4, 6)] == [[], [], []]
    assert checkpoint(platform, job, held, 8) == ["models/2"]
    # Every state was damaged: the trainer reports all of them a second time.
    assert [checkpoint(platform, job, held, step) for step in (2, 4, 6, 8)] == [["models/2"], [], [], []]
    assert steps_of(platform, job) == [4, 6, 8]


def test_steps_that_a_dead_worker_did_not_record_are_found_in_the_runs_folder(tmp_path: Path) -> None:
    lines = "".join(f"{step},0.{step},{'0.9' if step == 2 else ''},0.01\n" for step in (1, 2, 3, 4))
    (tmp_path / "metrics.csv").write_text("step,train_loss,full_valid_loss,learning_rate\n" + lines)
    for name in ("step-000002", "step-000004"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    started = {"total_steps": 6, "hyperparameters": {"n_epochs": 3}, "resumed_from_step": 3}
    steps, checkpoints = reported_before(tmp_path, started)
    assert steps == [
        {"step": 1, "train_loss": 0.1, "learning_rate": 0.01, "total_steps": 6, "epoch": 0},
        {"step": 2, "train_loss": 0.2, "learning_rate": 0.01, "total_steps": 6, "epoch": 0},
        {"step": 3, "train_loss": 0.3, "learning_rate": 0.01, "total_steps": 6, "epoch": 1},
    ]
    # That of step 4 is reported by the trainer, which has not come to it again yet.
    assert [each["path"] for each in checkpoints] == [str(tmp_path / "checkpoints" / "step-000002")]
    assert checkpoints[0]["metrics"]["full_valid_loss"] == 0.9


def messages_of(platform: Platform, job: Job) -> list[str]:
    """Of its events, oldest first."""
    found, _ = platform.fine_tuning.events(PROJECT, job.id, after=None, limit=100)
    return [event.message for event in reversed(found)]


def start(platform: Platform, held: Claim, **told: Any) -> None:
    platform.writer.write(lambda c: fine_tuning.record_start(c, held, {"hyperparameters": {}, **told}))


def test_what_a_method_found_is_told_once_in_words(platform: Platform) -> None:
    job, held = claimed(platform)
    prompt = {"text": "Answer with the colour.", "tokens": 7}
    start(platform, held, soft_label_positions=0.925, dropped_prompt=prompt)
    events, _ = platform.fine_tuning.events(PROJECT, job.id, after=None, limit=100)
    (figures,) = [event.data for event in events if event.message == "Fine-tuning job started"]
    assert figures == {"soft_label_positions": 0.925, "dropped_prompt_tokens": 7}
    start(platform, held, soft_label_positions=0.925, dropped_prompt=prompt, resumed_from_step=2)
    assert messages_of(platform, job)[-4:] == [
        "Fine-tuning job started",
        "Soft labels: 92.5% of the tokens to learn come with what the teacher held likely; the others are learned as "
        "plain words.",
        "The system prompt is dropped: the student learns to do without its 23 characters. Calls that begin with it are "
        "answered without, which saves 7 prompt tokens each.",
        "Fine-tuning job goes on from step 2",
    ]


def test_plain_imitation_tells_of_no_method(platform: Platform) -> None:
    job, held = claimed(platform)
    start(platform, held, soft_label_positions=None, dropped_prompt=None)
    assert messages_of(platform, job)[-1] == "Fine-tuning job started"


def test_a_step_of_a_preference_job_tells_its_margin(platform: Platform) -> None:
    job, held = claimed(platform)
    step = {"step": 3, "total_steps": 9, "train_loss": 0.613, "rewards_margin": 0.118}
    platform.writer.write(lambda c: fine_tuning.record_steps(c, held, [step], None))
    assert messages_of(platform, job)[-1] == "Step 3/9: training loss=0.61, rewards margin=0.12"
    assert [each.rewards_margin for each in platform.fine_tuning.curve(PROJECT, job.id, after_step=0).steps] == [0.118]


def test_the_trainer_is_told_the_method_and_where_its_teacher_lies(platform: Platform) -> None:
    (platform.settings.folder / "blobs" / "models" / "m").mkdir(parents=True)
    teacher = {"openai_name": "ft:m", "azure_name": "m.ft", "base": "scratch-small", "job": "j", "blob": "models/m"}
    platform.writer.write(lambda c: catalog.add_model(c, project=PROJECT, step=None, **teacher))
    own = {"teacher": "ft:m", "hyperparameters": {"n_epochs": 2, "system_prompt": "drop"}}
    job, held = claimed(platform, model="ft:m", method={"type": "on_policy", "on_policy": own})
    FineTune(platform, held, job)._lay_out()
    spec = msgspec.json.decode((platform.settings.folder / "runs" / job.id / "spec.json").read_bytes())
    assert (spec["method"], spec["hyperparameters"]["system_prompt"]) == ("on_policy", "drop")
    assert spec["teacher"]["path"] == str(platform.settings.folder / "blobs" / "models" / "m")


def test_the_catalogue_knows_which_prompt_a_model_does_without(platform: Platform) -> None:
    job, held = claimed(platform)
    prompt = {"text": "Answer with the colour.", "tokens": 7}
    fields = {"blob": "models/2", "dropped_prompt": prompt}
    platform.writer.write(lambda c: fine_tuning.record_checkpoint(c, held, job, 2, {"step": 2}, **fields))
    end(platform, job, held, dropped_prompt=prompt)
    with platform.database.read() as connection:
        models = catalog.list_models(connection, PROJECT)
    assert [(each.step, each.dropped_prompt, each.dropped_prompt_tokens) for each in models] == [
        (2, "Answer with the colour.", 7),
        (None, "Answer with the colour.", 7),
    ]


def end(platform: Platform, job: Job, held: Claim, **more: Any) -> None:
    prepared = platform.files.prepare("file-x", PROJECT, "step_metrics.csv", "fine-tune-results", [b"step\n"])

    def write(connection: Connection) -> None:
        told: dict[str, Any] = {"blob": "models/1", "trained_tokens": 5, "result_file": prepared.id, **more}
        fine_tuning.finish(connection, held, job, **told, price=Price(training=1.0))
        platform.files.add(connection, prepared)

    platform.writer.write(write)


def count(platform: Platform) -> tuple[int, ...]:
    """Final models, bills and result files."""
    with platform.database.read() as connection:
        return tuple(
            connection.execute(select(func.count()).select_from(table).where(condition)).scalar_one()
            for table, condition in (
                (catalog.models, catalog.models.c.step.is_(None)),
                (ledger, ledger.c.subject.is_not(None)),
                (files, files.c.purpose == "fine-tune-results"),
            )
        )


def test_a_worker_that_wakes_up_too_late_leaves_no_model_no_bill_and_no_file(platform: Platform) -> None:
    job, stale = claimed(platform)
    platform.writer.write(lambda c: jobs.move(c, job.id, expected=(State.RUNNING,), to=State.QUEUED))
    held = claim(platform)
    with pytest.raises(StaleClaim):
        end(platform, job, stale)
    assert count(platform) == (0, 0, 0)
    end(platform, job, held)  # the control: the worker that has the job does
    with pytest.raises(StaleClaim):
        end(platform, job, stale)
    assert count(platform) == (1, 1, 1)


def folder_of(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "weights").write_text(text)
    return path


def test_two_workers_that_store_one_model_at_once_both_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one is held up between its copy and putting it in place."""
    blobs = Blobs(tmp_path / "blobs")
    source = folder_of(tmp_path / "source", "w")
    copied, placed = threading.Event(), threading.Event()
    rename = Path.rename

    def held_up(path: Path, target: Path) -> Path:
        copied.set()
        assert placed.wait(10)
        return rename(path, target)

    slow = threading.Thread(target=lambda: blobs.write_folder("models/a", source))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", held_up)
        slow.start()
        assert copied.wait(10)
    blobs.write_folder("models/a", source)
    placed.set()
    slow.join()
    assert [path.name for path in (tmp_path / "blobs" / "models").iterdir()] == ["a"]
    assert (blobs.path("models/a") / "weights").read_text() == "w"


def test_a_checkpoint_that_the_trainer_has_dropped_meanwhile_is_left_out(platform: Platform, tmp_path: Path) -> None:
    """The worker was held up for so long that the trainer has three newer ones."""
    job, held = claimed(platform)
    run = FineTune(platform, held, job)
    there = folder_of(tmp_path / "step-000004", "w")
    for step, path in ((2, tmp_path / "step-000002"), (4, there)):
        asyncio.run(run._take({"type": "checkpoint", "step": step, "path": str(path), "metrics": {}}))
    assert steps_of(platform, job) == [4]
    models = platform.settings.folder / "blobs" / "models"
    assert [path.name for path in models.iterdir()] == [f"{job.id}-step-4"]


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_killed_worker_left_unfinished_goes_when_the_job_has_ended(platform: Platform, ends: bool) -> None:
    job, held = claimed(platform)
    run = platform.settings.folder / "runs" / job.id
    (run / "resume").mkdir(parents=True)
    models = platform.settings.folder / "blobs" / "models"
    models.mkdir(exist_ok=True)
    draft = folder_of(models / f".{job.id}-step-4.0123", "half")
    other = folder_of(models / ".ftjob-another.0123", "half")
    if ends:
        end(platform, job, held)
    tidy(platform)
    assert (draft.exists(), (run / "resume").exists()) == (not ends, not ends)
    assert other.exists()
    shutil.rmtree(other)
