"""Asks an upstream until it answers: the one retry loop, under the caller's deadline.

Only what happens before the answer's first byte is tried again; nothing of a failed try has reached
the caller. An error that stays is passed on as the upstream said it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import msgspec

from stillroom.chat import Answer, Upstream
from stillroom.config import GatewaySettings
from stillroom.errors import TeacherFailed, TeacherRefused, TeacherTimeout

TRY_AGAIN = {408, 429, 500, 502, 503, 504}
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0  # a longer wait is the caller's to decide on
PASSED_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms")
PASSED_PREFIX = "x-ratelimit-"


async def ask(upstream: Upstream, body: bytes, limits: GatewaySettings) -> Answer:
    """An answer with status 200. Raises TeacherRefused with the upstream's error, or TeacherFailed."""
    for attempt in range(limits.attempts):
        last = attempt == limits.attempts - 1
        try:
            answer = await upstream.ask(body)
        except TeacherTimeout:
            raise  # its time is spent
        except TeacherFailed:
            if last:
                raise
            await asyncio.sleep(_backoff(attempt))
            continue
        if answer.status == 200:
            return answer
        refusal = await _refusal(answer)
        pause = _pause(answer, attempt)
        if last or pause is None:
            raise refusal
        await asyncio.sleep(pause)
    raise AssertionError("attempts is at least 1")


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of an upstream's headers that mean something to our caller."""
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() in PASSED_HEADERS or name.lower().startswith(PASSED_PREFIX)
    }


def _pause(answer: Answer, attempt: int) -> float | None:
    """Seconds until another try; None when there should be none."""
    if answer.status not in TRY_AGAIN or answer.headers.get("x-should-retry") == "false":
        return None
    told = _told_seconds(answer.headers)
    if told is None:
        return _backoff(attempt)
    return told if told <= LONGEST_PAUSE_SECONDS else None


def _told_seconds(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None


def _backoff(attempt: int) -> float:
    return random.uniform(0.5, 1.0) * FIRST_PAUSE_SECONDS * 2.0**attempt


async def _refusal(answer: Answer) -> TeacherRefused:
    data = await answer.read()
    answer.close()
    try:
        body = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return TeacherRefused(
        str(message or f"The upstream answered with status {answer.status}."),
        status=answer.status,
        body=body if isinstance(error, dict) else None,
        headers=passed_headers(answer.headers),
    )
