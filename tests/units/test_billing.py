"""Money is exact, and its sums are what adding by hand gives."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, func, select, text

from stillroom import catalog
from stillroom.assembly import Platform
from stillroom.billing import PICO, By, Entry, Kind, cost_picousd, record, rounded_microusd, totals
from stillroom.billing.record import FOLD_ROWS, folded_to, ledger_days
from stillroom.catalog import DeploymentState
from stillroom.config import Price
from stillroom.serving.hosting import Weights, record_hours

TOKENS = st.integers(min_value=0, max_value=10**9)
DAY = 86_400
MIDNIGHT = 1_793_491_200  # 2026-11-01 00:00 UTC


@given(TOKENS, TOKENS, TOKENS)
def test_the_cost_is_the_sum_that_decimal_arithmetic_gives(prompt: int, cached: int, said: int) -> None:
    entry = Entry(
        project=1,
        kind=Kind.ANSWER,
        model="m",
        prompt_tokens=prompt + cached,
        cached_tokens=cached,
        completion_tokens=said,
    )
    price = Price(input=2.5, output=10.0, cached_input=1.25)
    expected = (prompt * Decimal("2.5") + cached * Decimal("1.25") + said * Decimal(10)) / 10**6
    assert Decimal(cost_picousd(entry, price)) / PICO == expected


def test_cached_tokens_cost_as_much_as_others_unless_a_price_says_less() -> None:
    entry = Entry(project=1, kind=Kind.ANSWER, model="m", prompt_tokens=1_000_000, cached_tokens=400_000)
    assert cost_picousd(entry, Price(input=3.0)) == 3 * PICO
    assert cost_picousd(entry, Price(input=3.0, cached_input=0.0)) == Decimal("1.8") * PICO


def test_an_hour_of_hosting_costs_the_hourly_price() -> None:
    entry = Entry(project=1, kind=Kind.HOSTING, model="m", hosted_seconds=3600)
    assert cost_picousd(entry, Price(hosting_hour=1.70)) == 1_700_000_000_000


@given(st.integers(min_value=0, max_value=10**20))
def test_shown_money_is_rounded_half_up_to_the_micro_usd(pico: int) -> None:
    assert rounded_microusd(pico) == (Decimal(pico) / 10**6).quantize(Decimal(1), ROUND_HALF_UP)


@pytest.mark.parametrize(("pico", "micro"), [(0, 0), (499_999, 0), (500_000, 1), (1_499_999, 1), (2_500_000, 3)])
def test_half_a_micro_usd_is_rounded_up(pico: int, micro: int) -> None:
    assert rounded_microusd(pico) == micro


# --- sums ---------------------------------------------------------------------------------------------

PRICE = Price(input=0.1, output=0.3, cached_input=0.05, training=7.0, hosting_hour=1.7)


@pytest.fixture
def entries(platform: Platform) -> list[tuple[int, Entry]]:
    """Two hundred rows of all kinds over five days, and when each was written."""
    choose = random.Random(11)
    made = []
    for _ in range(200):
        prompt = choose.randint(0, 999)
        kind = choose.choice(list(Kind))
        answer = kind is Kind.ANSWER
        entry = Entry(
            project=1,
            kind=kind,
            model=choose.choice(["gpt-4o", "ft:a"]),
            deployment=choose.choice(["kyle", "gpt-4o"]) if answer else None,
            key_id=choose.choice(["key-a", "key-b"]) if answer else None,
            prompt_tokens=prompt if answer else 0,
            cached_tokens=choose.randint(0, prompt) if answer else 0,
            completion_tokens=choose.randint(0, 999) if answer else 0,
            saved_tokens=choose.choice([0, 400]) if answer else 0,
            trained_tokens=choose.randint(1, 10**6) if kind is Kind.TRAINING else 0,
            hosted_seconds=choose.randint(1, 60) if kind is Kind.HOSTING else 0,
        )
        made.append((MIDNIGHT + choose.randint(0, 5 * DAY - 1), entry))
    platform.writer.write(lambda c: [record(c, entry, PRICE, at=at) for at, entry in made])
    return made


def by_hand(entries: list[tuple[int, Entry]], by: tuple[By, ...]) -> dict[tuple[str | None, ...], list[int]]:
    of = {
        By.DAY: lambda at, entry: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d"),
        By.DEPLOYMENT: lambda at, entry: entry.deployment,
        By.MODEL: lambda at, entry: entry.model,
        By.KEY: lambda at, entry: entry.key_id,
        By.KIND: lambda at, entry: str(entry.kind),
    }
    sums: dict[tuple[str | None, ...], list[int]] = defaultdict(lambda: [0] * 8)
    for at, entry in entries:
        row = sums[tuple(of[each](at, entry) for each in by)]
        numbers = (1, entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens, entry.saved_tokens)
        others = (entry.trained_tokens, entry.hosted_seconds, cost_picousd(entry, PRICE))
        for place, number in enumerate((*numbers, *others)):
            row[place] += number
    return dict(sums)


NEWER_COLUMNS = (
    ("fine_tuning_jobs", "method"),
    ("fine_tuning_jobs", "teacher"),
    ("models", "dropped_prompt"),
    ("models", "dropped_prompt_tokens"),
    ("ledger", "saved_tokens"),
)
GROUPINGS = [chosen for size in range(1, 6) for chosen in combinations(By, size)]


def test_every_grouping_is_what_adding_by_hand_gives(platform: Platform, entries: list[tuple[int, Entry]]) -> None:
    for by in GROUPINGS:
        found = totals(platform.database, 1, by)
        shown = {
            tuple(t.group.values()): [
                t.events,
                t.prompt_tokens,
                t.cached_tokens,
                t.completion_tokens,
                t.saved_tokens,
                t.trained_tokens,
                t.hosted_seconds,
                t.cost_picousd,
            ]
            for t in found
        }
        assert shown == by_hand(entries, by)
        assert len(found) == len(shown)
    assert totals(platform.database, 2) == []


def test_a_span_of_time_has_its_first_second_and_not_its_last(
    platform: Platform, entries: list[tuple[int, Entry]]
) -> None:
    since, until = MIDNIGHT + DAY, MIDNIGHT + 2 * DAY
    platform.writer.write(
        lambda c: [record(c, Entry(project=1, kind=Kind.ANSWER, model="edge"), PRICE, at=at) for at in (since, until)]
    )
    days = totals(platform.database, 1, (By.DAY,), since=since, until=until)
    assert [day.group[By.DAY] for day in days] == ["2026-11-02"]
    assert days[0].events == sum(since <= at < until for at, _ in entries) + 1


def test_sums_that_no_database_integer_holds_are_exact(platform: Platform) -> None:
    """Three rows of five million dollars each: 15 * 10**18 pico-USD, where 9.2 * 10**18 is the most."""
    entry = Entry(project=1, kind=Kind.TRAINING, model="m", trained_tokens=5 * 10**9 + 1)
    platform.writer.write(lambda c: [record(c, entry, Price(training=1000.0)) for _ in range(3)])
    (total,) = totals(platform.database, 1)
    assert total.cost_picousd == 3 * (5 * 10**9 + 1) * 10**9 > 2**63
    assert total.cost_microusd == 15_000_000_003_000


def test_sums_are_the_same_however_much_of_them_is_kept_by_day(
    platform: Platform, entries: list[tuple[int, Entry]]
) -> None:
    """Two thousand of twenty-three hundred rows are; the spans begin and end within days and between them."""
    many = [*entries, *((at + 7, entry) for at, entry in entries * 10)][: 2 * FOLD_ROWS + 100]
    platform.writer.write(lambda c: [record(c, entry, PRICE, at=at) for at, entry in many[len(entries) :]])
    with platform.database.read() as connection:
        assert folded_to(connection) == 2 * FOLD_ROWS
        kept = connection.execute(select(func.sum(ledger_days.c.events), func.count())).one()
    assert kept[0] == 2 * FOLD_ROWS
    assert kept[1] == len(by_hand(many[: 2 * FOLD_ROWS], tuple(By)))
    choose = random.Random(5)
    edges = [MIDNIGHT + choose.randint(-1, 6) * DAY + choose.choice([0, 0, 1, -1, 40_000]) for _ in range(60)]
    for since, until in [*zip(edges[::2], edges[1::2], strict=True), (0, None), (MIDNIGHT + DAY, None)]:
        for by in ((By.DAY,), (By.KEY, By.DEPLOYMENT), tuple(By)):
            inside = [(at, entry) for at, entry in many if since <= at and (until is None or at < until)]
            found = totals(platform.database, 1, by, since=since, until=until)
            expected = by_hand(inside, by)
            assert {tuple(t.group.values()): t.cost_picousd for t in found} == {k: v[-1] for k, v in expected.items()}
            assert {tuple(t.group.values()): t.events for t in found} == {k: v[0] for k, v in expected.items()}


def test_an_older_database_gets_the_sums_of_its_days(platform: Platform, entries: list[tuple[int, Entry]]) -> None:
    before = [replace(total, saved_tokens=0) for total in totals(platform.database, 1, tuple(By))]
    with platform.database.writing.connect() as connection:
        connection.execute(text("DROP TABLE ledger_days"))
        connection.execute(text("DROP INDEX ix_eval_runs_project_number"))
        connection.execute(text("ALTER TABLE fine_tuning_jobs DROP COLUMN integrations"))
        for table, column in NEWER_COLUMNS:
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(text("DROP TABLE soft_labels"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0005'"))
        connection.commit()
    platform.database.migrate()
    with platform.database.read() as connection:
        assert folded_to(connection) == len(entries)
    assert totals(platform.database, 1, tuple(By)) == before
    one_more = Entry(project=1, kind=Kind.ANSWER, model="gpt-4o")
    platform.writer.write(lambda c: [record(c, one_more, PRICE) for _ in range(FOLD_ROWS)])
    assert sum(total.events for total in totals(platform.database, 1)) == len(entries) + FOLD_ROWS


def test_sums_read_whole_days_where_they_are_kept_and_few_rows_besides(platform: Platform) -> None:
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, parameters))

    platform.writer.write(lambda c: record(c, Entry(project=1, kind=Kind.ANSWER, model="m"), PRICE))
    event.listen(Engine, "before_cursor_execute", note)
    try:
        totals(platform.database, 1, (By.DAY, By.KEY), since=1, until=2)
        totals(platform.database, 1, (By.DAY, By.KEY), since=1, until=3 * DAY + 1)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    plans = []
    with platform.database.read() as connection:
        for statement, parameters in seen:
            if statement.startswith("SELECT"):
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.append(next(row.detail for row in plan))
    of_time = "SEARCH ledger USING INDEX ix_ledger_project_created_at (project=? AND created_at>? AND created_at<?)"
    newest = "SEARCH ledger USING COVERING INDEX ix_ledger_project_created_at (project=?)"
    days = "sqlite_autoindex_ledger_days_1 (project=? AND day>? AND day<?)"
    last_kept = "SEARCH ledger_days USING COVERING INDEX ix_ledger_days_folded_to"
    not_kept = "SEARCH ledger USING INTEGER PRIMARY KEY (rowid>?)"
    of_days = f"SEARCH ledger_days USING INDEX {days}"
    assert plans == [newest, of_time, newest, of_days, last_kept, not_kept, of_time, of_time]


def test_hosted_time_is_the_deployments_when_the_student_has_one_alone(platform: Platform) -> None:
    weights = Weights(project=1, names=("ft:base:a", "base.ft-a"), job="j", source={})
    entry = Entry(project=1, kind=Kind.HOSTING, model="ft:base:a", hosted_seconds=60)

    def write(connection: Connection) -> None:
        for deployed in weights.names:  # by either name
            record_hours(connection, weights=weights, entry=entry, price=PRICE)
            state = DeploymentState.SUCCEEDED
            catalog.put_deployment(connection, 1, f"as {deployed}", model=deployed, state=state, extra={})
        record_hours(connection, weights=weights, entry=entry, price=PRICE)

    platform.writer.write(write)
    hours = totals(platform.database, 1, (By.DEPLOYMENT,))
    assert [(hour.group[By.DEPLOYMENT], hour.events) for hour in hours] == [(None, 2), ("as ft:base:a", 1)]
