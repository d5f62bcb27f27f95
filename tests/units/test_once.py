"""Work with a key: once at a time, whoever asks, whoever leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stillroom.errors import Conflict, StoreUnavailable
from stillroom.gateway import once
from stillroom.gateway.once import Once

HERE = (1, "key")


class Work:
    """Counts how often it is begun; ends when told."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.failures = 0

    async def __call__(self) -> int:
        self.begun += 1
        mine = self.begun
        await self.may_end.wait()
        if mine <= self.failures:
            raise ValueError(f"failure {mine}")
        return mine


def story(tell: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(tell(), 10))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_those_who_ask_meanwhile_get_what_the_first_gets() -> None:
    async def tell() -> None:
        running: Once[int] = Once()
        work = Work()
        asking = [asyncio.create_task(running.run(HERE, b"same", work)) for _ in range(5)]
        await settle()
        work.may_end.set()
        assert sorted(await asyncio.gather(*asking)) == [(1, False), *[(1, True)] * 4]
        assert work.begun == 1
        assert await running.run(HERE, b"same", work) == (2, False)

    story(tell)


def test_other_work_under_the_key_is_refused_and_other_keys_and_projects_are_not() -> None:
    async def tell() -> None:
        running: Once[int] = Once()
        work = Work()
        first = asyncio.create_task(running.run(HERE, b"same", work))
        await settle()
        with pytest.raises(Conflict, match="'key'"):
            await running.run(HERE, b"other", work)
        others = [asyncio.create_task(running.run(place, b"other", work)) for place in ((1, "other"), (2, "key"))]
        await settle()
        work.may_end.set()
        assert await first == (1, False)
        assert [joined for _, joined in await asyncio.gather(*others)] == [False, False]

    story(tell)


def test_when_the_first_fails_the_next_one_asks() -> None:
    async def tell() -> None:
        running: Once[int] = Once()
        work = Work()
        work.failures = 2
        work.may_end.set()
        asking = [asyncio.create_task(running.run(HERE, b"same", work)) for _ in range(4)]
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert [str(each) for each in found if isinstance(each, ValueError)] == ["failure 1", "failure 2"]
        assert sorted(each for each in found if isinstance(each, tuple)) == [(3, False), (3, True)]

    story(tell)


def test_work_goes_on_when_whoever_began_it_has_left() -> None:
    async def tell() -> None:
        running: Once[int] = Once()
        work = Work()
        leaver = asyncio.create_task(running.run(HERE, b"same", work))
        await settle()
        leaver.cancel()
        await settle()
        assert leaver.cancelled()
        again = asyncio.create_task(running.run(HERE, b"same", work))
        await settle()
        work.may_end.set()
        assert await again == (1, True)

    story(tell)


def test_closing_waits_a_moment_then_ends_the_work_and_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "STOP_SECONDS", 0.05)

    async def tell() -> None:
        running: Once[int] = Once()
        quick, stuck = Work(), Work()
        quick.may_end.set()
        left = [asyncio.create_task(running.run((1, name), b"", work)) for name, work in (("a", quick), ("b", stuck))]
        joined = asyncio.create_task(running.run((1, "b"), b"", stuck))
        await settle()
        await running.close()
        found = await asyncio.gather(*left, joined, return_exceptions=True)
        assert found[0] == (1, False)
        assert isinstance(found[1], asyncio.CancelledError)
        assert isinstance(found[2], StoreUnavailable)
        assert stuck.begun == 1

    story(tell)
