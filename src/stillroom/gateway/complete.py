"""One answer: find who gives it, ask, meter, store, and only then hand it on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgspec

from stillroom import billing, chat, ids
from stillroom.chat import ChatRequest, Usage
from stillroom.clock import Clock
from stillroom.completions.recorder import Recorder
from stillroom.completions.table import NewCompletion, Status
from stillroom.config import GatewaySettings
from stillroom.errors import TeacherFailed, TeacherTimeout
from stillroom.gateway.ask import ask, passed_headers
from stillroom.serving.models import Models, Target


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request and who makes it. `by_model_name`: fine-tuned models answer undeployed too."""

    request: ChatRequest
    name: str
    project: int
    key_id: str
    request_id: str
    by_model_name: bool


@dataclass(frozen=True, kw_only=True)
class Completed:
    """The answer's bytes, and the upstream's headers that are passed on."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Started:
    """What is known of an answer before it is there. The number is minted first, so that the id in
    the answer, the stored row and the order of rows agree."""

    call: Call
    target: Target
    number: int
    at: float
    monotonic: float


class Gateway:
    """What every answer needs; the streaming twin of `complete` is in `stream.py`."""

    def __init__(self, models: Models, recorder: Recorder, limits: GatewaySettings, clock: Clock) -> None:
        self.models = models
        self.limits = limits
        self._recorder = recorder
        self._clock = clock
        self._numbers = ids.OrderedNumbers()
        self.without_usage: set[str] = set()
        """Models whose upstream refused `stream_options`; their usage is estimated."""

    async def complete(self, call: Call) -> Completed:
        """The whole answer; stored, when asked for, before this returns."""
        started = await self.start(call)
        try:
            async with asyncio.timeout(self.limits.total_seconds):
                body = call.request.forwarded(started.target.upstream_model, ask_usage=False)
                answer = await ask(started.target.upstream, body, self.limits)
                try:
                    data = await answer.read()
                finally:
                    answer.close()
        except TimeoutError as error:
            raise self.too_slow(call) from error
        completion = _parse(data, call.name)
        if call.request.store:
            data = _with_our_id(data, completion, ids.completion_id(started.number))
        await self.settle(started, completion, Status.COMPLETED, self._clock.monotonic())
        return Completed(body=data, headers=passed_headers(answer.headers))

    async def start(self, call: Call) -> Started:
        """Resolves who answers. Raises ModelNotFound."""
        target = await self.models.resolve(call.project, call.name, by_model_name=call.by_model_name)
        return Started(
            call=call,
            target=target,
            number=self._numbers.mint(),
            at=self._clock.now(),
            monotonic=self._clock.monotonic(),
        )

    async def settle(self, started: Started, completion: Mapping[str, Any], status: Status, first_token: float) -> None:
        """Meters the answer and, when it is to be stored, waits until it is."""
        committed = self.keep(started, completion, status, first_token)
        if committed is not None:
            await asyncio.shield(asyncio.wrap_future(committed))

    def keep(
        self, started: Started, completion: Mapping[str, Any], status: Status, first_token: float
    ) -> Future[None] | None:
        """Meters the answer and begins storing it; None when it is not to be stored."""
        call = started.call
        usage = chat.usage_of(completion, call.request)
        entry = self._entry(started, usage)
        if not call.request.store:
            self._recorder.meter(entry, started.target.price)
            return None
        new = NewCompletion(
            number=started.number,
            project=call.project,
            created_at=int(started.at),
            model=call.name,
            status=status,
            request={k: v for k, v in call.request.body.items() if k not in chat.NOT_FORWARDED},
            response={**completion, "request_id": call.request_id},
            metadata=call.request.metadata,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            first_token_ms=self._milliseconds(started, first_token),
            latency_ms=self._milliseconds(started, self._clock.monotonic()),
        )
        return self._recorder.keep(new, entry, started.target.price)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def too_slow(self, call: Call) -> TeacherTimeout:
        return TeacherTimeout(f"'{call.name}' did not finish its answer within {self.limits.total_seconds:g} seconds.")

    def _milliseconds(self, started: Started, until: float) -> int:
        return max(0, round((until - started.monotonic) * 1000))

    def _entry(self, started: Started, usage: Usage) -> billing.Entry:
        return billing.Entry(
            project=started.call.project,
            kind=billing.Kind.ANSWER,
            model=started.target.model,
            subject=ids.completion_id(started.number),
            key_id=started.call.key_id,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            estimated=usage.estimated,
        )


def _parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        completion = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        start = data[:60].decode(errors="replace")
        raise TeacherFailed(f"'{name}' answered with something that is not JSON; it starts with {start!r}.") from error
    if not chat.is_completion(completion):
        raise TeacherFailed(f"'{name}' answered with JSON that is not a chat completion.")
    return dict(completion)


def _with_our_id(data: bytes, completion: dict[str, Any], our_id: str) -> bytes:
    theirs, completion["id"] = completion.get("id"), our_id
    if not isinstance(theirs, str):
        return msgspec.json.encode(completion)
    return chat.replace_id(data, msgspec.json.encode(theirs), msgspec.json.encode(our_id))
