"""From a filter to the completions that match: their numbers in order, and how many there are.

Every query walks one index in the order of numbers, which is the order of every list, so that a page
costs the same wherever it begins; the other conditions are looked up for each number on the way. The
index is the one that leaves the fewest numbers to look at, as far as that can be told cheaply.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, FromClause, Select, and_, exists, func, or_, select

from stillroom.completions import search
from stillroom.completions.schema import (
    IS_INCOMPLETE,
    IS_OUT_OF_STEP,
    STEP_SECONDS,
    Filter,
    Status,
    completion_metadata,
    completions,
    metadata_pairs,
)
from stillroom.ids import NUMBERS_PER_SECOND

CHUNK = 500  # values named in one statement
FEW = 2000  # rows of which each is sooner looked up in the search index than that index is walked
MANY = 20_000  # rows that are not counted further to choose what to walk
COUNTED = 10_000
COUNTED_IN_INDEX = 1_000_000
LARGEST = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Span:
    """Numbers from `above` to `below`, both left out; None leaves that side open."""

    above: int | None = None
    below: int | None = None

    def holds(self, number: ColumnElement[int]) -> list[ColumnElement[bool]]:
        return [
            *([number > self.above] if self.above is not None else []),
            *([number < self.below] if self.below is not None else []),
        ]

    def within(self, other: Span) -> Span:
        """The part that lies in both."""
        lows = [low for low in (self.above, other.above) if low is not None]
        highs = [high for high in (self.below, other.below) if high is not None]
        return Span(above=max(lows, default=None), below=min(highs, default=None))


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many match; `at_least` when there may be more."""

    number: int
    at_least: bool


def numbers(
    connection: Connection,
    project: int,
    chosen: Filter,
    *,
    after: int | None = None,
    up_to: int | None = None,
    newer_than: int | None = None,
    descending: bool = False,
    limit: int,
) -> list[int]:
    """Up to `limit` matching numbers in order, the next beyond the cursor `after`. However the order,
    none is above `up_to`, and all are above `newer_than`."""
    asked = Span(above=newer_than, below=None if up_to is None else up_to + 1)
    beyond = Span(below=after) if descending else Span(above=after)
    query = _query(connection, project, chosen, asked.within(beyond), descending=descending)
    return [] if query is None else list(connection.execute(query.limit(limit)).scalars())


def count(connection: Connection, project: int, chosen: Filter) -> Count:
    """Exact as far as counting is quick: a pair's completions are counted already, and what one index
    holds is soon counted."""
    if chosen.up_to is not None:
        return _count_up_to(connection, project, chosen)
    if chosen == Filter(metadata=chosen.metadata) and len(chosen.metadata) == 1:
        pairs = _pairs_rarest_first(connection, project, chosen.metadata)
        return Count(number=pairs[0].count if pairs else 0, at_least=False)
    most = COUNTED_IN_INDEX if chosen == Filter(model=chosen.model) else COUNTED
    return _counted(connection, project, chosen, Span(), most)


def _count_up_to(connection: Connection, project: int, chosen: Filter) -> Count:
    every = replace(chosen, up_to=None)
    known = count(connection, project, every)
    # There is mostly little that is later: what is counted already, it is sooner taken off from.
    later = _counted(connection, project, every, Span(above=chosen.up_to), COUNTED)
    if known.at_least or later.at_least:
        return _counted(connection, project, chosen, Span(), COUNTED)
    return Count(number=known.number - later.number, at_least=False)


def _counted(connection: Connection, project: int, chosen: Filter, asked: Span, most: int) -> Count:
    query = _query(connection, project, chosen, asked, descending=True)
    if query is None:
        return Count(number=0, at_least=False)
    found = connection.execute(select(func.count()).select_from(query.limit(most + 1).subquery())).scalar_one()
    return Count(number=min(found, most), at_least=found > most)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    id: int
    count: int


def _query(
    connection: Connection, project: int, chosen: Filter, asked: Span, *, descending: bool
) -> Select[int] | None:
    """The numbers that match, in order; None when no row can match."""
    words = None if chosen.search is None else search.expression_of(chosen.search)
    pairs = _pairs_rarest_first(connection, project, chosen.metadata)
    if len(pairs) < len(chosen.metadata) or (chosen.search is not None and words is None):
        return None
    match _first(connection, project, chosen, pairs, words):
        case _First.ROWS:
            number: ColumnElement[int] = completions.c.number
            query = select(number).where(completions.c.project == project, *_row_conditions(chosen))
            query = query.where(*[_has_pair(number, pair) for pair in pairs], *_found(number, words))
        case _First.WORDS:
            assert words is not None
            query, number = search.numbers_of(words)
            query = query.where(*[_has_pair(number, pair) for pair in pairs], _is_row(number, project, chosen))
        case _First.PAIR:
            number = completion_metadata.c.completion
            query = select(number).where(completion_metadata.c.pair == pairs[0].id)
            query = query.where(*[_has_pair(number, pair) for pair in pairs[1:]], *_found(number, words))
            if _row_conditions(chosen):
                query = query.where(_is_row(number, project, chosen))
    span = asked.within(_span_of_times(connection, project, chosen))
    if chosen.up_to is not None:
        span = span.within(Span(below=min(chosen.up_to + 1, LARGEST)))
    return query.where(*span.holds(number)).order_by(number.desc() if descending else number.asc())


