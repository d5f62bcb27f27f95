"""Which bulk action's turn it is: one that cannot begin holds up those that must come after it, and no others."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from stillroom import auth, ids, jobs
from stillroom.assembly import Platform, open_platform
from stillroom.completions import bulk, table
from stillroom.completions.bulk import Action, BulkAction, Order
from stillroom.completions.schema import Filter, Status
from stillroom.completions.table import NewCompletion
from stillroom.config import Settings
from stillroom.errors import RateLimited
from stillroom.jobs import Claim, State
from stillroom.worker.bulk import BulkRun
from stillroom.worker.supervisor import Supervisor

PROJECT = auth.DEFAULT_PROJECT
NUMBERS = ids.OrderedNumbers()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """One whose indexer does nothing until it is told to."""
    opened = open_platform(Settings(data=str(tmp_path / "data")))
    yield opened
    opened.close()


def add(platform: Platform, **pairs: str) -> int:
    """Stores one completion, in which "refund" will be found when it is indexed; gives its number."""
    new = NewCompletion(
        number=NUMBERS.mint(),
        project=PROJECT,
        created_at=1,
        model="gpt-4o",
        status=Status.COMPLETED,
        request={"messages": [{"role": "user", "content": "refund"}]},
        response={"choices": [{"message": {"role": "assistant", "content": "ho"}, "finish_reason": "stop"}]},
        metadata=pairs,
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=1,
        latency_ms=1,
    )
    platform.writer.write(lambda connection: table.add(connection, new, table.pack(new.request, new.response)))
    return new.number


def ask(platform: Platform, action: Action, changes: dict[str, str | None] | None = None, **chosen: Any) -> BulkAction:
    return platform.bulk_actions.start(PROJECT, Order(action=action, chosen=Filter(**chosen), changes=changes))


def now(platform: Platform, action: BulkAction) -> BulkAction:
    return platform.bulk_actions.get(PROJECT, action.id)


def metadata(platform: Platform, number: int) -> dict[str, str]:
    with platform.database.read() as connection:
        return dict(table.get(connection, PROJECT, number).metadata)


def index(platform: Platform) -> None:
    while platform.indexer.step():
        pass


async def ended(platform: Platform, *actions: BulkAction) -> None:
    async with asyncio.timeout(20):
        while any(now(platform, action).state is not State.SUCCEEDED for action in actions):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def worker(platform: Platform) -> AsyncIterator[None]:
    supervisor = asyncio.create_task(Supervisor(platform).run())
    try:
        yield
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)


def claimed(platform: Platform) -> Claim:
    claim = platform.writer.write(lambda connection: jobs.claim(connection, "another", [bulk.KIND]))
    assert claim is not None
    return claim


def test_an_action_that_waits_for_the_search_lets_others_pass_and_the_later_tag_still_wins(platform: Platform) -> None:
    first, second = add(platform), add(platform)
    searching = ask(platform, Action.TAG, {"topic": "old", "seen": "yes"}, search="refund")
    deleting = ask(platform, Action.DELETE, numbers=(second,))
    other_key = ask(platform, Action.TAG, {"tone": "dry"})
    same_key = ask(platform, Action.TAG, {"topic": "new"}, numbers=(first,))
    chosen_by_it = ask(platform, Action.TAG, {"late": "yes"}, metadata={"seen": "yes"})
    after_that = ask(platform, Action.TAG, {"late": "no"}, numbers=(first,))

    async def story() -> None:
        async with worker(platform):
            await ended(platform, deleting, other_key)
            assert metadata(platform, first) == {"tone": "dry"}
            held = [now(platform, action) for action in (searching, same_key, chosen_by_it, after_that)]
            assert {action.state for action in held} == {State.QUEUED}
            await asyncio.to_thread(index, platform)
            await ended(platform, searching, same_key, chosen_by_it, after_that)

    asyncio.run(story())
    assert metadata(platform, first) == {"tone": "dry", "topic": "new", "seen": "yes", "late": "no"}
    assert now(platform, chosen_by_it).done == 1


def test_a_tag_waits_for_an_earlier_deletion_only_where_it_changes_what_that_chooses_by(platform: Platform) -> None:
    number = add(platform, batch="one")
    deleting = ask(platform, Action.DELETE, metadata={"batch": "one"}, search="refund")
    moving = ask(platform, Action.TAG, {"batch": "two"}, numbers=(number,))
    noting = ask(platform, Action.TAG, {"note": "x"}, numbers=(number,))

    async def story() -> None:
        async with worker(platform):
            await ended(platform, noting)
            assert now(platform, moving).state is State.QUEUED
            await asyncio.to_thread(index, platform)
            await ended(platform, deleting, moving)

    asyncio.run(story())
    assert (now(platform, deleting).done, now(platform, moving).not_found) == (1, 1)


def test_no_action_begins_while_another_is_under_way_elsewhere(platform: Platform) -> None:
    number = add(platform)
    silent, later = (ask(platform, Action.TAG, {"turn": turn}, numbers=(number,)) for turn in ("first", "second"))
    assert claimed(platform).subject == silent.id

    async def story() -> None:
        async with worker(platform):
            await asyncio.sleep(1.0)
            assert now(platform, later).state is State.QUEUED
            await asyncio.to_thread(platform.writer.write, lambda connection: jobs.release_all(connection, "another"))
            await ended(platform, silent, later)

    asyncio.run(story())
    assert metadata(platform, number) == {"turn": "second"}


@pytest.mark.parametrize("has_begun", [False, True], ids=["at its start", "at its end"])
def test_an_action_waits_for_a_database_that_others_hold(
    platform: Platform, has_begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    add(platform)
    action = ask(platform, Action.DELETE, metadata={"of": "nobody"})
    claim = claimed(platform)
    if has_begun:
        platform.writer.write(lambda connection: bulk.record_start(connection, claim, 0))
    with platform.database.writing.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")

    async def story() -> None:
        running = asyncio.create_task(BulkRun(platform, claim, now(platform, action)).run())
        async with asyncio.timeout(20):
            while f"{action.id} waits" not in caplog.text:
                assert not running.done(), running.result()
                await asyncio.sleep(0.02)
            holder.execute("ROLLBACK")
            await running

    with closing(sqlite3.connect(platform.settings.folder / "stillroom.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        asyncio.run(story())
    assert now(platform, action).state is State.SUCCEEDED


def test_no_more_than_so_many_actions_of_a_project_wait(platform: Platform) -> None:
    waiting = [ask(platform, Action.DELETE) for _ in range(bulk.MOST_WAITING)]
    with pytest.raises(RateLimited, match=f"{bulk.MOST_WAITING} bulk actions wait"):
        ask(platform, Action.DELETE)
    platform.bulk_actions.cancel(PROJECT, waiting[50].id)
    assert ask(platform, Action.DELETE)
