"""Stored completions as JSON lines, for whoever takes them elsewhere.

A few are in memory at a time, and between two parts no connection is held: a reader that is slow, or
goes away, holds nothing up.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from stillroom import ids
from stillroom.completions import table
from stillroom.completions.table import Filter, StoredCompletion
from stillroom.datasets import selection
from stillroom.store.database import Database

PART = 100  # completions read at a time


class Form(enum.StrEnum):
    """What a line is: a training example, or the completion with all that is kept of it."""

    TRAINING = "training"
    FULL = "full"


def lines(database: Database, project: int, chosen: Filter, form: Form) -> Iterator[bytes]:
    """The matching completions that are stored now, oldest first, as pieces of whole lines.

    As training examples they are the lines of a selection's file: what that leaves out is left out here.
    """
    for part in _parts(database, project, chosen):
        yield b"".join(line for stored in part if (line := _line(stored, form)) is not None)


def _parts(database: Database, project: int, chosen: Filter) -> Iterator[list[StoredCompletion]]:
    with database.read() as connection:
        newest = table.newest_number(connection, project)
    if newest is None:
        return
    if chosen.numbers is None:
        yield from _pages(database, project, chosen, newest)
        return
    for begin in range(0, len(chosen.numbers), PART):
        some = replace(chosen, numbers=chosen.numbers[begin : begin + PART])
        yield from _pages(database, project, some, newest)


def _pages(database: Database, project: int, chosen: Filter, newest: int) -> Iterator[list[StoredCompletion]]:
    after: int | None = None
    while True:
        with database.read() as connection:
            page = table.page(connection, project, chosen, after=after, descending=False, limit=PART)
        yield [stored for stored in page if stored.number <= newest]
        if len(page) < PART or page[-1].number >= newest:
            return
        after = page[-1].number


def _line(stored: StoredCompletion, form: Form) -> bytes | None:
    row = _whole(stored) if form is Form.FULL else _trainable(stored)
    return None if row is None else msgspec.json.encode(row) + b"\n"


def _whole(stored: StoredCompletion) -> dict[str, Any]:
    return {
        "id": ids.completion_id(stored.number),
        "created_at": stored.created_at,
        "model": stored.model,
        "status": stored.status.value,
        "metadata": stored.metadata,
        "latency_ms": stored.latency_ms,
        "request": stored.request,
        "response": stored.response,
    }


def _trainable(stored: StoredCompletion) -> dict[str, Any] | None:
    return selection.example(stored) if stored.status is table.Status.COMPLETED else None
