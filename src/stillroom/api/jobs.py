"""Fine-tuning jobs as whoever watches them wants them: with progress, price, quote and curve, in few bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from stillroom import billing, catalog
from stillroom.api import fine_tuning
from stillroom.api.wire import Call, Reply
from stillroom.billing import Kind
from stillroom.fine_tuning import Figures, Job, Progress
from stillroom.jobs import State

PAGE, LARGEST_PAGE = 20, 100


def list_jobs(call: Call) -> Reply:
    """List fine-tuning jobs, newest first, each with its progress, its price and the quote made for it."""
    found, more = call.platform.fine_tuning.page(
        call.project,
        after=call.query.get("after"),
        limit=call.limit(PAGE, LARGEST_PAGE),
        metadata=None,
        without_metadata=False,
    )
    return Reply(body={"object": "list", "data": _shown(call, found), "has_more": more})


def retrieve(call: Call) -> Reply:
    """Retrieve a fine-tuning job with its progress, its price and the quote made for it."""
    (shown,) = _shown(call, [call.platform.fine_tuning.get(call.project, call.parameters["id"])])
    return Reply(body=shown)


def metrics(call: Call) -> Reply:
    """The figures of a job's steps, or of those after `after_step`: what a curve that grows has to add."""
    job = call.parameters["id"]
    curve = call.platform.fine_tuning.curve(
        call.project, job, after_step=call.number("after_step", "the number of a step, or 0") or 0
    )
    body = {
        "object": "stillroom.metrics",
        "job": job,
        "steps": [each.step for each in curve.steps],
        "train_loss": [each.train_loss for each in curve.steps],
        "train_mean_token_accuracy": [each.train_mean_token_accuracy for each in curve.steps],
        **_rewards(curve.steps),
        "valid": [_validation(each) for each in curve.validated],
        "total_steps": curve.total_steps,
        "last_step": curve.last_step,
    }
    return Reply(body=body)


def _rewards(steps: Sequence[Figures]) -> dict[str, Any]:
    """Of jobs that learn from pairs alone: by how much the better answers are preferred to the worse ones."""
    margins = [each.rewards_margin for each in steps]
    return {"rewards_margin": margins} if any(margin is not None for margin in margins) else {}


def _validation(figures: Figures) -> dict[str, Any]:
    return {
        "step": figures.step,
        "valid_loss": figures.valid_loss,
        "valid_mean_token_accuracy": figures.valid_mean_token_accuracy,
    }


def _shown(call: Call, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    if not jobs:
        return []
    platform = call.platform
    progress = platform.fine_tuning.progress(jobs)
    quotes = platform.quotes.made_for(call.project, jobs)
    examples = platform.files.examples_of(call.project, {job.training_file for job in jobs})
    with platform.database.read() as connection:
        costs = billing.costs_of(connection, call.project, Kind.TRAINING, [job.id for job in jobs])
        saved = {model.job: model.dropped_prompt_tokens for model in catalog.list_models(connection, call.project)}
    return [
        {
            "object": "stillroom.job",
            "job": fine_tuning.shown(call, job),
            "progress": _progress(job, progress[job.id]),
            "cost_microusd": billing.rounded_microusd(costs[job.id]) if job.id in costs else None,
            "quote": quotes[job.id].id if job.id in quotes else None,
            "examples": examples.get(job.training_file),
            "dropped_prompt_tokens": saved.get(job.id),
        }
        for job in jobs
    ]


def _progress(job: Job, progress: Progress) -> dict[str, Any]:
    ends = job.estimated_finish if job.state is State.RUNNING else None
    left = None if ends is None else max(0, ends - int(time.time()))
    return {**msgspec.to_builtins(progress), "seconds_left": left}
