"""The ledger summed: by day, called name, model, key and kind, over any span of time."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Integer, Select, func, literal_column, select

from stillroom.billing.ledger import PICO, ledger, rounded_microusd
from stillroom.config import MICRO
from stillroom.store.database import Database

DAY_SECONDS = literal_column("86400", Integer)
EPOCH = date(1970, 1, 1).toordinal()


class By(enum.StrEnum):
    """What rows can be grouped by. DAY is a date in UTC."""

    DAY = "day"
    DEPLOYMENT = "deployment"
    MODEL = "model"
    KEY = "key"
    KIND = "kind"


COUNTED: tuple[Column[Any], ...] = (
    ledger.c.prompt_tokens,
    ledger.c.cached_tokens,
    ledger.c.completion_tokens,
    ledger.c.trained_tokens,
    ledger.c.hosted_seconds,
)
GROUPS: Mapping[By, ColumnElement[Any]] = {
    By.DAY: ledger.c.created_at // DAY_SECONDS,
    By.DEPLOYMENT: ledger.c.deployment,
    By.MODEL: ledger.c.model,
    By.KEY: ledger.c.key_id,
    By.KIND: ledger.c.kind,
}
# In two parts, each exact: the pico-USD of ten million dollars are more than a database's integer holds.
COST = (func.sum(ledger.c.cost_picousd // MICRO), func.sum(ledger.c.cost_picousd % MICRO))


@dataclass(frozen=True, kw_only=True)
class Total:
    """The ledger rows of one group, summed. `group` has a value for each column grouped by; None
    where the rows have none."""

    group: Mapping[By, str | None]
    events: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
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
        found = [_total(by, tuple(row)) for row in connection.execute(_query(project, by, since, until))]
    return sorted(found, key=lambda total: [value or "" for value in total.group.values()])


def spent_picousd(connection: Connection, project: int, since: int, until: int | None) -> int:
    """What the project's ledger comes to in a span of time."""
    row = connection.execute(_within(select(*COST), project, since, until)).one()
    return _joined(row[0], row[1])


def day_of(seconds: float) -> str:
    """The UTC date of a time, as days are named here."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _query(project: int, by: Sequence[By], since: int, until: int | None) -> Select[Any]:
    groups = [GROUPS[each] for each in by]
    sums = [func.count(), *map(func.sum, COUNTED), *COST]
    return _within(select(*groups, *sums), project, since, until).group_by(*groups)


def _within(query: Select[Any], project: int, since: int, until: int | None) -> Select[Any]:
    query = query.where(ledger.c.project == project, ledger.c.created_at >= since)
    return query if until is None else query.where(ledger.c.created_at < until)


def _total(by: Sequence[By], row: tuple[Any, ...]) -> Total:
    events, prompt, cached, completion, trained, seconds, micro, rest = row[len(by) :]
    return Total(
        group={each: _named(each, value) for each, value in zip(by, row, strict=False)},
        events=int(events),
        prompt_tokens=int(prompt),
        cached_tokens=int(cached),
        completion_tokens=int(completion),
        trained_tokens=int(trained),
        hosted_seconds=int(seconds),
        cost_picousd=_joined(micro, rest),
    )


def _named(by: By, value: Any) -> str | None:
    if value is None:
        return None
    return date.fromordinal(EPOCH + int(value)).isoformat() if by is By.DAY else str(value)


def _joined(micro: Any, rest: Any) -> int:
    return int(micro or 0) * MICRO + int(rest or 0)
