"""What is remembered of the database is never older than its last commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from stillroom.store.database import Database
from stillroom.store.remembered import Remembered

RENAME = "UPDATE projects SET name = ?"


def reader(database: Database, reads: list[str]) -> Callable[[], str]:
    """Reads the project's name, and notes that it did."""

    def read() -> str:
        with database.read() as connection:
            reads.append(connection.exec_driver_sql("SELECT name FROM projects").scalar_one())
        return reads[-1]

    return read


def test_an_answer_is_read_once_as_long_as_nothing_is_written(database: Database) -> None:
    reads: list[str] = []
    remembered: Remembered[str] = Remembered(database)
    assert [remembered.get("name", reader(database, reads)) for _ in range(3)] == ["default"] * 3
    assert reads == ["default"]


def test_a_commit_of_this_process_is_seen_at_once(database: Database) -> None:
    remembered: Remembered[str] = Remembered(database)
    for name in ("first", "second"):
        with database.writing.begin() as connection:
            connection.exec_driver_sql(RENAME, (name,))
        assert remembered.get("name", reader(database, [])) == name


def test_a_commit_of_another_process_is_seen_at_once(database: Database) -> None:
    remembered: Remembered[str] = Remembered(database)
    assert remembered.get("name", reader(database, [])) == "default"
    with closing(sqlite3.connect(database.path)) as other, other:
        other.execute(RENAME, ("theirs",))
    assert remembered.get("name", reader(database, [])) == "theirs"


def test_what_is_committed_during_a_reading_makes_it_old(database: Database) -> None:
    remembered: Remembered[str] = Remembered(database)

    def read_before_a_commit() -> str:
        name = reader(database, [])()
        with database.writing.begin() as connection:
            connection.exec_driver_sql(RENAME, ("meanwhile",))
        return name

    assert remembered.get("name", read_before_a_commit) == "default"
    assert remembered.get("name", reader(database, [])) == "meanwhile"


def test_each_question_has_its_own_answer(database: Database) -> None:
    remembered: Remembered[str] = Remembered(database)
    assert remembered.get(1, lambda: "one") == "one"
    assert remembered.get(2, lambda: "two") == "two"
    assert remembered.get(1, lambda: "another") == "one"


def test_an_answer_that_time_changes_is_read_again_after_a_while(database: Database) -> None:
    reads: list[str] = []
    remembered: Remembered[str] = Remembered(database, most_seconds=0.0)
    for _ in range(2):
        remembered.get("name", reader(database, reads))
    assert len(reads) == 2
