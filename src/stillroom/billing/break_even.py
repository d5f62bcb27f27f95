"""When a student has earned its training: a teacher's traffic, and what a student would cost at it.

Money is pico-USD, whole numbers throughout; only the days are a fraction. What is assumed: calls go
on as they were, and a student reads and writes as many tokens as its teacher. Owns no table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from stillroom.billing.ledger import LABELLING, PICO, Entry, Kind, cost_picousd
from stillroom.billing.usage import By, Total, day_of, totals
from stillroom.clock import DAY_SECONDS
from stillroom.config import Price
from stillroom.store.database import Database

WINDOW_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """The answers of some models from `since` to before `until` (seconds since the epoch)."""

    models: tuple[str, ...]
    since: int
    until: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_picousd: int

    @property
    def seconds(self) -> int:
        """A day at least: what an hour brought is not taken for what every hour brings."""
        return max(DAY_SECONDS, self.until - self.since)

    def a_day(self, amount: int) -> int:
        """The window's amount as that of a day, rounded down."""
        return amount * DAY_SECONDS // self.seconds


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """`days` after which the training is earned and the UTC `date` that is; both None, with the
    `reason`, when it never is. Costs are pico-USD; those of a day are the student's or teacher's at
    the traffic seen."""

    traffic: Traffic
    training_picousd: int
    teacher_day_picousd: int
    student_tokens_day_picousd: int
    student_hosting_day_picousd: int
    days: float | None
    date: str | None
    reason: str | None

    @property
    def saved_day_picousd(self) -> int:
        return self.teacher_day_picousd - self.student_tokens_day_picousd - self.student_hosting_day_picousd


def is_traffic(total: Total) -> bool:
    """Whether it is of calls that a student could answer instead. It must be grouped by kind and key."""
    return total.group[By.KIND] == Kind.ANSWER and not (total.group[By.KEY] or "").startswith(LABELLING)


def traffic_of(database: Database, project: int, models: Collection[str], now: int) -> Traffic:
    """The last 30 days' answers, labels aside; from the first day (UTC) that has one, if nothing is older."""
    begins = now - WINDOW_DAYS * DAY_SECONDS
    found = [
        total
        for total in totals(database, project, (By.KIND, By.MODEL, By.KEY, By.DAY), since=begins, until=now + 1)
        if is_traffic(total) and total.group[By.MODEL] in models
    ]
    if found and not _answered_before(database, project, models, begins):
        first = min(str(total.group[By.DAY]) for total in found)
        begins = max(begins, int(datetime.fromisoformat(first).replace(tzinfo=UTC).timestamp()))
    return Traffic(
        models=tuple(sorted(models)),
        since=begins,
        until=now,
        calls=sum(total.events for total in found),
        prompt_tokens=sum(total.prompt_tokens for total in found),
        completion_tokens=sum(total.completion_tokens for total in found),
        cost_picousd=sum(total.cost_picousd for total in found),
    )


def break_even(traffic: Traffic, student: Price, *, training_picousd: int) -> BreakEven:
    """When the training is earned by what the student saves each day: the teacher's cost, less the
    same tokens at the student's price and a day of hosting."""
    teacher_day = traffic.a_day(traffic.cost_picousd)
    tokens_day = traffic.a_day(_tokens_picousd(traffic, student))
    hosting_day = _hosting_picousd(DAY_SECONDS, student)
    saved = teacher_day - tokens_day - hosting_day
    days = training_picousd / saved if saved > 0 else None
    return BreakEven(
        traffic=traffic,
        training_picousd=training_picousd,
        teacher_day_picousd=teacher_day,
        student_tokens_day_picousd=tokens_day,
        student_hosting_day_picousd=hosting_day,
        days=days,
        date=_date_after(traffic.until, days),
        reason=_reason(traffic, teacher_day, tokens_day + hosting_day) if days is None else None,
    )


def instead_picousd(traffic: Traffic, student: Price) -> int:
    """What the traffic would have cost at a student's price, hosted all the while."""
    return _tokens_picousd(traffic, student) + _hosting_picousd(traffic.seconds, student)


def _tokens_picousd(traffic: Traffic, student: Price) -> int:
    tokens = Entry(
        project=0,
        kind=Kind.ANSWER,
        model="",
        prompt_tokens=traffic.prompt_tokens,
        completion_tokens=traffic.completion_tokens,
    )
    return cost_picousd(tokens, student)


def _hosting_picousd(seconds: int, student: Price) -> int:
    return cost_picousd(Entry(project=0, kind=Kind.HOSTING, model="", hosted_seconds=seconds), student)


def _answered_before(database: Database, project: int, models: Collection[str], begins: int) -> bool:
    older = totals(database, project, (By.KIND, By.MODEL, By.KEY), until=begins)
    return any(is_traffic(total) and total.group[By.MODEL] in models for total in older)


def _date_after(now: int, days: float | None) -> str | None:
    try:
        return None if days is None else day_of(now + days * DAY_SECONDS)
    except (OverflowError, ValueError):
        return None  # beyond the calendar


def _reason(traffic: Traffic, teacher_day: int, student_day: int) -> str:
    names = ", ".join(traffic.models) or "the teacher"
    if not traffic.calls:
        return f"No call of {names} was seen in the last {WINDOW_DAYS} days."
    if not teacher_day:
        return f"The calls of {names} are counted at 0 USD; give the teacher a price."
    return (
        f"The student saves nothing: at this traffic it costs {student_day / PICO:.6f} USD a day, "
        f"{names} {teacher_day / PICO:.6f} USD."
    )
