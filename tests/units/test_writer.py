"""The one writer: what it acknowledges is committed, and one bad write harms no neighbour."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from stillroom.errors import StoreUnavailable
from stillroom.store.database import Database
from stillroom.store.writer import WAITING, Writer


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "test.db")
    with opened.writing.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield opened
    opened.close()


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    made = Writer(database.writing)
    yield made
    made.close()


def add(number: int) -> Any:
    return lambda connection: connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})


def committed(database: Database) -> list[int]:
    """What another connection sees."""
    with closing(sqlite3.connect(database.path)) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]


class Held:
    """Keeps the writer busy, so that what is submitted meanwhile becomes one group."""

    def __init__(self, writer: Writer) -> None:
        self._go = threading.Event()
        self._began = threading.Event()
        self._future = writer.submit(self._wait)
        self._began.wait(5)

    def _wait(self, _connection: Connection) -> None:
        self._began.set()
        self._go.wait(5)

    def let_go(self) -> None:
        self._go.set()
        self._future.result(5)


def test_a_write_is_committed_when_it_is_acknowledged(database: Database, writer: Writer) -> None:
    writer.write(add(1))
    assert committed(database) == [1]


def test_those_who_wait_share_a_transaction(database: Database, writer: Writer) -> None:
    held = Held(writer)
    seen: list[list[int]] = []

    def look(connection: Connection) -> None:
        add(100)(connection)
        seen.append(committed(database))

    futures = [writer.submit(add(n)) for n in range(10)] + [writer.submit(look)]
    held.let_go()
    for future in futures:
        future.result(5)
    assert seen == [[]], "nothing of the group is visible before all of it is"
    assert committed(database) == [*range(10), 100]


def test_a_bad_write_fails_alone(database: Database, writer: Writer) -> None:
    held = Held(writer)
    futures: list[Future[Any]] = [writer.submit(add(n)) for n in (1, 2, 1, 3)]
    held.let_go()
    assert [future.exception(5) is None for future in futures] == [True, True, False, True]
    assert committed(database) == [1, 2, 3]


def test_a_group_that_is_locked_out_waits_once_not_each(database: Database, writer: Writer) -> None:
    writer.write(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout=300"))
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        futures: list[Future[Any]] = [writer.submit(add(n)) for n in range(20)]
        assert {type(future.exception(10)) for future in futures} == {StoreUnavailable}
        assert 0.3 < time.monotonic() - began < 3, "twenty times 0.3 seconds would be 6"
    writer.write(add(99))
    assert committed(database) == [99]


def test_too_many_waiting_writes_are_refused(database: Database, writer: Writer) -> None:
    held = Held(writer)
    futures = [writer.submit(lambda _: None) for _ in range(WAITING)]
    with pytest.raises(StoreUnavailable, match="behind"):
        writer.submit(add(4))
    held.let_go()
    for future in futures:
        future.result(30)
    writer.write(add(5))
    assert committed(database) == [5]


def test_closing_commits_what_waits_and_refuses_the_rest(database: Database) -> None:
    closing_ = Writer(database.writing)
    held = Held(closing_)
    future = closing_.submit(add(1))
    thread = threading.Thread(target=closing_.close)
    thread.start()
    held.let_go()
    thread.join(5)
    assert future.done()
    assert committed(database) == [1]
    with pytest.raises(StoreUnavailable):
        closing_.submit(add(2))


def test_cancelling_the_wait_does_not_undo_the_write(database: Database, writer: Writer) -> None:
    async def cancelled() -> None:
        held = Held(writer)
        waiting = asyncio.create_task(writer.write_soon(add(1)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        held.let_go()
        await writer.write_soon(add(2))

    asyncio.run(cancelled())
    assert committed(database) == [1, 2]


def test_an_error_of_the_writes_own_reaches_its_caller(writer: Writer) -> None:
    def wrong(_connection: Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        writer.write(wrong)
