"""What a worker records of the job it runs. Every function refuses a claim that no longer holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from stillroom import billing, catalog, ids, jobs
from stillroom.config import Price
from stillroom.errors import Conflict, StillroomError
from stillroom.fine_tuning.table import (
    METRICS,
    Job,
    add_event,
    fail_job,
    fine_tuning_checkpoints,
    last_step,
    set_job,
)
from stillroom.jobs import Claim, State
from stillroom.store.tables import as_json

DEPLOYABLE_CHECKPOINTS = 3
STARTED = ("total_steps", "examples", "valid_examples")  # what the event of a start tells


def record_start(connection: Connection, claim: Claim, started: Mapping[str, Any]) -> None:
    """The trainer has read its data and chosen its numbers."""
    jobs.guard(connection, claim)
    set_job(
        connection,
        claim.subject,
        hyperparameters=as_json(started["hyperparameters"]),
        training_digest=started.get("training_digest"),
    )
    resumed = started.get("resumed_from_step")
    if resumed is None:
        known = {name: started[name] for name in STARTED if name in started} | _figures_of_method(started)
        add_event(connection, claim.subject, "Fine-tuning job started", data=known)
        for text in _told_of_method(started):
            add_event(connection, claim.subject, text)
    else:
        add_event(connection, claim.subject, f"Fine-tuning job goes on from step {resumed}")


def _figures_of_method(started: Mapping[str, Any]) -> dict[str, Any]:
    """What `_told_of_method` says in words; only what there is."""
    dropped = started.get("dropped_prompt") or {}
    found = {
        "soft_label_positions": started.get("soft_label_positions"),
        "dropped_prompt_tokens": dropped.get("tokens"),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _told_of_method(started: Mapping[str, Any]) -> Iterator[str]:
    """What its owner wants to know of a start besides its numbers, in words."""
    share, dropped = started.get("soft_label_positions"), started.get("dropped_prompt")
    if share is not None:
        others = "" if share == 1 else "; the others are learned as plain words"
        yield f"Soft labels: {share:.1%} of the tokens to learn come with what the teacher held likely{others}."
    if dropped is not None:
        yield (
            f"The system prompt is dropped: the student learns to do without its {len(dropped['text']):,} characters. "
            f"Calls that begin with it are answered without, which saves {dropped['tokens']:,} prompt tokens each."
        )


def record_steps(
    connection: Connection,
    claim: Claim,
    steps: Iterable[Mapping[str, Any]],
    finish: int | None,
    running_milliseconds: int | None = None,
) -> None:
    """The numbers of training steps, oldest first, when the job is expected to end, and how long its
    training process has run, interrupted runs included.

    A run that goes on repeats the steps since its saved state: those that have an event get no second.
    """
    jobs.guard(connection, claim)
    known = last_step(connection, claim.subject)
    for step in (step for step in steps if step["step"] > known):
        add_event(connection, claim.subject, _step_text(step), type_=METRICS, data=_step_data(step))
    set_job(connection, claim.subject, estimated_finish=finish, running_milliseconds=running_milliseconds)


def record_message(connection: Connection, claim: Claim, level: str, message: str) -> None:
    jobs.guard(connection, claim)
    add_event(connection, claim.subject, message, level=level)


def record_checkpoint(
    connection: Connection,
    claim: Claim,
    job: Job,
    step: int,
    metrics: Mapping[str, Any],
    blob: str,
    dropped_prompt: Mapping[str, Any] | None = None,
) -> list[str]:
    """Names the weights after an epoch; gives the blobs of checkpoints that are now too old to keep.
    `dropped_prompt`: see `finish`."""
    jobs.guard(connection, claim)
    names = {"openai_name": f"{job.openai_name}:ckpt-step-{step}", "azure_name": f"{job.azure_name}:ckpt-step-{step}"}
    if catalog.find_model(connection, job.project, names["openai_name"]) is not None:
        return []  # recorded before an interruption
    if step <= _last_checkpoint(connection, job.id):
        return [blob]  # recorded then, too, and dropped since
    _add_model(connection, job, names, step, blob, dropped_prompt)
    row = {"id": ids.random_id("ftckpt_"), "job": job.id, "created_at": int(time.time()), "step": step, **names}
    connection.execute(insert(fine_tuning_checkpoints).values(**row, metrics=as_json(metrics)))
    add_event(connection, job.id, f"Checkpoint created at step {step}")
    jobs.forget_crashes(connection, claim)
    return _drop_old_checkpoints(connection, job)


def _add_model(
    connection: Connection,
    job: Job,
    names: dict[str, str],
    step: int | None,
    blob: str,
    dropped_prompt: Mapping[str, Any] | None,
) -> None:
    dropped = dropped_prompt or {"text": None, "tokens": None}
    catalog.add_model(
        connection,
        project=job.project,
        openai_name=names["openai_name"],
        azure_name=names["azure_name"],
        base=job.base,
        job=job.id,
        step=step,
        blob=blob,
        dropped_prompt=dropped["text"],
        dropped_prompt_tokens=dropped["tokens"],
    )


def _last_checkpoint(connection: Connection, job_id: str) -> int:
    """The step of the newest checkpoint; 0 before the first."""
    step = fine_tuning_checkpoints.c.step
    query = select(func.max(step)).where(fine_tuning_checkpoints.c.job == job_id)
    return connection.execute(query).scalar() or 0


def _drop_old_checkpoints(connection: Connection, job: Job) -> list[str]:
    table = fine_tuning_checkpoints
    query = select(table).where(table.c.job == job.id).order_by(table.c.number.desc()).offset(DEPLOYABLE_CHECKPOINTS)
    dropped: list[str] = []
    for row in list(connection.execute(query)):
        try:
            dropped.append(catalog.delete_model(connection, job.project, row.openai_name).blob)
        except Conflict:
            continue  # deployed already, so it stays
        connection.execute(delete(table).where(table.c.number == row.number))
    return dropped


def finish(
    connection: Connection,
    claim: Claim,
    job: Job,
    *,
    blob: str,
    trained_tokens: int,
    result_file: str,
    price: Price,
    running_milliseconds: int | None = None,
    dropped_prompt: Mapping[str, Any] | None = None,
) -> None:
    """The job has succeeded: its model, its bill and its end are one transaction. `dropped_prompt`: the system
    prompt that the model has learned to do without, as the trainer tells it."""
    jobs.release(connection, claim, State.SUCCEEDED)
    names = {"openai_name": job.openai_name, "azure_name": job.azure_name}
    _add_model(connection, job, names, None, blob, dropped_prompt)
    entry = billing.Entry(
        project=job.project,
        kind=billing.Kind.TRAINING,
        model=job.base,
        subject=job.id,
        trained_tokens=trained_tokens,
    )
    billing.record(connection, entry, price)
    set_job(
        connection,
        job.id,
        finished_at=int(time.time()),
        estimated_finish=None,
        trained_tokens=trained_tokens,
        running_milliseconds=running_milliseconds,
        result_files=as_json([result_file]),
    )
    add_event(connection, job.id, f"New fine-tuned model created: {job.openai_name}")
    add_event(connection, job.id, "The job has successfully completed")


def fail(connection: Connection, claim: Claim, error: StillroomError) -> None:
    """The worker gives the job up. Raises StaleClaim when it is no longer its to give up."""
    jobs.guard(connection, claim)
    fail_job(connection, claim.subject, error, expected=(State.RUNNING,))


def set_aside(connection: Connection, claim: Claim, to: State) -> None:
    """The worker has stopped the job where it can go on: PAUSED by wish, or QUEUED for another."""
    jobs.release(connection, claim, to)
    text = "The job was paused." if to is State.PAUSED else "The job was interrupted and waits to go on."
    add_event(connection, claim.subject, text, level="info" if to is State.PAUSED else "warn")


def record_crash(connection: Connection, claim: Claim) -> None:
    """The training process has died; the job goes on from its last saved state."""
    jobs.count_crash(connection, claim)
    add_event(
        connection, claim.subject, "The training process died; the job goes on from its last state.", level="warn"
    )


def _step_text(step: Mapping[str, Any]) -> str:
    figures = (("valid_loss", "validation loss"), ("rewards_margin", "rewards margin"))
    more = "".join(f", {told}={step[name]:.2f}" for name, told in figures if step.get(name) is not None)
    return f"Step {step['step']}/{step['total_steps']}: training loss={step['train_loss']:.2f}{more}"


def _step_data(step: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in step.items() if name != "type" and value is not None}
