"""One answer as it comes, over server-sent events: the streaming twin of `complete`.

The upstream's events are passed on as the bytes they came in, but for four things: a stored
answer carries our id; the usage chunk, which is always asked for, is dropped when the caller did not
ask; so are logprobs that are only kept; and `[DONE]` is held back until the answer is stored, because to
the caller it means just that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec

from stillroom import chat, ids
from stillroom.chat import Answer
from stillroom.completions.table import Status
from stillroom.errors import StillroomError, TeacherFailed, TeacherTimeout
from stillroom.gateway.ask import passed_headers
from stillroom.gateway.complete import Call, Gateway, Started
from stillroom.gateway.events import DONE_EVENT, check_first, data_of, error_event, is_usage, parse_chunk, split_events
from stillroom.gateway.tolerance import Asked, names_logprobs

Send = Callable[[bytes], Awaitable[None]]


class Stream:
    """An answer whose first chunk has arrived and is well-formed."""

    def __init__(self, gateway: Gateway, started: Started, answer: Answer, events: AsyncIterator[bytes]) -> None:
        self.headers: Mapping[str, str] = passed_headers(answer.headers)
        self._gateway = gateway
        self._started = started
        self._answer = answer
        self._events = events
        self._chunks: list[dict[str, Any]] = []
        self._told: list[bytes] = []
        self._first_token = gateway.monotonic()
        self._done = DONE_EVENT
        self._our_id = msgspec.json.encode(ids.completion_id(started.number))

    async def pump(self, first: bytes, send: Send) -> None:
        """Sends the events on as they come, then stores, then sends `[DONE]`.

        When the upstream fails on the way, the caller gets an error event; when the caller leaves
        (this is cancelled), the upstream is dropped. What had arrived is kept as incomplete.
        """
        kept = False
        keeping: Future[None] | None = None
        problem: StillroomError | None = None
        try:
            async with asyncio.timeout_at(self._deadline()):
                whole = await self._forward(first, send)
                kept = True
                await self._settle(Status.COMPLETED if whole else Status.INCOMPLETE)
                if whole:
                    await send(self._done)
        except TimeoutError:
            problem = self._gateway.too_slow(self._started.call)
        except StillroomError as error:
            problem = error
        finally:
            self._answer.close()
            if not kept:
                keeping = self._keep(Status.INCOMPLETE)
        if keeping is not None:  # who has been told sees the row
            with contextlib.suppress(StillroomError):
                await asyncio.shield(asyncio.wrap_future(keeping))
        if problem is not None:  # last, because a caller who has stopped reading keeps us waiting here
            await send(error_event(problem))

    async def _forward(self, first: bytes, send: Send) -> bool:
        """Passes events on until the answer ends; False when the upstream reported an error."""
        event: bytes | None = first
        while event is not None:
            payload = data_of(event)
            if payload == chat.DONE:
                self._done = event
                return True
            passed, failed = self._take(event, payload)
            if passed:
                await send(passed)
            if failed:
                return False
            event = await anext(self._events, None)
        if not self._finished():
            raise TeacherFailed(f"'{self._started.call.name}' ended its answer before it was finished.")
        return True

    def _take(self, event: bytes, payload: bytes) -> tuple[bytes, bool]:
        """What to pass on of an event, and whether it says that the upstream failed."""
        if not payload:
            return event, False  # a comment that keeps the connection alive
        chunk = parse_chunk(payload, self._started.call.name)
        if "error" in chunk:
            return event, True
        shown = self._without_labels(event, payload, chunk)
        self._chunks.append(chunk)
        if is_usage(chunk) and not self._started.call.request.wants_usage:
            return b"", False
        return self._with_our_id(shown, chunk), False

    def _without_labels(self, event: bytes, payload: bytes, chunk: Mapping[str, Any]) -> bytes:
        """The event as the caller sees it, and so the chunk; what its first choice tells of logprobs is put aside."""
        wish = self._started.wish
        if wish is None or not any(choice.get("logprobs") for choice in chunk.get("choices") or ()):
            return event
        parted = wish.part(event, payload)
        wish.hide(chunk)
        if parted.told is not None:
            self._told.append(parted.told)
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n" if parted.shown is None else parted.shown

    def _with_our_id(self, event: bytes, chunk: Mapping[str, Any]) -> bytes:
        if not self._started.call.request.store or not isinstance(chunk.get("id"), str):
            return event
        return chat.replace_id(event, msgspec.json.encode(chunk["id"]), self._our_id)

    def _finished(self) -> bool:
        choices = chat.completion_from_chunks(self._chunks)["choices"]
        wanted = self._started.call.request.body.get("n")
        enough = len(choices) >= (wanted if isinstance(wanted, int) else 1)
        return bool(choices) and enough and all(choice["finish_reason"] for choice in choices)

    def _completion(self) -> dict[str, Any]:
        completion = chat.completion_from_chunks(self._chunks)
        if self._started.call.request.store:
            completion["id"] = ids.completion_id(self._started.number)
        return completion

    async def _settle(self, status: Status) -> None:
        told = self._told if status is Status.COMPLETED else ()  # nobody trains on an answer that broke off
        await self._gateway.settle(self._started, self._completion(), status, self._first_token, logprobs=told)

    def _keep(self, status: Status) -> Future[None] | None:
        return self._gateway.keep(self._started, self._completion(), status, self._first_token)

    def _deadline(self) -> float:
        spent = self._gateway.monotonic() - self._started.monotonic
        return asyncio.get_running_loop().time() + self._gateway.limits.total_seconds - spent


async def open_stream(gateway: Gateway, call: Call) -> tuple[Stream, bytes]:
    """The stream and its first event. Until here an error has a status of its own."""
    started = await gateway.start(call)
    while True:
        answer, asked = await _ask(gateway, started)
        try:
            events = split_events(answer.chunks())
            first = await _first_event(events, gateway, call)
        except TeacherFailed as error:
            answer.close()
            if asked.top_logprobs is None or not names_logprobs(error):
                raise
            gateway.tolerance.refused_above(started.target.model, 0)
        except BaseException:
            answer.close()
            raise
        else:
            return Stream(gateway, started, answer, events), first


async def _first_event(events: AsyncIterator[bytes], gateway: Gateway, call: Call) -> bytes:
    try:
        # A teacher may send its headers, and comments, long before its answer begins.
        async with asyncio.timeout(gateway.limits.first_token_seconds):
            first = await anext(events, None)
            while first is not None and not data_of(first):
                first = await anext(events, None)
    except TimeoutError as error:
        raise TeacherTimeout(f"The teacher '{call.name}' did not begin its answer in time.") from error
    if first is None:
        raise TeacherFailed(f"'{call.name}' answered with an empty stream.")
    check_first(data_of(first), call.name)
    return first


async def _ask(gateway: Gateway, started: Started) -> tuple[Answer, Asked]:
    try:
        async with asyncio.timeout(gateway.limits.total_seconds):
            return await gateway.tolerance.ask(started.target, started.body, wish=started.wish, stream=True)
    except TimeoutError as error:
        raise gateway.too_slow(started.call) from error
