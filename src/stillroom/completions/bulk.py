"""Bulk actions: many stored completions tagged or deleted at one request.

An action is a job of the queue (`jobs.py`). What it was asked for is kept with it: the filter, and
the newest completion there was, beyond which it never goes. It works through the numbers in order,
a chunk in a transaction, and where it has come to is written in the same one, so that whoever takes
it over after a crash neither repeats nor leaves out a row. Owns the table `bulk_actions`.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Row,
    Select,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from stillroom import ids, jobs
from stillroom.clock import Clock
from stillroom.completions import batch, search, table
from stillroom.completions.schema import Filter
from stillroom.errors import Conflict, NotFound, RateLimited, StillroomError, shortened
from stillroom.jobs import Claim, State
from stillroom.store.database import Database
from stillroom.store.tables import RowId, as_json, metadata, parsed
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)

KIND = "bulk_action"
KEPT_SECONDS = 30 * 24 * 3600  # for which an action that has ended can be looked up
AT_ONCE = 10_000  # completions that are counted while the caller waits
READ = 2_000  # numbers looked up at a time
MOST_WAITING = 100  # actions of a project

bulk_actions = Table(
    "bulk_actions",
    metadata,
    Column("number", RowId, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("project", ForeignKey("projects.id"), nullable=False),
    Column("action", String(16), nullable=False),
    Column("chosen", Text, nullable=False),
    # The newest completion at the time of asking, and older ones whose answers were still being made.
    Column("bound", BigInteger, nullable=False),
    Column("not_yet", Text, nullable=False),
    # What a tag adds to the metadata, changes, or by null takes away.
    Column("changes", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("matched", BigInteger),
    # The completion that was come to last.
    Column("position", BigInteger, nullable=False, default=0),
    Column("done", BigInteger, nullable=False, default=0),
    Column("not_found", BigInteger, nullable=False, default=0),
    Column("too_many_pairs", BigInteger, nullable=False, default=0),
    Column("error", Text),
    Index("ix_bulk_actions_project_number", "project", "number"),
    Index("ix_bulk_actions_finished_at", "finished_at"),
)


class Action(enum.StrEnum):
    """What is done to the completions."""

    TAG = "tag"
    DELETE = "delete"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for: a filter, or by its `numbers` single completions. `changes` are a tag's;
    for `undo_seconds` nothing is touched yet."""

    action: Action
    chosen: Filter
    changes: Mapping[str, str | None] | None = None
    undo_seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class BulkAction:
    """An action and how far it has come. `matched` is None until it is counted; what was matched is in
    the end `done` or left out, as `not_found` or for `too_many_pairs`, or was deleted by others meanwhile."""

    number: int
    id: str
    project: int
    state: State
    action: Action
    chosen: Filter
    bound: int
    not_yet: list[int]
    changes: dict[str, str | None] | None
    created_at: int
    starts_at: int
    started_at: int | None
    finished_at: int | None
    matched: int | None
    position: int
    done: int
    not_found: int
    too_many_pairs: int
    error: dict[str, str] | None


