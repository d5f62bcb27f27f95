"""Shares, percentiles and the sign test, against published figures and against counting."""

from __future__ import annotations

import itertools
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.evals.reporting.statistics import percentile, share, sign_test


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # R. G. Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons_as_newcombe_tabulates_it(count: int, total: int, low: float, high: float) -> None:
    found = share(count, total)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_share_lies_in_its_interval_and_the_interval_between_0_and_1(figures: tuple[int, int]) -> None:
    found = share(*figures)
    assert found is not None
    assert 0 <= found.low <= found.share <= found.high <= 1
    assert found.low < found.high


def test_the_interval_narrows_as_items_are_added() -> None:
    widths = [found.high - found.low for found in (share(9 * n, 10 * n) for n in (1, 10, 100, 1000)) if found]
    assert widths == sorted(widths, reverse=True)


def test_nothing_has_no_share_and_no_percentile() -> None:
    assert share(0, 0) is None
    assert percentile([], 50) is None


@given(st.lists(st.integers(0, 100), min_size=1))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[int]) -> None:
    ordered = sorted(values)
    for percent in (50, 95):
        found = percentile(ordered, percent)
        enough = [value for value in ordered if sum(v <= value for v in values) * 100 >= percent * len(values)]
        assert found == enough[0]
    if len(values) % 2:
        assert percentile(ordered, 50) == statistics.median(values)


@pytest.mark.parametrize(("better", "worse"), [(0, 1), (3, 3), (1, 9), (10, 2), (0, 8)])
def test_the_sign_test_counts_every_way_the_differences_could_have_fallen(better: int, worse: int) -> None:
    n = better + worse
    ways = [sum(toss) for toss in itertools.product((0, 1), repeat=n)]
    as_uneven = sum(abs(2 * heads - n) >= abs(better - worse) for heads in ways)
    found = sign_test(better, worse)
    assert found == pytest.approx(min(1.0, float(Fraction(as_uneven, 2**n))))


def test_without_a_difference_there_is_nothing_to_test() -> None:
    assert sign_test(0, 0) is None
