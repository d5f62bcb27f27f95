"""Brings the search after what is stored and deleted, in the background of the server.

What is to be done is in the database (see `search.py`), so a crash loses none of it. Texts are read
and split into words in a thread of their own; the writer only writes them, a few at a time, and is
left alone for as long as it was kept, so that calls which wait for it never wait for long.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.exc import DatabaseError

from stillroom.clock import tick
from stillroom.completions import search, table
from stillroom.completions.search import Document
from stillroom.errors import StillroomError
from stillroom.store.database import Database
from stillroom.store.writer import Writer

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25  # between two looks while there is nothing to do
RETRY_SECONDS = 1.0
PART = 50  # completions at a time
PART_LETTERS = 100_000  # of the words that one transaction writes; a longer text is one by itself


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
                due = due or watch.anything_new()
                due = due and await asyncio.to_thread(self.step)
            except (StillroomError, DatabaseError) as error:
                log.warning("the search could not be brought up to date; trying again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                due = True
            if not due:
                await tick(LOOK_SECONDS)

    def step(self) -> bool:
        """Does the next part; False when there was nothing to do. Blocks."""
        with self._database.read() as connection:
            gone = search.removals(connection, PART)
            fresh = table.bodies(connection, search.newest_pending(connection, PART))
        for documents in _parts(gone):
            self._write(search.unindex, documents)
        for documents in _parts(fresh):
            self._write(search.index, documents)
        return bool(gone or fresh)

    def _write(self, change: Any, documents: Mapping[int, Document]) -> None:
        began = time.monotonic()
        self._writer.write(lambda connection: change(connection, documents))
        time.sleep(time.monotonic() - began)


def _parts(bodies: Mapping[int, bytes]) -> Iterator[dict[int, Document]]:
    part: dict[int, Document] = {}
    letters = 0
    for number, body in bodies.items():
        document = search.document(texts_of(table.unpacked(body)))
        if part and letters + len(document.body) > PART_LETTERS:
            yield part
            part, letters = {}, 0
        part[number] = document
        letters += len(document.body)
    if part:
        yield part


def texts_of(body: Mapping[str, Any]) -> Iterator[str]:
    """What was said in a conversation: by everyone but the system, in text, refusals and calls' arguments.

    Both sides may have sent what is no conversation; of that, nothing is found.
    """
    messages = [*_objects(body["request"].get("messages"))]
    messages += [each["message"] for each in _objects(body["response"].get("choices")) if "message" in each]
    for message in _objects(messages):
        content = message.get("content")
        said = [content, *(part.get("text") for part in _objects(content)), message.get("refusal")]
        for call in [*_objects(message.get("tool_calls")), {"function": message.get("function_call")}]:
            for function in _objects([call.get("function")]):
                said += [function.get("name"), function.get("arguments")]
        yield from (text for text in said if isinstance(text, str))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