class BulkActions:
    """The bulk actions of all projects. All methods block; none is for the event loop."""

    def __init__(
        self, database: Database, writer: Writer, clock: Clock, being_made: Callable[[int], list[int]]
    ) -> None:
        """`being_made`: the numbers of a project's answers that will be stored when they are there."""
        self._database = database
        self._writer = writer
        self._clock = clock
        self._being_made = being_made

    def start(self, project: int, order: Order) -> BulkAction:
        """Puts the action into the queue; it is about the completions that are stored now. Raises RateLimited
        when too many of the project's wait already."""
        with self._database.read() as connection:
            bound = table.newest_number(connection, project) or 0
            # After the bound: what is begun from now on is beyond it.
            not_yet = self._being_made(project) if order.chosen.numbers is None else []
            matched = _count_at_once(connection, project, order.chosen, bound)
        now = self._clock.now()
        starts_at = math.ceil(now + order.undo_seconds) if order.undo_seconds else int(now)
        action_id = ids.random_id("bulk-")
        values = {
            "id": action_id,
            "project": project,
            "action": order.action.value,
            "chosen": as_json(order.chosen),
            "bound": bound,
            "not_yet": as_json(not_yet),
            "changes": None if order.changes is None else as_json(order.changes),
            "created_at": int(now),
            "starts_at": starts_at,
            "matched": matched,
        }

        def write(connection: Connection) -> None:
            if jobs.count(connection, project, KIND, State.QUEUED) >= MOST_WAITING:
                raise RateLimited(
                    f"{MOST_WAITING} bulk actions wait to be carried out, the most that can. "
                    "Wait until one has ended, or cancel one."
                )
            jobs.enqueue(
                connection,
                project=project,
                kind=KIND,
                subject=action_id,
                state=State.QUEUED,
                not_before=starts_at,
            )
            connection.execute(insert(bulk_actions).values(**values))

        self._writer.write(write)
        return self.get(project, action_id)

    def get(self, project: int, action_id: str) -> BulkAction:
        """Raises NotFound when the project has no such action."""
        with self._database.read() as connection:
            return get(connection, project, action_id)

    def page(self, project: int, *, after: str | None, limit: int) -> tuple[list[BulkAction], bool]:
        """The project's actions beyond the cursor, newest first; and whether there are more."""
        query = _joined().where(bulk_actions.c.project == project)
        with self._database.read() as connection:
            if after is not None:
                query = query.where(bulk_actions.c.number < get(connection, project, after, param="after").number)
            rows = connection.execute(query.order_by(bulk_actions.c.number.desc()).limit(limit + 1)).all()
        return [_action_of(row) for row in rows[:limit]], len(rows) > limit

    def cancel(self, project: int, action_id: str) -> BulkAction:
        """Ends the action where it is. Raises Conflict when it has ended."""

        def write(connection: Connection) -> None:
            found = get(connection, project, action_id)
            if not jobs.move(connection, action_id, expected=(State.QUEUED, State.RUNNING), to=State.CANCELLED):
                raise Conflict(f"{action_id} has already ended: it is {found.state.value}.", param="id")
            _set(connection, action_id, finished_at=int(self._clock.now()))

        self._writer.write(write)
        return self.get(project, action_id)

    def purge_old(self) -> None:
        """Forgets actions that ended a month ago."""
        ended = bulk_actions.c.finished_at < int(self._clock.now()) - KEPT_SECONDS
        query = select(bulk_actions.c.id).where(ended).limit(READ)
        with self._database.read() as connection:
            old = list(connection.execute(query).scalars())

        def write(connection: Connection) -> None:
            for action_id in old:
                jobs.remove(connection, action_id)
            connection.execute(delete(bulk_actions).where(bulk_actions.c.id.in_(old)))

        if old:
            self._writer.write(write)
            log.info("%s bulk actions ended a month ago and are forgotten", len(old))


def get(connection: Connection, project: int, action_id: str, *, param: str = "id") -> BulkAction:
    """Raises NotFound when the project has no such action."""
    row = connection.execute(_joined().where(bulk_actions.c.project == project, bulk_actions.c.id == action_id)).first()
    if row is None:
        raise NotFound(f"No bulk action found with id '{shortened(action_id)}'.", param=param)
    return _action_of(row)


# --- for whoever carries the action out ---------------------------------------------------------------------


def upcoming(database: Database, action: BulkAction) -> Iterator[list[int]]:
    """The numbers that the action has not come to, in order, some thousand at a time.

    Looked up outside of the writer's transactions: a filter may have to read far to find its next row.
    """
    after, not_yet = action.position, set(action.not_yet)
    while True:
        with database.read() as connection:
            found = _numbers(connection, action.project, action.chosen, after=after, bound=action.bound)
        if not found:
            return
        after = found[-1]
        if meant := [number for number in found if number not in not_yet]:
            yield meant


def held_back(connection: Connection) -> list[int]:
    """The jobs whose turn it is but which must wait.

    All of them while one is carried out, be it by a worker that has gone silent. Else those whose search cannot
    find all that they are about yet, because the words of what was stored just before they were asked for are not
    in the index; and later ones of the same project for which it matters who comes first.
    """
    job = jobs.jobs.c
    due = job.state.in_([State.QUEUED.value, State.RUNNING.value]) & (job.not_before <= int(time.time()))
    query = _joined().add_columns(job.number.label("job")).where(job.kind == KIND, due).order_by(job.number)
    rows = connection.execute(query).all()
    if any(row.state == State.RUNNING.value for row in rows):
        return [row.job for row in rows]
    waiting: dict[int, BulkAction] = {}
    for row in rows:
        action = _action_of(row)
        if not _can_be_found(connection, action) or any(_clash(action, first) for first in waiting.values()):
            waiting[row.job] = action
    return list(waiting)


