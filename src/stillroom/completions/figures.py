"""Figures of stored completions that a look at the newest of them gives: how many there are, how fast they were."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from stillroom.completions.table import completions

NEWEST = 1000
MOST_COUNTED = 10_000


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Milliseconds to the whole answer and to its first token, each in ascending order."""

    total_ms: list[int]
    first_token_ms: list[int]


class _Answer(NamedTuple):
    created_at: int
    latency_ms: int
    first_token_ms: int


@dataclass(kw_only=True)
class _Seen:
    """The newest answers under a name, by their numbers."""

    answers: dict[int, _Answer] = field(default_factory=dict)
    since: int = 0
    told: Latencies | None = None
    """What was said last, of the answers from `since`: mostly it is so still."""


_row = completions.c
_NEWEST = (
    select(_row.number)
    .where(_row.project == bindparam("of"), _row.model == bindparam("named"))
    .order_by(_row.number.desc())
    .limit(NEWEST)
)
_ANSWERS = select(_row.number, _row.created_at, _row.latency_ms, _row.first_token_ms).where(
    _row.number.in_(bindparam("these", expanding=True))
)


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
            unknown = [number for number in _newest(connection, project, model) if number not in seen.answers]
            if unknown:
                known = {**seen.answers, **_answers(connection, unknown)}
                seen.answers = {number: known[number] for number in sorted(known)[-NEWEST:]}
            if unknown or since != seen.since or seen.told is None:
                answers = [each for each in seen.answers.values() if each.created_at >= since]
                seen.since, seen.told = since, _latencies(answers)
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


def _newest(connection: Connection, project: int, model: str) -> list[int]:
    """The numbers are all looked at each time, which an index makes cheap: a call gets its number when it begins,
    so an answer that took long appears among older ones. Time is no condition here: it would be looked for
    through all the rows that are too old."""
    return list(connection.execute(_NEWEST, {"of": project, "named": model}).scalars())


def _answers(connection: Connection, numbers: list[int]) -> dict[int, _Answer]:
    return {number: _Answer(*rest) for number, *rest in connection.execute(_ANSWERS, {"these": numbers})}
