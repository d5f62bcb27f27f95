"""Quotes: minutes from measured steps, and how a quote is found again for its job."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from stillroom import fine_tuning, jobs
from stillroom.assembly import Platform, open_platform
from stillroom.config import Price
from stillroom.errors import InvalidRequest, InvalidTrainingFile, NotFound
from stillroom.fine_tuning import Hyperparameters, Job
from stillroom.fine_tuning.quote import Measurement, Quote, minutes_of
from stillroom.fine_tuning.table import fine_tuning_jobs
from tests.support import example_lines
from tests.units.test_method import tuned

PROJECT = 1
NUMBERS = Hyperparameters(n_epochs=3, batch_size=4, learning_rate_multiplier=1.0)


def measured(**changes: Any) -> Measurement:
    """Three epochs of ten steps that took 2 seconds each, behind 10 seconds of setting up."""
    found: dict[str, Any] = {
        "hyperparameters": NUMBERS,
        "total_steps": 30,
        "examples": 40,
        "valid_examples": 0,
        "tokens_per_epoch": 1000,
        "trained_tokens": 3000,
        "setup_seconds": 10.0,
        "step_seconds": [2.0, 2.0, 2.0, 2.0],
        "validation_batch_seconds": None,
        "validation_batches": 0,
        "checkpoint_seconds": 1.0,
        "load": 0.3,
        "notes": [],
    }
    return Measurement(**{**found, **changes})


# --- minutes ------------------------------------------------------------------------------------------


def test_minutes_are_setting_up_steps_and_checkpoints() -> None:
    steady = minutes_of(measured(), 1000.0)
    assert steady.expected * 60 == pytest.approx(10 + 30 * 2 + 3 * 1)  # one checkpoint an epoch
    assert steady.low * 60 == pytest.approx(73 * 0.8)  # never surer than a fifth
    assert steady.high * 60 == pytest.approx(73 * 1.2)


def test_a_busy_machine_is_less_sure_and_says_so(platform: Platform) -> None:
    busy = measured(load=3.0)
    assert minutes_of(busy, 1000.0).high * 60 == pytest.approx(73 * 1.5)
    asked = order(upload(platform, example_lines(10)))
    made_busy = quote(platform, asked, measurement=busy)
    assert any("busy while this was measured (3.0 processes" in warning for warning in made_busy.warnings)
    assert not any("busy" in warning for warning in quote(platform, asked).warnings)


def test_validation_and_states_saved_on_the_way_count_too() -> None:
    more = measured(validation_batch_seconds=0.5, validation_batches=20)
    # 60 seconds of steps and 10 of validation hold three more states at one every 20 seconds.
    assert minutes_of(more, 20.0).expected * 60 == pytest.approx(10 + 60 + 10 + (3 + 3) * 1)
    # And so does what a method looks at before its first step.
    assert minutes_of(replace(more, begin_seconds=5.0), 20.0).expected * 60 == pytest.approx(5 + 86)


def test_steps_that_differ_widen_the_interval() -> None:
    uneven = minutes_of(measured(step_seconds=[1.0, 3.0, 1.0, 3.0]), 1000.0)
    spread = statistics.stdev([1.0, 3.0, 1.0, 3.0])
    doubt = 2.35 * spread * 30 * (1 / 4 + 1 / 30) ** 0.5  # Student's t with three degrees of freedom
    assert uneven.expected * 60 == pytest.approx(73)
    assert uneven.high * 60 == pytest.approx(73 + doubt)
    assert uneven.low * 60 == pytest.approx(73 - doubt)


@given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=60), st.integers(1, 10_000), st.floats(0.0, 100.0))
def test_the_interval_is_in_order_and_positive(steps: list[float], total: int, setup: float) -> None:
    found = minutes_of(measured(step_seconds=steps, total_steps=total, setup_seconds=setup), 30.0)
    assert 0 <= found.low <= found.expected <= found.high


# --- a job's quote -------------------------------------------------------------------------------------


def upload(platform: Platform, lines: bytes) -> str:
    return platform.files.create(PROJECT, "a.jsonl", "fine-tune", [lines]).id


def order(file: str, **options: Any) -> fine_tuning.Order:
    return fine_tuning.parse_order({"model": "scratch-small", "training_file": file, **options})


def quote(platform: Platform, asked: fine_tuning.Order, *, now: float | None = None, **changes: Any) -> Quote:
    options: dict[str, Any] = {"is_kept": True, "digest": "d", "teachers": (), "warnings": (), **changes}
    options.setdefault("measurement", measured())
    return platform.quotes.make(PROJECT, asked, "scratch-small", now=int(now or time.time()), **options)


def made(platform: Platform, asked: fine_tuning.Order) -> Job:
    return platform.fine_tuning.create(PROJECT, asked)


def found(platform: Platform, job: Job) -> str | None:
    compared = platform.quotes.compare(PROJECT, job.id).quote
    return compared.id if compared else None


def test_a_quote_is_given_again_as_it_was_made(platform: Platform) -> None:
    first = quote(platform, order(upload(platform, example_lines(10))))
    assert platform.quotes.get(PROJECT, first.id) == first
    with pytest.raises(NotFound, match="quote-none"):
        platform.quotes.get(PROJECT, "quote-none")
    with pytest.raises(NotFound):
        platform.quotes.get(2, first.id)


def test_a_quote_is_of_its_method_and_tells_what_a_dropped_prompt_saves(platform: Platform) -> None:
    file = upload(platform, example_lines(10))
    dropping = {"method": {"type": "supervised", "supervised": {"hyperparameters": {"system_prompt": "drop"}}}}
    told = measured(dropped_prompt={"text": "Answer with the colour.", "tokens": 7})
    quoted = quote(platform, order(file, **dropping), measurement=told)
    assert platform.quotes.get(PROJECT, quoted.id).dropped_prompt_tokens == 7
    assert found(platform, made(platform, order(file, **dropping))) == quoted.id
    assert found(platform, made(platform, order(file))) is None
    other = {"method": {"type": "dpo"}, "model": tuned(platform)}
    quoted = quote(platform, order(file, **{**other, "method": None}))
    assert found(platform, made(platform, order(file, **{**other, "method": None}))) == quoted.id
    assert found(platform, made(platform, order(file, **other))) is None


def test_a_jobs_quote_is_the_newest_of_its_file_model_and_numbers(platform: Platform) -> None:
    file, other = upload(platform, example_lines(10)), upload(platform, example_lines(11))
    three = {"hyperparameters": {"n_epochs": 3}}
    quote(platform, order(file, **three))
    newest = quote(platform, order(file, **three))
    quote(platform, order(file), digest="d")
    quote(platform, order(other, **three), digest="another")
    job = made(platform, order(file, **three))
    quote(platform, order(file, **three), now=time.time() + 5)  # made after the job
    assert found(platform, job) == newest.id
    assert found(platform, made(platform, order(other, hyperparameters={"n_epochs": 4}))) is None


def test_a_started_job_is_known_by_the_numbers_it_was_given_and_by_its_rows(platform: Platform) -> None:
    quoted = quote(platform, order(upload(platform, example_lines(10))), digest="same rows", is_kept=False)
    assert quoted.training_file is None
    job = made(platform, order(upload(platform, example_lines(10))))
    assert found(platform, job) is None
    platform.fine_tuning.validate_waiting()
    claim = platform.writer.write(lambda c: jobs.claim(c, "server", ["fine_tuning"]))
    assert claim
    numbers = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0}
    started = {"hyperparameters": numbers, "training_digest": "same rows"}
    platform.writer.write(lambda c: fine_tuning.record_start(c, claim, started))
    assert found(platform, job) == quoted.id


def test_what_a_job_came_to_is_its_tokens_its_ledger_row_and_its_own_minutes(platform: Platform) -> None:
    file = upload(platform, example_lines(10))
    job = made(platform, order(file))
    platform.fine_tuning.validate_waiting()
    claim = platform.writer.write(lambda c: jobs.claim(c, "server", ["fine_tuning"]))
    assert claim
    assert platform.quotes.compare(PROJECT, job.id).actual is None
    price = Price(training=2.0)
    end = {"blob": "models/x", "trained_tokens": 3000, "result_file": file, "running_milliseconds": 90_000}
    platform.writer.write(lambda c: fine_tuning.finish(c, claim, job, price=price, **end))
    actual = platform.quotes.compare(PROJECT, job.id).actual
    assert actual is not None
    assert (actual.trained_tokens, actual.cost_picousd, actual.minutes) == (3000, 3000 * 2_000_000, 1.5)
    # A job from before minutes were counted has none.
    old = update(fine_tuning_jobs).values(running_milliseconds=None)
    platform.writer.write(lambda c: c.execute(old))
    actual = platform.quotes.compare(PROJECT, job.id).actual
    assert actual is not None
    assert actual.minutes is None


def test_a_job_that_runs_meanwhile_is_warned_about_and_so_is_a_missing_price(platform: Platform) -> None:
    asked = order(upload(platform, example_lines(10)))
    alone = quote(platform, asked).warnings
    assert [warning.split(";")[0] for warning in alone] == ["No training price is configured for 'scratch-small'"]
    made(platform, asked)
    platform.fine_tuning.validate_waiting()
    assert platform.writer.write(lambda c: jobs.claim(c, "server", ["fine_tuning"]))
    assert any("A fine-tuning job was running" in warning for warning in quote(platform, asked).warnings)


def test_what_a_killed_server_left_of_a_measurement_is_gone_at_the_next_start(platform: Platform) -> None:
    left = platform.settings.folder / "runs" / "quote-abc"
    left.mkdir()
    (left / "spec.json").write_text("{}")
    kept = platform.settings.folder / "runs" / "ftjob-abc"
    kept.mkdir()
    settings = platform.settings
    platform.close()
    open_platform(settings).close()
    assert (left.exists(), kept.exists()) == (False, True)


def test_an_order_is_checked_in_the_jobs_own_words(platform: Platform) -> None:
    nine = upload(platform, example_lines(9))
    with pytest.raises(InvalidTrainingFile, match=r"has 9 example\(s\), but must have at least 10") as refused:
        platform.fine_tuning.check(PROJECT, order(nine))
    assert (refused.value.code, refused.value.param) == ("invalid_n_examples", "training_file")
    with pytest.raises(InvalidRequest, match="no such file"):
        platform.fine_tuning.check(PROJECT, order("file-none"))
    with pytest.raises(InvalidRequest, match="cannot be fine-tuned here"):
        platform.fine_tuning.check(PROJECT, order(nine, model="nobody"))
    assert platform.fine_tuning.check(PROJECT, order(upload(platform, example_lines(10)))) == "scratch-small"
