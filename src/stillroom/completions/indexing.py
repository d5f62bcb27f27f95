"""Brings the search after what is stored and deleted, in the background of the server.

What is to be done is in the database (see `search.py`), so a crash loses none of it. Texts are read
and split into words in a thread of their own; the writer only writes them, a few at a time, and is
left alone for as long as it was kept, so that calls which wait for it never wait for long.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec
import zstandard
from sqlalchemy import Connection

from stillroom import ids
from stillroom.clock import tick
from stillroom.completions import search, table
from stillroom.completions.conversations import texts_of
from stillroom.completions.search import Document
from stillroom.errors import StillroomError
from stillroom.store.database import Database
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25  # between two looks while there is nothing to do
RETRY_SECONDS = 1.0
PART = 50  # completions in one transaction
PART_LETTERS = 50_000  # of the words that one transaction writes; a longer text is one by itself

Change = Callable[[Connection, Mapping[int, Document]], None]


class Indexer:
    """The one who indexes; there is one in an installation."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def tend(self) -> None:
        """Indexes whatever is stored or deleted, until cancelled."""
        watch = self._database.watch()
        due = True
        while True:
            try:
                if due or watch.anything_new():
                    spent = await asyncio.to_thread(self._part)
                    due = spent is not None
                    await asyncio.sleep(spent or 0.0)
            except StillroomError as error:
                log.warning("the search could not be brought up to date; trying again: %s", error.message)
                due = await _retrying()
            except Exception:
                log.exception("bringing the search up to date failed; trying again")
                due = await _retrying()
            if not due:
                await tick(LOOK_SECONDS)

    def step(self) -> bool:
        """Does the next part; False when there was nothing to do. Blocks."""
        return self._part() is not None

    def _part(self) -> float | None:
        """As `step`; gives for how many seconds the writer was kept, None when there was nothing to do."""
        change: Change = search.unindex
        with self._database.read() as connection:
            documents = _documents(search.removals(connection, PART))
            if not documents:
                change = search.index
                documents = _documents(table.bodies(connection, search.newest_pending(connection, PART)))
        if not documents:
            return None
        began = time.monotonic()
        self._writer.write(lambda connection: change(connection, documents))
        return time.monotonic() - began


async def _retrying() -> bool:
    await asyncio.sleep(RETRY_SECONDS)
    return True


def _documents(bodies: Iterable[tuple[int, bytes]]) -> dict[int, Document]:
    """Of the first of these, as many as one transaction takes."""
    found: dict[int, Document] = {}
    letters = 0
    for number, body in bodies:
        document = _document(number, body)
        if found and letters + len(document.body) > PART_LETTERS:
            break
        found[number] = document
        letters += len(document.body)
    return found


def _document(number: int, body: bytes) -> Document:
    """Of a body that is damaged, a document without words: it must not keep the others from being found."""
    try:
        return search.document(texts_of(table.unpacked(body)))
    except (zstandard.ZstdError, msgspec.DecodeError, RecursionError) as error:
        log.error("the stored completion %s is damaged, and is not searched: %s", ids.completion_id(number), error)
        return search.document([])
