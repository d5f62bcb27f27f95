"""When a student has earned its training, worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from stillroom import catalog
from stillroom.assembly import Platform
from stillroom.billing import Entry, Kind, record
from stillroom.billing.break_even import Traffic, break_even, traffic_of
from stillroom.catalog import DeploymentState
from stillroom.clock import DAY_SECONDS
from stillroom.config import Price
from stillroom.distillation.asking import key_of
from stillroom.errors import ModelNotFound
from stillroom.serving.savings import break_even_of

NOW = 1_800_000_000
MIDNIGHT = NOW - NOW % DAY_SECONDS
STUDENT = Price(input=0.1, output=0.4, training=25.0, hosting_hour=0.01)
TEACHER = Price(input=2.5, output=10.0)


def traffic(**changes: int) -> Traffic:
    """Ten days of 10,000 calls in all, 800 tokens in and 100 out, at 2.50 and 10.00 USD a million."""
    seen = {
        "since": NOW - 10 * DAY_SECONDS,
        "until": NOW,
        "calls": 10_000,
        "prompt_tokens": 8_000_000,
        "completion_tokens": 1_000_000,
        "cost_picousd": 30 * 10**12,
    }
    return Traffic(models=("gpt-4o",), **{**seen, **changes})


def test_break_even_is_what_pencil_and_paper_say() -> None:
    found = break_even(traffic(), STUDENT, training_picousd=3_600_000_000_000)
    # The teacher: 8 million x 2.50 + 1 million x 10.00 = 30 USD in ten days, 3 USD a day.
    assert found.teacher_day_picousd == 3_000_000_000_000
    # The student: 8 x 0.10 + 1 x 0.40 = 1.20 USD in ten days, and 24 hours of 0.01 USD.
    assert found.student_tokens_day_picousd == 120_000_000_000
    assert found.student_hosting_day_picousd == 240_000_000_000
    # 3.00 - 0.12 - 0.24 = 2.64 USD saved a day; 3.60 USD of training are 1.3636 days.
    assert found.saved_day_picousd == 2_640_000_000_000
    assert found.days == pytest.approx(3.60 / 2.64)
    assert (found.date, found.reason) == ("2027-01-16", None)  # a day and a third after 2027-01-15 08:00


@given(
    st.integers(1, 10**15),
    st.integers(1, 10**9),
    st.integers(1, 10**9),
    st.integers(0, 30 * DAY_SECONDS),
    st.integers(0, 10**15),
)
def test_on_the_day_of_break_even_the_savings_are_the_training(
    cost: int, prompt: int, completion: int, seconds: int, training: int
) -> None:
    seen = traffic(since=NOW - seconds, cost_picousd=cost, prompt_tokens=prompt, completion_tokens=completion)
    found = break_even(seen, STUDENT, training_picousd=training)
    days = Fraction(max(seconds, DAY_SECONDS), DAY_SECONDS)
    student = (Fraction(prompt, 10) + Fraction(4 * completion, 10)) * 10**6 / days + Fraction(24, 100) * 10**12
    saved = cost / days - student
    assert abs(found.saved_day_picousd - saved) < 2  # each of two amounts is rounded down to a pico-USD
    if found.days is None:
        assert saved < 2
        assert found.reason
    else:
        assert found.days * found.saved_day_picousd == pytest.approx(training)


def test_a_student_that_saves_nothing_never_breaks_even() -> None:
    dear = break_even(traffic(), Price(hosting_hour=0.2), training_picousd=1)  # 4.80 USD a day for 3.00 saved
    assert (dear.days, dear.date) == (None, None)
    assert dear.reason is not None
    assert "4.800000 USD a day, gpt-4o 3.000000 USD" in dear.reason


def test_without_calls_or_prices_the_reason_says_so() -> None:
    silent = traffic(calls=0, prompt_tokens=0, completion_tokens=0, cost_picousd=0)
    assert break_even(silent, STUDENT, training_picousd=1).reason == "No call of gpt-4o was seen in the last 30 days."
    free = break_even(traffic(cost_picousd=0), STUDENT, training_picousd=1)
    assert free.reason is not None
    assert "give the teacher a price" in free.reason


def test_an_hours_traffic_counts_as_a_days() -> None:
    hour = break_even(traffic(since=NOW - 3600), STUDENT, training_picousd=1)
    assert hour.teacher_day_picousd == 30 * 10**12


def answer(platform: Platform, model: str, at: int, price: Price = TEACHER, key: str | None = None) -> None:
    entry = Entry(project=1, kind=Kind.ANSWER, model=model, key_id=key, prompt_tokens=800, completion_tokens=100)
    platform.writer.write(lambda connection: record(connection, entry, price, at=at))


def test_traffic_is_the_models_answers_of_thirty_days(platform: Platform) -> None:
    for day in (0, 3, 29, 31, 50):
        answer(platform, "gpt-4o", NOW - day * DAY_SECONDS)
    answer(platform, "another", NOW)
    seen = traffic_of(platform.database, 1, {"gpt-4o"}, NOW)
    assert (seen.calls, seen.prompt_tokens, seen.completion_tokens) == (3, 2400, 300)
    assert seen.cost_picousd == 3 * (800 * 2_500_000 + 100 * 10_000_000)
    assert (seen.since, seen.until) == (NOW - 30 * DAY_SECONDS, NOW)
    assert traffic_of(platform.database, 2, {"gpt-4o"}, NOW).calls == 0


def test_labels_of_a_distillation_are_no_traffic(platform: Platform) -> None:
    run = key_of("tickets", "1a2b3c4d")
    for day in (0, 5, 40):
        answer(platform, "gpt-4o", NOW - day * DAY_SECONDS, key=run)
    assert traffic_of(platform.database, 1, {"gpt-4o"}, NOW).calls == 0
    answer(platform, "gpt-4o", NOW - DAY_SECONDS, key="key_1")
    seen = traffic_of(platform.database, 1, {"gpt-4o"}, NOW)
    assert (seen.calls, seen.since) == (1, MIDNIGHT - DAY_SECONDS)


def test_the_window_begins_with_the_first_day_that_was_called(platform: Platform) -> None:
    for day in (0, 3):
        answer(platform, "gpt-4o", NOW - day * DAY_SECONDS)
    assert traffic_of(platform.database, 1, {"gpt-4o"}, NOW).since == MIDNIGHT - 3 * DAY_SECONDS


def test_names_stand_for_what_answers_under_them(platform: Platform) -> None:
    """A deployment for its model's answers; a fine-tuned student comes with the cost of its own job."""
    answer(platform, "ft:old", NOW)

    def write(connection: Connection) -> None:
        names = {"openai_name": "ft:old", "azure_name": "old.ft"}
        catalog.add_model(connection, project=1, **names, base="scratch-small", job="j1", step=None, blob="b")
        catalog.put_deployment(connection, 1, "front", model="old.ft", state=DeploymentState.SUCCEEDED, extra={})
        entry = Entry(project=1, kind=Kind.TRAINING, model="scratch-small", subject="j1", trained_tokens=10**6)
        record(connection, entry, STUDENT)

    platform.writer.write(write)
    # The model's row and the job's have the real time.
    arguments = {"teachers": ["front"], "now": 2_000_000_000}
    answer(platform, "ft:old", arguments["now"])  # type: ignore[arg-type]
    found = break_even_of(platform.settings, platform.database, 1, student="front", **arguments)  # type: ignore[arg-type]
    assert found.traffic.models == ("ft:old",)
    assert found.traffic.calls == 1
    assert found.training_picousd == 25 * 10**12
    base = break_even_of(platform.settings, platform.database, 1, student="scratch-small", **arguments)  # type: ignore[arg-type]
    assert base.training_picousd == 0
    with pytest.raises(ModelNotFound, match="'nobody' is no student"):
        break_even_of(platform.settings, platform.database, 1, student="nobody", **arguments)  # type: ignore[arg-type]
