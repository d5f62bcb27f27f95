"""How far jobs are, and their curves: read from the newest events backwards, so that a long job costs no more.

Whoever watches a job asks every second. Nothing here reads an event that he has seen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, ScalarSelect, case, select

from stillroom.fine_tuning.table import fine_tuning_events, fine_tuning_jobs


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a step's event, or the event of the start, says; epochs count from 0."""

    step: int = 0
    total_steps: int | None = None
    epoch: int | None = None
    train_loss: float | None = None
    train_mean_token_accuracy: float | None = None
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    rewards_margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The last step, of how many; `epoch` is the pass it is in, from 1, and 0 before the first step. Losses
    are the newest known."""

    step: int
    steps: int | None
    epoch: int
    train_loss: float | None
    valid_loss: float | None
    rewards_margin: float | None = None
    """Of jobs that learn from pairs alone."""


@dataclass(kw_only=True)
class Curve:
    """A job's steps in order. `validated` are those of them that looked at the validation file."""

    steps: list[Figures] = field(default_factory=list)
    validated: list[Figures] = field(default_factory=list)
    total_steps: int | None = None
    last_step: int = 0


def progress_of(connection: Connection, jobs: Collection[str]) -> dict[str, Progress]:
    """How far each of the jobs is, by its id."""
    job, event = fine_tuning_jobs.c, fine_tuning_events.c
    newest = _newest(event.data.is_not(None))
    # Without a validation file no event has it, and all would be looked through.
    validated = case((job.validation_file.is_not(None), _newest(event.data.like('%"valid_loss":%'))))
    rows = connection.execute(select(job.id, newest, validated).where(job.id.in_(jobs)))
    return {row[0]: _progress(_figures(row[1]), _figures(row[2])) for row in rows}


def curve_of(connection: Connection, job_id: str, *, after_step: int) -> Curve:
    """The steps after that one."""
    event, found = fine_tuning_events.c, Curve()
    query = select(event.data).where(event.job == job_id, event.data.is_not(None)).order_by(event.number.desc())
    newest_first: list[Figures] = []
    with connection.execute(query) as rows:
        for row in rows:
            figures = _figures(row.data)
            found.total_steps = found.total_steps or figures.total_steps
            found.last_step = max(found.last_step, figures.step)
            if figures.step <= after_step:
                break
            newest_first.append(figures)
    found.steps = newest_first[::-1]
    found.validated = [figures for figures in found.steps if figures.valid_loss is not None]
    return found


def _newest(condition: ColumnElement[bool]) -> ScalarSelect[Any]:
    """The data of the newest such event of the job that the statement around it is at."""
    event = fine_tuning_events.c
    query = select(event.data).where(event.job == fine_tuning_jobs.c.id, condition)
    return query.order_by(event.number.desc()).limit(1).correlate(fine_tuning_jobs).scalar_subquery()


def _progress(newest: Figures, validated: Figures) -> Progress:
    return Progress(
        step=newest.step,
        steps=newest.total_steps,
        epoch=0 if newest.epoch is None else newest.epoch + 1,
        train_loss=newest.train_loss,
        valid_loss=validated.valid_loss,
        rewards_margin=newest.rewards_margin,
    )


def _figures(text: str | None) -> Figures:
    return msgspec.json.decode(text, type=Figures) if text else Figures()