class _First(enum.Enum):
    """What is walked, all else being looked up: the rows' own indexes, by project, model and status; the
    completions with the rarest pair; or those in which the words are."""

    ROWS = enum.auto()
    PAIR = enum.auto()
    WORDS = enum.auto()


def _first(connection: Connection, project: int, chosen: Filter, pairs: list[_Pair], words: str | None) -> _First:
    if chosen.numbers is not None or (not pairs and words is None):
        return _First.ROWS
    own = _own_rows(connection, project, chosen)
    having = pairs[0].count if pairs else MANY
    if words is not None and (min(own, having) > FEW or search.at_most(connection, words, MANY // 4)):
        return _First.WORDS
    # To look whether a row has a pair is cheaper than to look at the row.
    return _First.ROWS if not pairs or own <= min(having, MANY - 1) else _First.PAIR


def _own_rows(connection: Connection, project: int, chosen: Filter) -> int:
    """How many rows the model and status leave, if that is fewer than MANY."""
    incomplete = chosen.status is Status.INCOMPLETE
    if chosen.model is None and not incomplete:
        return MANY
    narrow = Filter(model=chosen.model, status=Status.INCOMPLETE if incomplete else None)
    rows = select(completions.c.number).where(completions.c.project == project, *_row_conditions(narrow)).limit(MANY)
    return connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one()


def _has_pair(number: ColumnElement[int], pair: _Pair) -> ColumnElement[bool]:
    other = completion_metadata.alias()
    return exists().where(other.c.pair == pair.id, other.c.completion == number)


def _found(number: ColumnElement[int], words: str | None) -> list[ColumnElement[bool]]:
    return [] if words is None else [search.is_found(number, words)]


def _is_row(number: ColumnElement[int], project: int, chosen: Filter) -> ColumnElement[bool]:
    # Not a join: SQLite might take the row's index for the outer loop, and walk the whole of it.
    row = completions.alias()
    return exists().where(row.c.number == number, row.c.project == project, *_row_conditions(chosen, row))


def _row_conditions(chosen: Filter, of: FromClause = completions) -> list[ColumnElement[bool]]:
    row = of.c
    found: list[ColumnElement[bool]] = []
    if chosen.model is not None:
        found.append(row.model == chosen.model)
    if chosen.status is not None:
        found.append(_has_status(chosen.status, of))
    if chosen.created_after is not None:
        found.append(row.created_at >= chosen.created_after)
    if chosen.created_before is not None:
        found.append(row.created_at < chosen.created_before)
    if chosen.numbers is not None:
        found.append(or_(*[row.number.in_(part) for part in _parts(chosen.numbers)]))
    return found


def _has_status(status: Status, of: FromClause) -> ColumnElement[bool]:
    if status is Status.INCOMPLETE and of is completions:
        return IS_INCOMPLETE
    return of.c.status == status.value


def _parts(numbers: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [numbers[i : i + CHUNK] for i in range(0, len(numbers), CHUNK)] or [()]


def _pairs_rarest_first(connection: Connection, project: int, pairs: Mapping[str, str]) -> list[_Pair]:
    if not pairs:
        return []
    row = metadata_pairs.c
    # One index search a pair; for `(key, value) IN (...)` SQLite would read all pairs of the project.
    wanted = or_(*[and_(row.project == project, row.key == key, row.value == value) for key, value in pairs.items()])
    found = connection.execute(select(row.id, row.count).where(wanted).order_by(row.count))
    return [_Pair(id=pair_id, count=count) for pair_id, count in found]


def _span_of_times(connection: Connection, project: int, chosen: Filter) -> Span:
    """A span outside of which nothing matches the times asked for.

    A number begins with the milliseconds at which the call came, so times bound numbers and no index
    on `created_at` is needed. They may be out of step, as where a clock was set back; rows that are by
    more than a minute are few, stand in an index of their own, and widen the span. The exact times are
    still looked at in every row.
    """
    after, before = chosen.created_after, chosen.created_before
    if after is None and before is None:
        return Span()
    lows = [] if after is None else [_first_number(after - STEP_SECONDS) - 1]
    highs = [] if before is None else [_first_number(before + STEP_SECONDS)]
    row = completions.c
    stray = select(func.min(row.number), func.max(row.number)).where(row.project == project, IS_OUT_OF_STEP)
    lowest, highest = connection.execute(stray.where(*_row_conditions(_times(after, before)))).one()
    if lowest is not None:
        lows, highs = [*lows, lowest - 1], [*highs, highest + 1]
    return Span(above=min(lows) if after is not None else None, below=max(highs) if before is not None else None)


def _times(after: int | None, before: int | None) -> Filter:
    return Filter(created_after=after, created_before=before)


def _first_number(second: int) -> int:
    return min(max(second, 0) * NUMBERS_PER_SECOND, LARGEST)
