"""Asks the server for chat completions on behalf of a run, as any client would, and waits when told to.

Each call has an idempotency key, so that a call whose answer was kept is never paid for twice: a run
that goes on after a crash asks again and gets what was kept.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from stillroom.errors import StillroomError

TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504, 507}
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
GIVEN_UP = 20  # calls in a row that a model did not answer, until it counts as gone


class CallFailed(StillroomError):
    """The server refused a call, or gave up on it; the details hold its `status`, 0 when there was none."""

    code = "call_failed"


class ModelUnavailable(StillroomError):
    """A model has not answered for so long that the run cannot go on."""

    code = "model_unavailable"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A chat completion, and how long it took; None when it was kept from before."""

    completion: dict[str, Any]
    latency_ms: int | None


class Caller:
    """One server and one key. Use as an async context manager."""

    def __init__(self, url: str, key: str, *, patience_seconds: float) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._key = key
        self._patience_seconds = patience_seconds
        self._session: aiohttp.ClientSession | None = None
        self._not_before = 0.0
        self._failing_since: dict[str, float] = {}
        self._given_up: Counter[str] = Counter()
        self.unavailable: ModelUnavailable | None = None
        """Set when a model counts as gone: the run had better end than go on for hours without it."""

    async def __aenter__(self) -> Caller:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, body: Mapping[str, Any], call: str) -> Answered:
        """The answer to a call that is known by the name `call`. Raises CallFailed.

        An overloaded model is waited for as its answer says; so do all other calls of the run. Patience
        is counted from the model's first failure since it last answered, so that it is not spent anew on every item.
        """
        model = str(body["model"])
        attempt = 0
        while True:
            await self._wait()
            try:
                answered = await self._once(body, call)
            except CallFailed as failure:
                pause = _pause(failure, attempt)
                if pause is None:
                    raise
                since = self._failing_since.setdefault(model, time.monotonic())
                if time.monotonic() + pause > since + self._patience_seconds:
                    self._give_up(model, failure)
                    raise
                if failure.details["status"] == 429:
                    self._not_before = max(self._not_before, time.monotonic() + pause)
                else:
                    await asyncio.sleep(pause)
                attempt += 1
            else:
                self._failing_since.pop(model, None)
                self._given_up[model] = 0
                return answered

    def _give_up(self, model: str, failure: CallFailed) -> None:
        self._given_up[model] += 1
        if self._given_up[model] == GIVEN_UP:
            self.unavailable = ModelUnavailable(
                f"'{model}' has left {GIVEN_UP} calls in a row unanswered; the last time it was said: {failure.message} "
                "What was graded before is kept; start another run when the model is back.",
                param="model",
            )

    async def _wait(self) -> None:
        while (pause := self._not_before - time.monotonic()) > 0:  # noqa: ASYNC110 - a time to wait for, no event
            # Not all at the same moment, or the model is overloaded again.
            await asyncio.sleep(pause * random.uniform(1.0, 1.5))

    async def _once(self, body: Mapping[str, Any], call: str) -> Answered:
        assert self._session is not None
        headers = {"Authorization": f"Bearer {self._key}", "Idempotency-Key": call, "Content-Type": "application/json"}
        began = time.monotonic()
        try:
            async with self._session.post(self._url, data=msgspec.json.encode(body), headers=headers) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CallFailed(f"The server could not be asked: {error}.", status=0, headers={}) from error
        if answer.status != 200:
            raise _refusal(answer.status, data, answer.headers)
        replayed = answer.headers.get("x-stillroom-replayed") == "true"
        latency_ms = None if replayed else round((time.monotonic() - began) * 1000)
        return Answered(completion=msgspec.json.decode(data), latency_ms=latency_ms)


def refuses_format(failure: CallFailed) -> bool:
    """Whether the model was asked for an answer's form, and takes no such wish."""
    return failure.details["status"] == 400 and "response_format" in f"{failure.param} {failure.message}"


def _refusal(status: int, data: bytes, headers: Mapping[str, str]) -> CallFailed:
    told = {name.lower(): value for name, value in headers.items()}
    try:
        error = msgspec.json.decode(data)["error"]
        return CallFailed(
            str(error["message"]), code=error.get("code"), param=error.get("param"), status=status, headers=told
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return CallFailed(f"The server answered with status {status}.", status=status, headers=told)


def _pause(failure: CallFailed, attempt: int) -> float | None:
    """Seconds until another try; None when there should be none."""
    status, headers = failure.details["status"], failure.details["headers"]
    if status and (status not in TRY_AGAIN or headers.get("x-should-retry") == "false"):
        return None
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**attempt) * random.uniform(0.5, 1.0)
