"""Money is exact."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from stillroom.assembly import Platform
from stillroom.billing import PICO, Entry, Kind, cost_picousd, record, totals
from stillroom.config import Price

TOKENS = st.integers(min_value=0, max_value=10**9)


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


def test_an_hour_of_hosting_costs_the_hourly_price() -> None:
    entry = Entry(project=1, kind=Kind.HOSTING, model="m", hosted_seconds=3600)
    assert cost_picousd(entry, Price(hosting_hour=1.70)) == 1_700_000_000_000


def test_the_totals_are_the_sum_of_the_entries(platform: Platform) -> None:
    price = Price(input=0.1, output=0.3, training=7.0)

    def write(connection: object) -> None:
        for i in range(10):
            entry = Entry(project=1, kind=Kind.ANSWER, model="m", prompt_tokens=i, completion_tokens=2 * i)
            record(connection, entry, price)  # type: ignore[arg-type]
        record(connection, Entry(project=1, kind=Kind.TRAINING, model="m", trained_tokens=10**6), price)  # type: ignore[arg-type]

    platform.writer.write(write)
    answers, training = totals(platform.database, 1)
    assert (answers.events, answers.prompt_tokens, answers.completion_tokens) == (10, 45, 90)
    assert answers.cost_usd == (45 * 0.1 + 90 * 0.3) / 10**6
    assert training.cost_usd == 7.0
    assert totals(platform.database, 2) == []
