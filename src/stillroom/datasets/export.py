"""Stored completions as JSON lines, for whoever takes them elsewhere.

About a megabyte is in memory at a time, however large the completions are, and between two pieces no
connection is held: a reader that is slow, or goes away, holds nothing up.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from stillroom import ids, logprobs
from stillroom.completions import soft_labels, table
from stillroom.completions.table import Filter, StoredCompletion
from stillroom.datasets import selection
from stillroom.datasets.answers import PLAIN, Style
from stillroom.store.database import Database

PART = 100  # numbers looked for at a time
PIECE_BYTES = 1024 * 1024  # a larger line is a piece by itself


class Form(enum.StrEnum):
    """What a line is: a training example, or the completion with all that is kept of it."""

    TRAINING = "training"
    FULL = "full"


def lines(database: Database, project: int, chosen: Filter, form: Form, style: Style = PLAIN) -> Iterator[bytes]:
    """The matching completions that are stored now, oldest first, as pieces of whole lines.

    As training examples they are the lines of a selection's file: what that leaves out is left out here.
    """
    for numbers in _parts(database, project, chosen):
        left = numbers
        while left:
            piece, left = _piece(database, left, form, style)
            yield piece


def _piece(database: Database, numbers: list[int], form: Form, style: Style) -> tuple[bytes, list[int]]:
    """The lines of the first of these completions, and the numbers that are left for another piece."""
    piece = bytearray()
    with database.read() as connection:
        for stored in table.one_by_one(connection, numbers):
            labels = soft_labels.of_one(connection, stored.number) if style.soft_labels else None
            piece += _line(stored, form, style, labels)
            if len(piece) >= PIECE_BYTES:
                return bytes(piece), [number for number in numbers if number > stored.number]
    return bytes(piece), []


def _parts(database: Database, project: int, chosen: Filter) -> Iterator[list[int]]:
    """The matching completions' numbers in order."""
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


def _pages(database: Database, project: int, chosen: Filter, newest: int) -> Iterator[list[int]]:
    after: int | None = None
    while True:
        with database.read() as connection:
            page = table.numbers(connection, project, chosen, after=after, up_to=newest, limit=PART)
        yield page
        if len(page) < PART:
            return
        after = page[-1]


def _line(stored: StoredCompletion, form: Form, style: Style, labels: bytes | None) -> bytes:
    """Empty for what is no training example."""
    row = _whole(stored, labels) if form is Form.FULL else _trainable(stored, style, labels)
    return b"" if row is None else msgspec.json.encode(row) + b"\n"


def _whole(stored: StoredCompletion, labels: bytes | None) -> dict[str, Any]:
    whole = {
        "id": ids.completion_id(stored.number),
        "created_at": stored.created_at,
        "model": stored.model,
        "status": stored.status.value,
        "metadata": stored.metadata,
        "latency_ms": stored.latency_ms,
        "request": stored.request,
        "response": stored.response,
    }
    return whole if labels is None else {**whole, "soft_labels": logprobs.as_text(labels)}


def _trainable(stored: StoredCompletion, style: Style, labels: bytes | None) -> dict[str, Any] | None:
    return selection.example(stored, style, labels) if stored.status is table.Status.COMPLETED else None
