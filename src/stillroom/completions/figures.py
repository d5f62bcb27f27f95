"""Figures of stored completions that a look at the newest of them gives: how many there are, how fast they were."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from stillroom.completions.table import completions

NEWEST = 1000
MOST_COUNTED = 10_000


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Milliseconds to the whole answer and to its first token, each in ascending order."""

    total_ms: list[int]
    first_token_ms: list[int]


class _Answer(NamedTuple):
    number: int
    created_at: int
    latency_ms: int
    first_token_ms: int


@dataclass(kw_only=True)
class _Seen:
    """The newest answers under a name, oldest first, and the number of the last."""

    last: int = 0
    answers: deque[_Answer] = field(default_factory=lambda: deque(maxlen=NEWEST))
    since: int = 0
    told: Latencies | None = None
    """What was said last, of the answers from `since`: mostly it is so still."""


class Speeds:
    """How fast the newest answers under each name were. A row is read once, so that asking again costs
    little; an answer that is deleted later still counts, for it was given."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], _Seen] = {}
        self._lock = threading.Lock()

    def of(self, connection: Connection, project: int, model: str, *, since: int) -> Latencies:
        """Of the newest thousand answers under a called name, as far as they are not older than `since`."""
        with self._lock:
            seen = self._seen.setdefault((project, model), _Seen())
            newer = _newer(connection, project, model, seen.last)
            if newer:
                seen.answers.extend(newer)
                seen.last = newer[-1].number
            if newer or since != seen.since or seen.told is None:
                seen.since, seen.told = since, _latencies([each for each in seen.answers if each.created_at >= since])
            return seen.told


def stored(connection: Connection, project: int) -> int:
    """How many completions are stored; MOST_COUNTED where there are so many or more."""
    some = select(completions.c.number).where(completions.c.project == project).limit(MOST_COUNTED).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def _latencies(answers: list[_Answer]) -> Latencies:
    return Latencies(
        total_ms=sorted([each.latency_ms for each in answers]),
        first_token_ms=sorted([each.first_token_ms for each in answers]),
    )


def _newer(connection: Connection, project: int, model: str, last: int) -> list[_Answer]:
    """Oldest first. Time is no condition here: it would be looked for through all the rows that are too old."""
    row = completions.c
    query = select(row.number, row.created_at, row.latency_ms, row.first_token_ms)
    query = query.where(row.project == project, row.model == model, row.number > last)
    rows = connection.execute(query.order_by(row.number.desc()).limit(NEWEST))
    return [_Answer(*row) for row in rows][::-1]
