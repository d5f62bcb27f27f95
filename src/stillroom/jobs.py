"""The durable queue: who works on which job, and until when others must keep off.

A worker claims a job and gets a *fence*, a number that grows with every claim of that job; each
later write names it and is refused when someone else has claimed since. While it works it moves the
job's heartbeat; an observer takes a job over when the counter has stood still for LEASE_SECONDS of
the observer's own monotonic clock, so no two machines' clocks are ever compared.

What a job is about belongs to its kind's owner (`fine_tuning`, `evals`). Owns the table `jobs`.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    Select,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from stillroom.clock import Clock
from stillroom.store.tables import RowId, metadata

LEASE_SECONDS = 30.0
HEARTBEAT_SECONDS = 5.0
PAUSE = "pause"

jobs = Table(
    "jobs",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("subject", String(64), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    # What the owner asks of whoever runs it: PAUSE, or nothing.
    Column("wish", String(16), nullable=False, default=""),
    Column("worker", String(64)),
    Column("fence", Integer, nullable=False, default=0),
    Column("heartbeat", Integer, nullable=False, default=0),
    # How often its process has died since it last reached a checkpoint.
    Column("crashes", Integer, nullable=False, default=0),
    Column("created_at", BigInteger, nullable=False),
    # It is not claimed earlier, in seconds since the epoch; most jobs may be at once.
    Column("not_before", BigInteger, nullable=False, default=0),
    Index("ix_jobs_state_number", "state", "number"),
)


class State(enum.StrEnum):
    """Where a job stands. PAUSED and the last three are not claimed."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on a job, as long as nobody claims it again."""

    number: int
    project: int
    kind: str
    subject: str
    fence: int
    crashes: int


class StaleClaim(Exception):
    """Another worker has claimed the job, or it has ended: what this one did must not be kept."""


def enqueue(
    connection: Connection,
    *,
    project: int,
    kind: str,
    subject: str,
    state: State = State.VALIDATING,
    not_before: int = 0,
) -> None:
    """Adds a job: one that must be validated before it can be claimed, or one that can be at once, or
    from a time on (seconds since the epoch)."""
    values = {"project": project, "kind": kind, "subject": subject, "state": state.value, "not_before": not_before}
    connection.execute(insert(jobs).values(**values, created_at=int(time.time())))


def validating(connection: Connection, kind: str) -> list[str]:
    """The subjects that wait for validation, oldest first."""
    query = select(jobs.c.subject).where(jobs.c.state == State.VALIDATING.value, jobs.c.kind == kind)
    return list(connection.execute(query.order_by(jobs.c.number)).scalars())


def state_of(connection: Connection, subject: str) -> State | None:
    """None when there is no such job."""
    found = connection.execute(select(jobs.c.state).where(jobs.c.subject == subject)).scalar()
    return State(found) if found else None


def move(connection: Connection, subject: str, *, expected: tuple[State, ...], to: State) -> bool:
    """Sets the state if it is one of those expected; False when it is not. Ends any claim."""
    statement = (
        update(jobs)
        .where(jobs.c.subject == subject, jobs.c.state.in_([state.value for state in expected]))
        .values(state=to.value, wish="", worker=None)
    )
    return connection.execute(statement).rowcount == 1


def count(connection: Connection, project: int, kind: str, state: State) -> int:
    query = select(func.count()).where(jobs.c.state == state.value, jobs.c.project == project, jobs.c.kind == kind)
    return int(connection.execute(query).scalar_one())


def remove(connection: Connection, subject: str) -> None:
    """Forgets a job that is not running."""
    connection.execute(delete(jobs).where(jobs.c.subject == subject, jobs.c.state != State.RUNNING.value))


def ask_to_pause(connection: Connection, subject: str) -> bool:
    """Asks whoever runs the job to save its state and stop; False when nobody runs it."""
    statement = update(jobs).where(jobs.c.subject == subject, jobs.c.state == State.RUNNING.value)
    return connection.execute(statement.values(wish=PAUSE)).rowcount == 1


def claim(
    connection: Connection,
    worker: str,
    kinds: Iterable[str],
    held_back: Collection[int] = (),
    only: Collection[str] | None = None,
) -> Claim | None:
    """Takes the oldest queued job of these kinds whose time has come, but for those held back, by their
    numbers, and where `only` has some, one of these subjects; None when there is none."""
    due = jobs.c.not_before <= int(time.time())
    oldest = _queued(kinds, held_back, only).where(due).order_by(jobs.c.number).limit(1)
    # One UPDATE ... RETURNING, so that two workers never take the same job.
    statement = (
        update(jobs)
        .where(jobs.c.number == oldest.scalar_subquery(), jobs.c.state == State.QUEUED.value)
        .values(
            {
                jobs.c.state: State.RUNNING.value,
                jobs.c.worker: worker,
                jobs.c.wish: "",
                jobs.c.fence: jobs.c.fence + 1,
                jobs.c.heartbeat: jobs.c.heartbeat + 1,
            }
        )
        .returning(jobs)
    )
    row = connection.execute(statement).first()
    if row is None:
        return None
    return Claim(
        number=row.number,
        project=row.project,
        kind=row.kind,
        subject=row.subject,
        fence=row.fence,
        crashes=row.crashes,
    )


