"""The ledger summed: by day, called name, model, key and kind, over any span of time.

Whole days are read from what `record` keeps of them; the ledger itself only for the hours before and
after, and for the rows that are not yet among their day's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from stillroom.billing.ledger import PICO, ledger, rounded_microusd
from stillroom.billing.record import DAY, SUMMED, SUMS, folded_to, ledger_days
from stillroom.clock import DAY_SECONDS
from stillroom.config import MICRO
from stillroom.store.database import Database

EPOCH = date(1970, 1, 1).toordinal()


class By(enum.StrEnum):
    """What rows can be grouped by. DAY is a date in UTC."""

    DAY = "day"
    DEPLOYMENT = "deployment"
    MODEL = "model"
    KEY = "key"
    KIND = "kind"


GROUPS: Mapping[By, ColumnElement[Any]] = {
    By.DAY: DAY,
    By.DEPLOYMENT: ledger.c.deployment,
    By.MODEL: ledger.c.model,
    By.KEY: ledger.c.key_id,
    By.KIND: ledger.c.kind,
}
GROUPS_OF_DAYS: Mapping[By, ColumnElement[Any]] = {
    By.DAY: ledger_days.c.day,
    By.DEPLOYMENT: ledger_days.c.deployment,
    By.MODEL: ledger_days.c.model,
    By.KEY: ledger_days.c.key_id,
    By.KIND: ledger_days.c.kind,
}
SUMS_OF_DAYS = tuple(func.sum(ledger_days.c[name]) for name in SUMMED)


@dataclass(frozen=True, kw_only=True)
class Total:
    """The ledger rows of one group, summed. `group` has a value for each column grouped by; None
    where the rows have none."""

    group: Mapping[By, str | None]
    events: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    saved_tokens: int
    trained_tokens: int
    hosted_seconds: int
    cost_picousd: int

    @property
    def cost_microusd(self) -> int:
        return rounded_microusd(self.cost_picousd)

    @property
    def cost_usd(self) -> float:
        return self.cost_picousd / PICO


def totals(
    database: Database,
    project: int,
    by: Sequence[By] = (By.KIND, By.MODEL),
    *,
    since: int = 0,
    until: int | None = None,
) -> list[Total]:
    """The project's ledger from `since` to before `until` (seconds since the epoch), in the groups' order."""
    with database.read() as connection:
        return _totals(connection, project, by, since, until)


def spent_picousd(connection: Connection, project: int, since: int, until: int | None) -> int:
    """What the project's ledger comes to in a span of time."""
    return sum(total.cost_picousd for total in _totals(connection, project, (By.KIND,), since, until))


def day_of(seconds: float) -> str:
    """The UTC date of a time, as days are named here."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _totals(connection: Connection, project: int, by: Sequence[By], since: int, until: int | None) -> list[Total]:
    added: dict[tuple[str | None, ...], list[int]] = {}
    for query in _queries(connection, project, by, since, until):
        _add(added, by, connection.execute(query))
    found = [_total(by, group, numbers) for group, numbers in added.items()]
    return sorted(found, key=lambda total: [value or "" for value in total.group.values()])


def _queries(
    connection: Connection, project: int, by: Sequence[By], since: int, until: int | None
) -> Iterator[Select[Any]]:
    """Statements that together read each row of the span once."""
    if until is not None and until > _newest(connection, project):
        until = None  # nothing is later, so no part of a day need be cut off
    first = -(-since // DAY_SECONDS)
    end = None if until is None else until // DAY_SECONDS
    if end is not None and first >= end:
        yield _of_rows(project, by, since, until)
        return
    begins, ends = first * DAY_SECONDS, None if end is None else end * DAY_SECONDS
    yield _of_days(project, by, first, end)
    yield _of_rows(project, by, begins, ends, after=folded_to(connection))
    if since < begins:
        yield _of_rows(project, by, since, begins)
    if ends is not None and until is not None and ends < until:
        yield _of_rows(project, by, ends, until)


def _newest(connection: Connection, project: int) -> int:
    query = select(func.max(ledger.c.created_at)).where(ledger.c.project == project)
    return int(connection.execute(query).scalar() or 0)


def _of_days(project: int, by: Sequence[By], first: int, end: int | None) -> Select[Any]:
    groups = [GROUPS_OF_DAYS[each] for each in by]
    query = select(*groups, *SUMS_OF_DAYS).where(ledger_days.c.project == project, ledger_days.c.day >= first)
    return (query if end is None else query.where(ledger_days.c.day < end)).group_by(*groups)


def _of_rows(project: int, by: Sequence[By], since: int, until: int | None, *, after: int | None = None) -> Select[Any]:
    groups = [GROUPS[each] for each in by]
    row = ledger.c
    query = select(*groups, *SUMS).where(row.created_at >= since)
    if until is not None:
        query = query.where(row.created_at < until)
    if after is None:
        query = query.where(row.project == project)
    else:
        # Spelled so that SQLite does not take the project's index, which would read the whole span.
        query = query.where(row.id > after, row.project + 0 == project)
    return query.group_by(*groups)


def _add(added: dict[tuple[str | None, ...], list[int]], by: Sequence[By], rows: Iterable[Any]) -> None:
    for row in rows:
        group = tuple(_named(each, value) for each, value in zip(by, row, strict=False))
        numbers = [int(number) for number in row[len(by) :]]
        known = added.setdefault(group, [0] * len(numbers))
        known[:] = [one + other for one, other in zip(known, numbers, strict=True)]


def _total(by: Sequence[By], group: Sequence[str | None], numbers: Sequence[int]) -> Total:
    events, prompt, cached, completion, saved, trained, seconds, micro, rest = numbers
    return Total(
        group=dict(zip(by, group, strict=True)),
        events=events,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        saved_tokens=saved,
        trained_tokens=trained,
        hosted_seconds=seconds,
        cost_picousd=micro * MICRO + rest,
    )


def _named(by: By, value: Any) -> str | None:
    if by is By.DAY:
        return date.fromordinal(EPOCH + int(value)).isoformat()
    return str(value) if value else None
