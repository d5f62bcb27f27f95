"""Answers kept for a while under their caller's Idempotency-Key, so that a repeat gets the same one.

A kept answer is written in the transaction of its ledger row: whoever repeats a call that was
answered and billed is never answered and billed again. Owns the table `kept_answers`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import zstandard
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    LargeBinary,
    Table,
    bindparam,
    delete,
    insert,
    select,
)

from stillroom.clock import Clock
from stillroom.store.database import Database
from stillroom.store.tables import metadata
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)

KEPT_SECONDS = 24 * 3600
CHUNK = 500  # answers removed in one transaction
PURGE_SECONDS = 3600.0  # between two purges
COMPRESSION_LEVEL = 3

kept_answers = Table(
    "kept_answers",
    metadata,
    Column("project", ForeignKey("projects.id"), primary_key=True, autoincrement=False),
    # ASCII as bytes: those are ordered alike by every database, so that a prefix is a range.
    Column("key", LargeBinary(255), primary_key=True),
    Column("request_hash", LargeBinary(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_kept_answers_created_at", "created_at"),
)

_FIND = select(kept_answers.c.request_hash, kept_answers.c.body).where(
    kept_answers.c.project == bindparam("of"), kept_answers.c.key == bindparam("named")
)
_INSERT = insert(kept_answers)
_DELETE = delete(kept_answers).where(
    kept_answers.c.project == bindparam("of"), kept_answers.c.key == bindparam("named")
)


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """An answer's bytes, packed, and the hash of the request that they answer."""

    project: int
    key: str
    request_hash: bytes
    packed: bytes

    @property
    def body(self) -> bytes:
        return zstandard.decompress(self.packed)


def pack(*, project: int, key: str, request_hash: bytes, body: bytes) -> KeptAnswer:
    """The answer ready to be written; not in the writer's thread."""
    packed = zstandard.compress(body, COMPRESSION_LEVEL)
    return KeptAnswer(project=project, key=key, request_hash=request_hash, packed=packed)


def add(connection: Connection, answer: KeptAnswer) -> None:
    """Keeps the answer, inside the caller's transaction."""
    row = {"project": answer.project, "key": answer.key.encode(), "request_hash": answer.request_hash}
    connection.execute(_INSERT, {**row, "created_at": int(time.time()), "body": answer.packed})


class KeptAnswers:
    """The kept answers of all projects. All methods block; none is for the event loop."""

    def __init__(self, database: Database, writer: Writer, clock: Clock) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._purged: float | None = None

    def find(self, project: int, key: str) -> KeptAnswer | None:
        """The answer kept under the key; None when there is none."""
        with self._database.read() as connection:
            row = connection.execute(_FIND, {"of": project, "named": key.encode()}).first()
        return KeptAnswer(project=project, key=key, request_hash=row.request_hash, packed=row.body) if row else None

    def forget(self, project: int, prefix: str) -> int:
        """Removes the project's answers whose keys begin with the prefix; gives how many."""
        assert prefix, "an empty prefix would be every caller's keys"
        first = prefix.encode()
        after = first[:-1] + bytes([first[-1] + 1])
        row = kept_answers.c
        return self._remove(row.project == project, row.key >= first, row.key < after)

    def purge_old(self) -> None:
        """Removes answers a day old. Does nothing when it did so within the last hour."""
        now = self._clock.monotonic()
        if self._purged is not None and now - self._purged < PURGE_SECONDS:
            return
        self._purged = now
        removed = self._remove(kept_answers.c.created_at < int(self._clock.now()) - KEPT_SECONDS)
        if removed:
            log.info("%s kept answers were a day old and are removed", removed)

    def _remove(self, *which: ColumnElement[bool]) -> int:
        """A part at a time, so that other writes need not wait; gives how many in all."""
        row = kept_answers.c
        some = select(row.project.label("of"), row.key.label("named")).where(*which).limit(CHUNK)

        def write(connection: Connection) -> int:
            found = [dict(each) for each in connection.execute(some).mappings()]
            if found:
                connection.execute(_DELETE, found)
            return len(found)

        removed = 0
        while part := self._writer.write(write):
            removed += part
        return removed
