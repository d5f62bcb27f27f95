"""Budgets: what is refused when they are spent, what is only told, and where a month ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from stillroom import fine_tuning
from stillroom.assembly import Platform, open_platform
from stillroom.billing import Entry, Kind, Period, record
from stillroom.clock import Clock
from stillroom.config import Price, Settings
from stillroom.errors import BudgetSpent, NotFound
from tests.support import example_lines

MICRO = 10**6


class Hands(Clock):
    """A clock whose time is set."""

    def __init__(self, moment: str) -> None:
        self.passed = 0.0
        self.set(moment)

    def set(self, moment: str) -> None:
        self._now = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self.passed


@pytest.fixture
def clock() -> Hands:
    return Hands("2026-12-31T23:59:59")


@pytest.fixture
def platform(tmp_path: Path, clock: Hands) -> Iterator[Platform]:
    opened = open_platform(Settings(data=str(tmp_path / "data")), clock=clock)
    yield opened
    opened.close()


def spend(platform: Platform, usd: float, project: int = 1) -> None:
    """Writes a row of that cost, now."""
    entry = Entry(project=project, kind=Kind.ANSWER, model="m", prompt_tokens=round(usd * MICRO))
    platform.writer.write(lambda c: record(c, entry, Price(input=1.0), at=platform.clock.now()))


@contextmanager
def statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_months_budget_begins_anew_with_the_month_in_utc(platform: Platform, clock: Hands) -> None:
    platform.budgets.put(1, 10 * MICRO, Period.MONTH)
    spend(platform, 10)
    with pytest.raises(BudgetSpent, match=r"10\.00 of 10\.00 USD are spent this month, which ends on 2027-01-01"):
        platform.budgets.refuse_if_spent(1)
    clock.set("2027-01-01T00:00:00")
    platform.budgets.refuse_if_spent(1)
    assert platform.budgets.get(1).spent_microusd == 0
    spend(platform, 4)
    state = platform.budgets.get(1)
    assert (state.spent_microusd, state.ends_at) == (4 * MICRO, datetime(2027, 2, 1, tzinfo=UTC).timestamp())
    clock.set("2026-12-31T23:59:59")
    assert platform.budgets.get(1).spent_microusd == 10 * MICRO


def test_a_total_budget_does_not_begin_anew(platform: Platform, clock: Hands) -> None:
    platform.budgets.put(1, 10 * MICRO, Period.TOTAL)
    spend(platform, 6)
    clock.set("2027-06-01T00:00:00")
    platform.budgets.refuse_if_spent(1)
    spend(platform, 4)
    with pytest.raises(BudgetSpent, match="stillroom budget set USD") as refused:
        platform.budgets.refuse_if_spent(1)
    assert refused.value.code == "insufficient_quota"
    assert platform.budgets.get(1).ends_at is None


def test_a_budget_is_spent_when_its_last_pico_usd_is(platform: Platform) -> None:
    platform.budgets.put(1, 1, Period.TOTAL)
    entry = Entry(project=1, kind=Kind.ANSWER, model="m", prompt_tokens=999_999)
    platform.writer.write(lambda c: record(c, entry, Price(input=0.000001)))
    platform.budgets.refuse_if_spent(1)
    one = Entry(project=1, kind=Kind.ANSWER, model="m", prompt_tokens=1)
    platform.writer.write(lambda c: record(c, one, Price(input=0.000001)))
    with pytest.raises(BudgetSpent):
        platform.budgets.refuse_if_spent(1)


def test_a_budget_is_its_projects_own(platform: Platform) -> None:
    platform.writer.write(lambda c: c.execute(text("INSERT INTO projects VALUES (2, 'other', 0)")))
    platform.budgets.put(1, MICRO, Period.TOTAL)
    spend(platform, 5, project=2)
    platform.budgets.refuse_if_spent(1)
    spend(platform, 5)
    platform.budgets.refuse_if_spent(2)
    with pytest.raises(BudgetSpent):
        platform.budgets.refuse_if_spent(1)
    assert not platform.budgets.remove(2)


def test_a_budget_can_be_raised_and_ended(platform: Platform) -> None:
    platform.budgets.refuse_if_spent(1)
    with pytest.raises(NotFound, match="stillroom budget set"):
        platform.budgets.get(1)
    platform.budgets.put(1, 0, Period.MONTH)
    with pytest.raises(BudgetSpent):
        platform.budgets.refuse_if_spent(1)
    assert platform.budgets.put(1, 5 * MICRO, Period.TOTAL).period is Period.TOTAL
    platform.budgets.refuse_if_spent(1)
    platform.budgets.put(1, 0, Period.MONTH)
    assert platform.budgets.remove(1)
    assert not platform.budgets.remove(1)
    platform.budgets.refuse_if_spent(1)


def test_a_spent_budget_refuses_fine_tuning_jobs_and_leaves_no_job_behind(platform: Platform) -> None:
    file = platform.files.create(1, "a.jsonl", "fine-tune", [example_lines(10)])
    order = fine_tuning.parse_order({"model": "scratch-small", "training_file": file.id})
    platform.budgets.put(1, MICRO, Period.MONTH)
    spend(platform, 2)
    with pytest.raises(BudgetSpent):
        platform.fine_tuning.create(1, order)
    jobs, _ = platform.fine_tuning.page(1, after=None, limit=1, metadata=None, without_metadata=False)
    assert jobs == []
    platform.budgets.put(1, 3 * MICRO, Period.MONTH)
    assert platform.fine_tuning.create(1, order).id


def test_calls_are_told_without_a_query_of_their_own(platform: Platform, clock: Hands) -> None:
    platform.budgets.put(1, 10 * MICRO, Period.MONTH)

    async def call() -> None:
        with statements() as seen:
            for _ in range(1000):
                state = await platform.budgets.known(1)
                assert state is not None
                assert not state.is_nearly_spent
        assert seen == []
        await asyncio.to_thread(spend, platform, 8)
        clock.passed += 60
        with statements() as seen:
            for _ in range(1000):
                await platform.budgets.known(1)
            await until_told()
        assert len([statement for statement in seen if "FROM budgets" in statement]) == 1

    async def until_told() -> None:
        until = time.monotonic() + 10
        while not (state := await platform.budgets.known(1)) or not state.is_nearly_spent:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        assert not state.is_spent

    asyncio.run(call())


def test_a_project_without_a_budget_is_asked_for_once(platform: Platform) -> None:
    async def call() -> None:
        with statements() as seen:
            for _ in range(100):
                assert await platform.budgets.known(1) is None
        assert len(seen) <= 2  # BEGIN and the look

    asyncio.run(call())


def test_the_log_has_one_line_a_day(platform: Platform, clock: Hands, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    platform.budgets.put(1, 10 * MICRO, Period.TOTAL)
    spend(platform, 8)
    for _ in range(5):
        platform.budgets.get(1)
    assert [record.message for record in caplog.records] == [
        "the budget of project 1: 8.00 of 10.00 USD are spent in total."
    ]
    spend(platform, 2)
    for _ in range(5):
        platform.budgets.get(1)
    assert len(caplog.records) == 2
    clock.set("2027-01-01T00:00:00")
    platform.budgets.get(1)
    assert len(caplog.records) == 3
