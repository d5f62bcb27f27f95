"""Completion ids: text order, integer order and time order agree."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom import ids

NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS)
def test_an_id_gives_its_number_back(number: int) -> None:
    assert ids.completion_number(ids.completion_id(number)) == number


@given(NUMBERS, NUMBERS)
def test_ids_sort_as_their_numbers(one: int, other: int) -> None:
    assert (ids.completion_id(one) < ids.completion_id(other)) == (one < other)


@pytest.mark.parametrize(
    "text", ["", "chatcmpl-", "chatcmpl-x", "chatcmpl-" + "z" * 11, "chatcmpl-" + "é" * 11, "file-00000000001"]
)
def test_what_is_no_completion_id_has_no_number(text: str) -> None:
    assert ids.completion_number(text) is None
    assert ids.completion_number("chatcmpl-00000000001") == 1


def test_numbers_grow_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    minter = ids.OrderedNumbers()
    now = time.time_ns()
    first = minter.mint()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3_600_000_000_000)
    assert first < minter.mint() < minter.mint()
    assert ids.OrderedNumbers().mint() < first, "the control: the clock really was set back"


def test_numbers_from_many_threads_are_all_different() -> None:
    minter = ids.OrderedNumbers()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(minter.mint() for _ in range(500))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4000


def test_random_ids_differ_and_hold_only_letters_and_digits() -> None:
    made = {ids.random_id("file-") for _ in range(1000)}
    assert len(made) == 1000
    assert all(name.removeprefix("file-").isalnum() and len(name) == 29 for name in made)
