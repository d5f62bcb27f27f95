"""Bulk actions without a server: who may carry one out, how much of it at a time, how long it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stillroom import auth, ids, jobs
from stillroom.clock import Clock
from stillroom.completions import bulk, table
from stillroom.completions.bulk import Action, BulkActions, Order
from stillroom.completions.schema import Filter, Status
from stillroom.completions.table import NewCompletion
from stillroom.errors import NotFound
from stillroom.jobs import Claim, StaleClaim, State
from stillroom.store.database import Database
from stillroom.store.writer import Writer
from stillroom.worker.bulk import CHUNK_SECONDS, LARGEST_CHUNK, SMALLEST_CHUNK, next_chunk

PROJECT = auth.DEFAULT_PROJECT
NUMBERS = ids.OrderedNumbers()
EVERYTHING = Order(action=Action.DELETE, chosen=Filter())


class MovedClock(Clock):
    """The machine's clock, and as much as it is moved."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "stillroom.db")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    opened = Writer(database.writing)
    opened.write(auth.ensure_default_project)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def actions(database: Database, writer: Writer, clock: Clock) -> BulkActions:
    return BulkActions(database, writer, clock, lambda _project: [])


def add(writer: Writer, **pairs: str) -> int:
    """Stores one completion; gives its number."""
    new = NewCompletion(
        number=NUMBERS.mint(),
        project=PROJECT,
        created_at=1,
        model="gpt-4o",
        status=Status.COMPLETED,
        request={"messages": [{"role": "user", "content": "hi"}]},
        response={"choices": [{"message": {"role": "assistant", "content": "ho"}, "finish_reason": "stop"}]},
        metadata=pairs,
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=1,
        latency_ms=1,
    )
    writer.write(lambda connection: table.add(connection, new, table.pack(new.request, new.response)))
    return new.number


def claim(writer: Writer) -> Claim | None:
    return writer.write(lambda connection: jobs.claim(connection, "server", [bulk.KIND]))


def stored(database: Database) -> list[int]:
    with database.read() as connection:
        return table.numbers(connection, PROJECT, Filter(), limit=100)


def test_who_lost_the_claim_can_do_nothing_more_and_who_has_it_goes_on(
    database: Database, writer: Writer, actions: BulkActions
) -> None:
    first, second, third = (add(writer) for _ in range(3))
    action = actions.start(PROJECT, EVERYTHING)
    lost = claim(writer)
    assert lost is not None
    writer.write(lambda c: bulk.record_start(c, lost, 3))
    writer.write(lambda c: bulk.carry_out(c, lost, action, [first]))
    writer.write(lambda c: jobs.release_all(c, "server"))
    held = claim(writer)
    assert held is not None
    for work in (
        lambda c: bulk.carry_out(c, lost, action, [second]),
        lambda c: bulk.finish(c, lost),
        lambda c: bulk.set_aside(c, lost),
    ):
        with pytest.raises(StaleClaim):
            writer.write(work)
    assert stored(database) == [second, third]
    again = actions.get(PROJECT, action.id)
    assert list(bulk.upcoming(database, again)) == [[second, third]]
    writer.write(lambda c: bulk.carry_out(c, held, again, [second, third]))
    writer.write(lambda c: bulk.finish(c, held))
    end = actions.get(PROJECT, action.id)
    assert (end.state, end.matched, end.done) == (State.SUCCEEDED, 3, 3)
    assert stored(database) == []


def test_a_chunk_that_fails_is_neither_done_nor_counted(
    database: Database, writer: Writer, actions: BulkActions
) -> None:
    numbers = [add(writer) for _ in range(2)]
    action = actions.start(PROJECT, EVERYTHING)
    held = claim(writer)
    assert held is not None

    def breaks(connection: object) -> None:
        raise RuntimeError("what shares its transaction")

    writer.write(lambda c: bulk.record_start(c, held, 2))
    with pytest.raises(RuntimeError):
        writer.write(lambda c: (bulk.carry_out(c, held, action, numbers), breaks(c)))
    assert stored(database) == numbers
    assert (actions.get(PROJECT, action.id).done, actions.get(PROJECT, action.id).position) == (0, 0)


def test_what_others_have_deleted_meanwhile_is_not_counted_as_not_found(writer: Writer, actions: BulkActions) -> None:
    numbers = [add(writer) for _ in range(3)]
    action = actions.start(PROJECT, EVERYTHING)
    held = claim(writer)
    assert held is not None
    writer.write(lambda c: table.remove(c, PROJECT, numbers[1]))
    writer.write(lambda c: bulk.carry_out(c, held, action, numbers))
    end = actions.get(PROJECT, action.id)
    assert (end.matched, end.done, end.not_found) == (3, 2, 0)


def test_an_action_is_not_claimed_before_its_time(writer: Writer, actions: BulkActions) -> None:
    add(writer)
    waiting = actions.start(PROJECT, Order(action=Action.DELETE, chosen=Filter(), undo_seconds=60))
    assert claim(writer) is None
    due = actions.start(PROJECT, EVERYTHING)
    held = claim(writer)
    assert held is not None
    assert held.subject == due.id
    assert actions.get(PROJECT, waiting.id).state is State.QUEUED


def test_actions_that_ended_a_month_ago_are_forgotten_and_others_are_not(
    writer: Writer, actions: BulkActions, clock: MovedClock
) -> None:
    old, waiting = actions.start(PROJECT, EVERYTHING), actions.start(PROJECT, EVERYTHING)
    actions.cancel(PROJECT, old.id)
    clock.ahead = bulk.KEPT_SECONDS - 10
    recent = actions.cancel(PROJECT, actions.start(PROJECT, EVERYTHING).id)
    actions.purge_old()
    assert actions.get(PROJECT, old.id)
    clock.ahead = bulk.KEPT_SECONDS + 10
    actions.purge_old()
    with pytest.raises(NotFound):
        actions.get(PROJECT, old.id)
    assert {action.id for action in actions.page(PROJECT, after=None, limit=9)[0]} == {waiting.id, recent.id}
    assert writer.write(lambda c: jobs.state_of(c, old.id)) is None


def test_chunks_grow_while_they_are_quick_and_shrink_when_they_are_not() -> None:
    size = SMALLEST_CHUNK
    while size < LARGEST_CHUNK:  # grows from the smallest on, or this would not end
        larger = next_chunk(size, taken=0.0)
        assert size < larger <= 2 * size
        size = larger
    assert next_chunk(size, taken=0.0) == LARGEST_CHUNK
    assert next_chunk(400, taken=CHUNK_SECONDS) == 400
    assert next_chunk(400, taken=100 * CHUNK_SECONDS) == 200
    assert next_chunk(SMALLEST_CHUNK, taken=1.0) == SMALLEST_CHUNK
