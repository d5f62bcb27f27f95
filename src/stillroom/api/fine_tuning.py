"""Fine-tuning jobs, their events and checkpoints."""

from __future__ import annotations

from typing import Any

import msgspec

from stillroom import fine_tuning
from stillroom.api.wire import Call, Dialect, Reply
from stillroom.fine_tuning import Checkpoint, Event, Job
from stillroom.jobs import State
from stillroom.student.hyperparameters import MethodType

JOBS_PAGE, EVENTS_PAGE, CHECKPOINTS_PAGE, LARGEST_PAGE = 20, 20, 10, 100
WITHOUT_METADATA = "null"


def create(call: Call) -> Reply:
    """Create a fine-tuning job."""
    job = call.platform.fine_tuning.create(call.project, fine_tuning.parse_order(call.json()))
    return Reply(body=shown(call, job), status=201 if call.dialect is Dialect.AZURE else 200)


def list_jobs(call: Call) -> Reply:
    """List fine-tuning jobs, newest first."""
    found, more = call.platform.fine_tuning.page(
        call.project,
        after=call.query.get("after"),
        limit=call.limit(JOBS_PAGE, LARGEST_PAGE),
        metadata=call.metadata_filter(),
        without_metadata=call.query.get("metadata") == WITHOUT_METADATA,
    )
    return Reply(body={"object": "list", "data": [shown(call, job) for job in found], "has_more": more})


def retrieve(call: Call) -> Reply:
    """Retrieve a fine-tuning job."""
    return Reply(body=shown(call, call.platform.fine_tuning.get(call.project, call.parameters["id"])))


def cancel(call: Call) -> Reply:
    """Cancel a fine-tuning job at once."""
    return Reply(body=shown(call, call.platform.fine_tuning.cancel(call.project, call.parameters["id"])))


def pause(call: Call) -> Reply:
    """Pause a fine-tuning job after the step it is in."""
    return Reply(body=shown(call, call.platform.fine_tuning.pause(call.project, call.parameters["id"])))


def resume(call: Call) -> Reply:
    """Let a paused fine-tuning job go on."""
    return Reply(body=shown(call, call.platform.fine_tuning.resume(call.project, call.parameters["id"])))


def list_events(call: Call) -> Reply:
    """List a job's events, newest first."""
    limit, after = call.limit(EVENTS_PAGE, LARGEST_PAGE), call.query.get("after")
    found, more = call.platform.fine_tuning.events(call.project, call.parameters["id"], after=after, limit=limit)
    return Reply(body={"object": "list", "data": [_event(event) for event in found], "has_more": more})


def list_checkpoints(call: Call) -> Reply:
    """List a job's checkpoints, newest first."""
    limit, after = call.limit(CHECKPOINTS_PAGE, LARGEST_PAGE), call.query.get("after")
    found, more = call.platform.fine_tuning.checkpoints(call.project, call.parameters["id"], after=after, limit=limit)
    data = [_checkpoint(call, checkpoint) for checkpoint in found]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return Reply(body={"object": "list", "data": data, "has_more": more, **ends})


def shown(call: Call, job: Job) -> dict[str, Any]:
    """The job as the dialect has it."""
    azure = call.dialect is Dialect.AZURE
    numbers = msgspec.to_builtins(job.hyperparameters)
    body = {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "estimated_finish": job.estimated_finish,
        "model": job.model,
        "fine_tuned_model": _name(call, job) if job.state is State.SUCCEEDED else None,
        "organization_id": call.platform.settings.organization,
        "status": "validating_files" if job.state is State.VALIDATING else job.state.value,
        "hyperparameters": numbers,
        "method": _method(job, numbers),
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "result_files": job.result_files,
        "trained_tokens": job.trained_tokens,
        "error": job.error,
        "seed": job.seed,
        "integrations": msgspec.to_builtins(job.integrations),
        "metadata": job.metadata,
    }
    return {**body, "user_provided_suffix": job.suffix} if azure or job.suffix else body


def _method(job: Job, numbers: Any) -> dict[str, Any]:
    teacher = {"teacher": job.teacher or fine_tuning.ITSELF} if job.method is MethodType.ON_POLICY else {}
    return {"type": job.method.value, job.method.value: {"hyperparameters": numbers, **teacher}}


def _name(call: Call, named: Job | Checkpoint) -> str:
    return named.azure_name if call.dialect is Dialect.AZURE else named.openai_name


def _event(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data or {},
    }


def _checkpoint(call: Call, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": checkpoint.created_at,
        "fine_tuned_model_checkpoint": _name(call, checkpoint),
        "fine_tuning_job_id": checkpoint.job,
        "step_number": checkpoint.step,
        "metrics": {name: value for name, value in checkpoint.metrics.items() if value is not None},
    }
