"""A filter finds what looking at every completion finds, whichever index is walked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stillroom import ids
from stillroom.assembly import Platform, open_platform
from stillroom.completions import facets, matching, table
from stillroom.completions.table import Filter, NewCompletion, Status
from stillroom.config import Settings

PROJECT = 1
NOW = int(time.time())
WORDS = ["heron", "ocelot", "東京", "京都", "walrus"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, list[NewCompletion]]]:
    """Two hundred completions of all kinds, some with a clock that was set back or ahead, all indexed."""
    platform = open_platform(Settings(data=str(tmp_path_factory.mktemp("matching") / "data")))
    choose = random.Random(7)
    made = [_completion(choose, n) for n in range(200)]
    for new in made:
        packed = table.pack(new.request, new.response)
        platform.writer.write(lambda c, new=new, packed=packed: table.add(c, new, packed))
    while platform.indexer.step():
        pass
    yield platform, made
    platform.close()


def _completion(choose: random.Random, n: int) -> NewCompletion:
    second = NOW - 4000 + 20 * n
    said = " ".join(choose.sample(WORDS, 2))
    return NewCompletion(
        number=second * ids.NUMBERS_PER_SECOND + n,
        project=PROJECT,
        # A few seconds out of step are usual, hours are not.
        created_at=second + choose.choice([0, 0, 0, 1, -2, 61, -3600, 100_000] if n % 9 == 0 else [0, 0, 1]),
        model=choose.choice(["gpt-4o", "gpt-4o", "gpt-4o", "kyle"]),
        status=choose.choice([Status.COMPLETED, Status.COMPLETED, Status.INCOMPLETE]),
        request={"messages": [{"role": "user", "content": said}]},
        response={"choices": []},
        metadata={key: choose.choice("xxxy") for key in choose.sample("abc", choose.randrange(4))},
        prompt_tokens=1,
        completion_tokens=1,
        first_token_ms=1,
        latency_ms=1,
    )


def _filter(choose: random.Random, made: list[NewCompletion]) -> Filter:
    possible: dict[str, Callable[[], Any]] = {
        "model": lambda: choose.choice(["gpt-4o", "kyle", "nobody"]),
        "status": lambda: choose.choice(list(Status)),
        "created_after": lambda: NOW - choose.randrange(5000),
        "created_before": lambda: NOW - choose.randrange(4000),
        "metadata": lambda: {key: choose.choice("xy") for key in choose.sample("abc", choose.randrange(1, 3))},
        "search": lambda: choose.choice([*WORDS, "京", "東 heron", "", "nowhere"]),
        "numbers": lambda: tuple(new.number for new in choose.sample(made, 50)),
        "up_to": lambda: choose.choice([choose.choice(made).number, matching.LARGEST, 0]),
    }
    return Filter(**{name: possible[name]() for name in choose.sample(list(possible), choose.randrange(4))})


def _matches(new: NewCompletion, chosen: Filter) -> bool:
    said = new.request["messages"][0]["content"]
    return (
        chosen.model in (None, new.model)
        and chosen.status in (None, new.status)
        and (chosen.created_after is None or new.created_at >= chosen.created_after)
        and (chosen.created_before is None or new.created_at < chosen.created_before)
        and chosen.metadata.items() <= new.metadata.items()
        and (chosen.search is None or (bool(chosen.search) and all(word in said for word in chosen.search.split())))
        and (chosen.numbers is None or new.number in chosen.numbers)
        and (chosen.up_to is None or new.number <= chosen.up_to)
    )


@pytest.mark.parametrize(("few", "many"), [(2000, 20_000), (20, 80), (0, 8)])
def test_a_filter_finds_what_looking_at_all_of_them_finds(
    stored: tuple[Platform, list[NewCompletion]], monkeypatch: pytest.MonkeyPatch, few: int, many: int
) -> None:
    monkeypatch.setattr(matching, "FEW", few)
    monkeypatch.setattr(matching, "MANY", many)
    platform, made = stored
    choose = random.Random(few)
    for _ in range(100):
        chosen = _filter(choose, made)
        expected = [new.number for new in made if _matches(new, chosen)]
        with platform.database.read() as connection:
            assert table.numbers(connection, PROJECT, chosen, limit=1000) == expected, chosen
            backwards = table.numbers(connection, PROJECT, chosen, descending=True, limit=1000)
            assert backwards == expected[::-1], chosen
            assert matching.count(connection, PROJECT, chosen) == matching.Count(number=len(expected), at_least=False)
            summed = facets.facets(connection, PROJECT, chosen)
            assert sum(times for _, times in summed.statuses) == len(expected)
            assert table.numbers(connection, PROJECT + 1, chosen, limit=1) == []


def test_bounds_and_cursor_hold_in_both_orders(stored: tuple[Platform, list[NewCompletion]]) -> None:
    platform, made = stored
    numbers = [new.number for new in made]
    with platform.database.read() as connection:

        def found(**bounds: Any) -> list[int]:
            return table.numbers(connection, PROJECT, Filter(), limit=1000, **bounds)

        assert found(after=numbers[9], up_to=numbers[20]) == numbers[10:21]
        assert found(after=numbers[9], newer_than=numbers[14], descending=True) == []
        assert found(after=numbers[20], newer_than=numbers[14], descending=True) == numbers[19:14:-1]
        assert found(up_to=numbers[3]) == numbers[:4]


def test_counts_that_would_take_long_say_at_least(
    stored: tuple[Platform, list[NewCompletion]], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, made = stored
    monkeypatch.setattr(matching, "COUNTED", 10)
    monkeypatch.setattr(facets, "SAMPLE", 10)
    with platform.database.read() as connection:
        assert matching.count(connection, PROJECT, Filter(search="heron")) == matching.Count(number=10, at_least=True)
        assert matching.count(connection, PROJECT, Filter()) == matching.Count(number=len(made), at_least=False)
        pair = Filter(metadata={"a": "x"})
        assert matching.count(connection, PROJECT, pair).number == sum(_matches(new, pair) for new in made)
        summed = facets.facets(connection, PROJECT, Filter(status=Status.COMPLETED))
        assert summed.sampled and summed.statuses == [("completed", 10)]
