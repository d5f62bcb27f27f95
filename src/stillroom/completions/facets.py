"""What a project's completions have in common: which models answered, which metadata they have, how often.

Without conditions the counts are those of all completions. With some, the matching completions are
counted, but no more than the newest five thousand: what somebody filters by next is soon told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, func, select

from stillroom.completions import matching
from stillroom.completions.matching import COUNTED_IN_INDEX, Count
from stillroom.completions.schema import (
    IS_INCOMPLETE,
    IS_SHARED,
    Filter,
    Status,
    completions,
    metadata_pairs,
)
from stillroom.store.database import Database
from stillroom.store.remembered import Remembered

SAMPLE = 5_000
KEYS = 100
VALUES = 50

Counts = list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class Facet:
    """One metadata key's values, most frequent first; `more` when there are others."""

    key: str
    values: Counts
    more: bool


@dataclass(frozen=True, kw_only=True)
class Facets:
    """`sampled`: only the newest of those that match are counted."""

    sampled: bool
    models: Counts
    statuses: Counts
    metadata: list[Facet]


class Tallies:
    """Facets and numbers of completions. Those of all of them are remembered: every visit of the portal asks for
    both, and to count a million takes a while. Blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._of_all: Remembered[Facets] = Remembered(database)

    def facets(self, project: int, chosen: Filter) -> Facets:
        if chosen == Filter():
            return self._of_all.get(project, lambda: self._read(project, chosen))
        return self._read(project, chosen)

    def count(self, project: int, chosen: Filter) -> Count:
        if chosen == Filter():
            number = sum(times for _, times in self.facets(project, chosen).models)
            return Count(number=min(number, COUNTED_IN_INDEX), at_least=number > COUNTED_IN_INDEX)
        with self._database.read() as connection:
            return matching.count(connection, project, chosen)

    def _read(self, project: int, chosen: Filter) -> Facets:
        with self._database.read() as connection:
            return facets(connection, project, chosen)


def facets(connection: Connection, project: int, chosen: Filter) -> Facets:
    """Most frequent first everywhere; at most 50 values of a key, and 100 keys."""
    return _of_all(connection, project) if chosen == Filter() else _of_matching(connection, project, chosen)


def _of_all(connection: Connection, project: int) -> Facets:
    row = completions.c
    by_model = select(row.model, func.count()).where(row.project == project).group_by(row.model)
    models: Counter[str] = Counter(dict(connection.execute(by_model).all()))
    cut = select(func.count()).select_from(completions).where(row.project == project, IS_INCOMPLETE)
    incomplete = connection.execute(cut).scalar_one()
    statuses = Counter({Status.COMPLETED.value: models.total() - incomplete, Status.INCOMPLETE.value: incomplete})
    found = [_values_of(connection, project, key) for key in _keys(connection, project)]
    return Facets(sampled=False, models=models.most_common(), statuses=_present(statuses), metadata=found)


def _keys(connection: Connection, project: int) -> list[str]:
    """One look-up a key: to group the pairs would read them all, and there may be one for each completion."""
    row = metadata_pairs.c
    found: list[str] = []
    while len(found) < KEYS:
        query = select(row.key).where(row.project == project, *([row.key > found[-1]] if found else []))
        following = connection.execute(query.order_by(row.key).limit(1)).scalar()
        if following is None:
            break
        found.append(following)
    return found


def _values_of(connection: Connection, project: int, key: str) -> Facet:
    row = metadata_pairs.c
    of_key = select(row.value, row.count).where(row.project == project, row.key == key)
    shared = connection.execute(of_key.where(IS_SHARED).order_by(row.count.desc()).limit(VALUES + 1))
    values = dict(shared.all())
    if len(values) <= VALUES:
        # The others are one completion's each, and any of them are as frequent as the rest.
        values |= dict(connection.execute(of_key.limit(2 * VALUES + 1)).all())
    return _facet(key, Counter(values))


def _of_matching(connection: Connection, project: int, chosen: Filter) -> Facets:
    numbers = matching.numbers(connection, project, chosen, descending=True, limit=SAMPLE + 1)
    models: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    texts: Counter[str] = Counter()  # of metadata as it is kept: most rows' is another row's too
    for row in _rows(connection, numbers[:SAMPLE]):
        models[row[0]] += 1
        statuses[row[1]] += 1
        texts[row[2]] += 1
    return Facets(
        sampled=len(numbers) > SAMPLE,
        models=models.most_common(),
        statuses=_present(statuses),
        metadata=_counted(texts),
    )


def _rows(connection: Connection, numbers: list[int]) -> Iterable[tuple[str, str, str]]:
    row = completions.c
    for start in range(0, len(numbers), matching.CHUNK):
        part = numbers[start : start + matching.CHUNK]
        yield from connection.execute(select(row.model, row.status, row.metadata).where(row.number.in_(part)))


def _counted(texts: Counter[str]) -> list[Facet]:
    keys: dict[str, Counter[str]] = {}
    for text, times in texts.items():
        for key, value in msgspec.json.decode(text).items():
            keys.setdefault(key, Counter())[value] += times
    return [_facet(key, keys[key]) for key in sorted(keys)[:KEYS]]


def _facet(key: str, counts: Counter[str]) -> Facet:
    return Facet(key=key, values=counts.most_common(VALUES), more=len(counts) > VALUES)


def _present(counts: Counter[str]) -> Counts:
    return [(value, count) for value, count in counts.most_common() if count]