def _can_be_found(connection: Connection, action: BulkAction) -> bool:
    return action.chosen.search is None or not search.is_behind(connection, action.project, action.bound)


def _clash(one: BulkAction, other: BulkAction) -> bool:
    """Whether it matters which comes first: one changes a key that the other changes or chooses by."""
    if one.project != other.project:
        return False
    changes, others = set(one.changes or ()), set(other.changes or ())
    return bool(changes & (others | other.chosen.metadata.keys()) or others & one.chosen.metadata.keys())


def record_start(connection: Connection, claim: Claim, matched: int) -> None:
    """The action begins, and how much there is to do is counted."""
    jobs.guard(connection, claim)
    _set(connection, claim.subject, matched=matched, started_at=int(time.time()))


def carry_out(connection: Connection, claim: Claim, action: BulkAction, numbers: list[int]) -> None:
    """Does the action to these completions, the next in order, and notes that it is done."""
    jobs.guard(connection, claim)
    if action.action is Action.DELETE:
        done = batch.remove_many(connection, action.project, numbers)
        told = batch.Tagged(done=done, not_found=len(numbers) - done, too_many_pairs=0)
    else:
        told = batch.tag_many(connection, action.project, numbers, action.changes or {})
    column = bulk_actions.c
    # What a filter found and others have deleted since is nothing that was asked for by name.
    missing = told.not_found if action.chosen.numbers is not None else 0
    _set(
        connection,
        claim.subject,
        position=numbers[-1],
        done=column.done + told.done,
        not_found=column.not_found + missing,
        too_many_pairs=column.too_many_pairs + told.too_many_pairs,
    )


def finish(connection: Connection, claim: Claim) -> None:
    """The action has come to its end."""
    jobs.release(connection, claim, State.SUCCEEDED)
    _set(connection, claim.subject, finished_at=int(time.time()))


def fail(connection: Connection, claim: Claim, error: StillroomError) -> None:
    """The action cannot go on; what is done stays done."""
    jobs.release(connection, claim, State.FAILED)
    problem = as_json({"code": error.code, "message": error.message})
    _set(connection, claim.subject, error=problem, finished_at=int(time.time()))


def set_aside(connection: Connection, claim: Claim) -> None:
    """The worker stops; the action goes on later from where it is."""
    jobs.release(connection, claim, State.QUEUED)


def count(database: Database, action: BulkAction) -> int:
    """How many completions the action is about."""
    return sum(map(len, upcoming(database, action)))


def _count_at_once(connection: Connection, project: int, chosen: Filter, bound: int) -> int | None:
    """None when there are too many to count while somebody waits."""
    if chosen.numbers is not None:
        return len(chosen.numbers)
    if chosen.search is not None and search.is_behind(connection, project, bound):
        return None
    found = table.numbers(connection, project, chosen, up_to=bound, limit=AT_ONCE + 1)
    return len(found) if len(found) <= AT_ONCE else None


def _numbers(connection: Connection, project: int, chosen: Filter, *, after: int, bound: int) -> list[int]:
    if chosen.numbers is not None:
        return [number for number in chosen.numbers if number > after][:READ]
    return table.numbers(connection, project, chosen, after=after, up_to=bound, limit=READ)


def _set(connection: Connection, action_id: str, **values: Any) -> None:
    connection.execute(update(bulk_actions).where(bulk_actions.c.id == action_id).values(**values))


def _joined() -> Select[Any]:
    return select(bulk_actions, jobs.jobs.c.state).join(jobs.jobs, jobs.jobs.c.subject == bulk_actions.c.id)


def _action_of(row: Row[Any]) -> BulkAction:
    values = {name: row._mapping[name] for name in BulkAction.__dataclass_fields__}
    values["chosen"] = msgspec.json.decode(values["chosen"], type=Filter)
    for name in ("changes", "error", "not_yet"):
        values[name] = parsed(values[name])
    return BulkAction(**{**values, "state": State(values["state"]), "action": Action(values["action"])})
