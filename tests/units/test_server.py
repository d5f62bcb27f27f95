"""What the server notices of itself."""

from __future__ import annotations

import asyncio

import pytest

from stillroom.api.server import _beside


async def _broken() -> None:
    raise ValueError("out of luck")


def test_work_in_the_background_that_ends_by_itself_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        await asyncio.wait([_beside("the watchman", _broken())])
        await asyncio.sleep(0)

    asyncio.run(run())
    assert "the watchman has ended" in caplog.text
    assert "ValueError: out of luck" in caplog.text


def test_work_in_the_background_that_is_ended_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        task = _beside("the watchman", asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)

    asyncio.run(run())
    assert caplog.text == ""