def claimable_from(
    connection: Connection, kinds: Iterable[str], held_back: Collection[int] = (), only: Collection[str] | None = None
) -> int | None:
    """From when on one of these kinds can be claimed, in seconds since the epoch; None when none is queued
    that is not held back."""
    return connection.execute(_queued(kinds, held_back, only).with_only_columns(func.min(jobs.c.not_before))).scalar()


def _queued(kinds: Iterable[str], held_back: Collection[int], only: Collection[str] | None) -> Select[int]:
    query = select(jobs.c.number).where(jobs.c.state == State.QUEUED.value, jobs.c.kind.in_(sorted(kinds)))
    query = query.where(jobs.c.number.not_in(held_back)) if held_back else query
    return query if only is None else query.where(jobs.c.subject.in_(only))


def wish_of(connection: Connection, held: Claim) -> str:
    """What the owner asks of whoever runs the job. Raises StaleClaim when it is no longer ours."""
    found = connection.execute(select(jobs.c.wish).where(*_ours(held))).scalar()
    if found is None:
        raise StaleClaim(held.subject)
    return str(found)


def beat(connection: Connection, held: Claim) -> None:
    """Moves the heartbeat. Raises StaleClaim when the job is no longer ours."""
    statement = update(jobs).where(*_ours(held)).values({jobs.c.heartbeat: jobs.c.heartbeat + 1})
    if connection.execute(statement).rowcount == 0:
        raise StaleClaim(held.subject)


def guard(connection: Connection, held: Claim) -> None:
    """Raises StaleClaim unless the claim still holds; call it in the transaction of every write."""
    if connection.execute(select(jobs.c.number).where(*_ours(held))).first() is None:
        raise StaleClaim(held.subject)


def release(connection: Connection, held: Claim, to: State) -> None:
    """Ends the claim and leaves the job in a state. Raises StaleClaim when it was no longer ours."""
    guard(connection, held)
    values = {"state": to.value, "worker": None, "wish": ""}
    connection.execute(update(jobs).where(jobs.c.number == held.number).values(values))


def count_crash(connection: Connection, held: Claim) -> None:
    """The job's process has died: puts the job back into the queue and remembers that."""
    guard(connection, held)
    statement = update(jobs).where(jobs.c.number == held.number)
    connection.execute(statement.values({jobs.c.crashes: jobs.c.crashes + 1}))
    release(connection, held, State.QUEUED)


def crashes_of(connection: Connection, held: Claim) -> int:
    """How often the job's process has died since it last got further, which may be after it was claimed."""
    return int(connection.execute(select(jobs.c.crashes).where(jobs.c.number == held.number)).scalar_one())


def forget_crashes(connection: Connection, held: Claim) -> None:
    """The job has got further than it ever was."""
    connection.execute(update(jobs).where(jobs.c.number == held.number).values(crashes=0))


def release_all(connection: Connection, worker: str) -> list[str]:
    """Queues again what a worker of this name held when it died; gives the subjects."""
    statement = (
        update(jobs)
        .where(jobs.c.worker == worker, jobs.c.state == State.RUNNING.value)
        .values(state=State.QUEUED.value, worker=None, wish="")
        .returning(jobs.c.subject)
    )
    return list(connection.execute(statement).scalars())


def _ours(held: Claim) -> tuple[ColumnElement[bool], ...]:
    return (jobs.c.number == held.number, jobs.c.fence == held.fence, jobs.c.state == State.RUNNING.value)


class Observer:
    """Watches other workers' heartbeats and queues again the jobs whose worker has gone silent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[int, tuple[int, int, float]] = {}

    def take_over(self, connection: Connection) -> list[str]:
        """Queues silent workers' jobs again; gives their subjects."""
        now = self._clock.monotonic()
        running = select(jobs).where(jobs.c.state == State.RUNNING.value)
        current: dict[int, tuple[int, int, float]] = {}
        silent: list[str] = []
        for row in connection.execute(running):
            fence, beat_, since = self._seen.get(row.number, (row.fence, -1, now))
            if (fence, beat_) != (row.fence, row.heartbeat):
                since = now
            current[row.number] = (row.fence, row.heartbeat, since)
            if now - since >= LEASE_SECONDS:
                silent.append(row.subject)
        self._seen = current
        for subject in silent:
            move(connection, subject, expected=(State.RUNNING,), to=State.QUEUED)
        return silent
