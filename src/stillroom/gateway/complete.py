"""One answer: find who gives it, ask, meter, store, and only then hand it on.

An answer that its caller names with an idempotency key is made once: it is kept with its ledger row,
and every repeat gets what was kept.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from stillroom import billing, chat, ids
from stillroom.chat import ChatRequest, Usage
from stillroom.clock import Clock
from stillroom.completions import kept
from stillroom.completions.kept import KeptAnswer, KeptAnswers
from stillroom.completions.recorder import Recorder
from stillroom.completions.table import NewCompletion, Status
from stillroom.config import GatewaySettings
from stillroom.errors import TeacherFailed, TeacherTimeout
from stillroom.gateway import soft_labels
from stillroom.gateway.ask import passed_headers
from stillroom.gateway.once import Once, other_request
from stillroom.gateway.soft_labels import Wish, wish_of
from stillroom.gateway.tolerance import Asked, Tolerance
from stillroom.serving.models import Models, Target


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request and who makes it. `by_model_name`: fine-tuned models answer undeployed too.
    `idempotency_key`: the caller's name for this answer, under which it is made once; not for streams.
    `run`: the eval run that asks, by a key lent to it. `target`: who is to answer, whatever the name stands for."""

    request: ChatRequest
    name: str
    project: int
    key_id: str
    request_id: str
    by_model_name: bool
    idempotency_key: str | None = None
    run: str | None = None
    target: Target | None = None

    def digest(self) -> bytes:
        """What is asked, and of whom: two calls that differ only in the JSON's spelling have the same.
        The model in the body does not count where another name is called."""
        asked = {**self.request.body, "model": self.name}
        return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()


@dataclass(frozen=True, kw_only=True)
class Completed:
    """The answer's bytes, and the upstream's headers that are passed on. `replayed`: the answer was
    there before this call."""

    body: bytes
    headers: Mapping[str, str]
    replayed: bool = False


@dataclass(frozen=True, kw_only=True)
class Started:
    """What is known of an answer before it is there. The number is minted first, so that the id in
    the answer, the stored row and the order of rows agree."""

    call: Call
    target: Target
    number: int
    at: float
    monotonic: float
    wish: Wish | None
    """What is to be kept of the answer's logprobs."""
    drops_prompt: bool
    """Whether who answers knows the call's system prompt by heart, and is asked without it."""

    def body(self, asked: Asked) -> bytes:
        """The request as it is sent to who answers."""
        return self.call.request.forwarded(
            self.target.upstream_model,
            ask_usage=asked.usage,
            top_logprobs=asked.top_logprobs,
            without_prompt=self.drops_prompt,
        )


class Gateway:
    """What every answer needs; the streaming twin of `complete` is in `stream.py`."""

    def __init__(
        self, models: Models, recorder: Recorder, kept_answers: KeptAnswers, limits: GatewaySettings, clock: Clock
    ) -> None:
        self.models = models
        self.limits = limits
        self._recorder = recorder
        self._kept_answers = kept_answers
        self._once: Once[Completed] = Once()
        self._clock = clock
        self._numbers = ids.OrderedNumbers()
        # Held by whoever makes the answer, so that however he ends, it is gone from here.
        self._being_made: WeakValueDictionary[int, Started] = WeakValueDictionary()
        self.tolerance = Tolerance(limits, clock.monotonic)

    async def complete(self, call: Call) -> Completed:
        """The whole answer; stored, when asked for, before this returns.

        With an idempotency key it is kept before this returns, and goes on being made when the caller
        leaves. Raises Conflict when the key was used for another request.
        """
        if call.idempotency_key is None:
            return await self._complete(call)
        digest = call.digest()
        place = (call.project, call.idempotency_key)
        done, joined = await self._once.run(place, digest, lambda: self._complete_once(call, digest))
        return replace(done, headers={}, replayed=True) if joined else done

    async def close(self) -> None:
        """Lets answers end whose callers have left; not for long."""
        await self._once.close()

    async def _complete_once(self, call: Call, digest: bytes) -> Completed:
        assert call.idempotency_key is not None
        found = await asyncio.to_thread(self._kept_answers.find, call.project, call.idempotency_key)
        if found is None:
            return await self._complete(call, digest)
        if found.request_hash != digest:
            raise other_request(call.idempotency_key)
        return Completed(body=found.body, headers={}, replayed=True)

    async def _complete(self, call: Call, digest: bytes = b"") -> Completed:
        started = await self.start(call)
        try:
            async with asyncio.timeout(self.limits.total_seconds):
                answer, _ = await self.tolerance.ask(started.target, started.body, wish=started.wish, stream=False)
                try:
                    data = await answer.read()
                finally:
                    answer.close()
        except TimeoutError as error:
            raise self.too_slow(call) from error
        if started.wish is None and not call.request.body.get("logprobs"):
            completion, told = _parse(data, call.name), list[bytes]()
        else:  # some megabytes, maybe, for which everybody else would wait
            completion, data, told = await asyncio.to_thread(_read, data, started.wish, call.name)
        if call.request.store:
            data = _with_our_id(data, completion, ids.completion_id(started.number))
        now, answered = self._clock.monotonic(), _kept(call, digest, data)
        await self.settle(started, completion, Status.COMPLETED, now, answered, told)
        return Completed(body=data, headers=passed_headers(answer.headers))

    async def start(self, call: Call) -> Started:
        """Resolves who answers. Raises ModelNotFound."""
        target = call.target or await self.models.resolve(call.project, call.name, by_model_name=call.by_model_name)
        started = Started(
            call=call,
            target=target,
            number=self._numbers.mint(),
            at=self._clock.now(),
            monotonic=self._clock.monotonic(),
            wish=wish_of(call.request, target.top_logprobs),
            drops_prompt=target.dropped_prompt is not None and call.request.begins_with(target.dropped_prompt),
        )
        self._being_made[started.number] = started
        return started

    def being_made(self, project: int) -> list[int]:
        """The numbers of the project's answers that are not there yet. In any thread."""
        started = [reference() for reference in self._being_made.valuerefs()]
        return [one.number for one in started if one is not None and one.call.project == project]

    async def settle(
        self,
        started: Started,
        completion: Mapping[str, Any],
        status: Status,
        first_token: float,
        answer: KeptAnswer | None = None,
        logprobs: Sequence[bytes] = (),
    ) -> None:
        """Meters the answer and, when it is to be stored or kept, waits until it is. `logprobs`: of its
        first choice, to be kept with it."""
        committed = self.keep(started, completion, status, first_token, answer, logprobs)
        if committed is not None:
            await asyncio.shield(asyncio.wrap_future(committed))

    def keep(
        self,
        started: Started,
        completion: Mapping[str, Any],
        status: Status,
        first_token: float,
        answer: KeptAnswer | None = None,
        logprobs: Sequence[bytes] = (),
    ) -> Future[None] | None:
        """Meters the answer and begins storing it; None when it is neither to be stored nor kept."""
        usage = chat.usage_of(completion, started.call.request)
        entry = self._entry(started, usage)
        store = started.call.request.store
        if not store and answer is None:
            self._recorder.meter(entry, started.target.price)
            return None
        new = self._new_completion(started, completion, status, first_token, usage) if store else None
        return self._recorder.keep(entry, started.target.price, new=new, answer=answer, logprobs=logprobs)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def too_slow(self, call: Call) -> TeacherTimeout:
        return TeacherTimeout(f"'{call.name}' did not finish its answer within {self.limits.total_seconds:g} seconds.")

    def _new_completion(
        self, started: Started, completion: Mapping[str, Any], status: Status, first_token: float, usage: Usage
    ) -> NewCompletion:
        call = started.call
        return NewCompletion(
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

    def _milliseconds(self, started: Started, until: float) -> int:
        return max(0, round((until - started.monotonic) * 1000))

    def _entry(self, started: Started, usage: Usage) -> billing.Entry:
        return billing.Entry(
            project=started.call.project,
            kind=billing.Kind.EVALUATION if started.call.run else billing.Kind.ANSWER,
            model=started.target.model,
            deployment=started.call.name,
            subject=started.call.run or ids.completion_id(started.number),
            key_id=started.call.key_id,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            saved_tokens=started.target.dropped_prompt_tokens if started.drops_prompt else 0,
            estimated=usage.estimated,
        )


def _kept(call: Call, digest: bytes, body: bytes) -> KeptAnswer | None:
    if call.idempotency_key is None:
        return None
    return kept.pack(project=call.project, key=call.idempotency_key, request_hash=digest, body=body)


def _parse(data: bytes, name: str) -> dict[str, Any]:
    try:
        completion = soft_labels.parse(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        start = data[:60].decode(errors="replace")
        raise TeacherFailed(f"'{name}' answered with something that is not JSON; it starts with {start!r}.") from error
    if not chat.is_completion(completion):
        raise TeacherFailed(f"'{name}' answered with JSON that is not a chat completion.")
    return dict(completion)


def _read(data: bytes, wish: Wish | None, name: str) -> tuple[dict[str, Any], bytes, list[bytes]]:
    """The answer as its caller sees it, parsed too, and the logprobs of its first choice that are to be kept."""
    shown, told = (data, list[bytes]()) if wish is None else _parted(data, wish, name)
    return _parse(shown, name), shown, told


def _parted(data: bytes, wish: Wish, name: str) -> tuple[bytes, list[bytes]]:
    """The answer as its caller sees it, and the logprobs of its first choice."""
    parted = wish.part(data, data)
    shown = parted.shown
    if shown is None:
        completion = _parse(data, name)
        wish.hide(completion)
        shown = msgspec.json.encode(completion)
    return shown, [] if parted.told is None else [parted.told]


def _with_our_id(data: bytes, completion: dict[str, Any], our_id: str) -> bytes:
    theirs, completion["id"] = completion.get("id"), our_id
    if not isinstance(theirs, str):
        return msgspec.json.encode(completion)
    return chat.replace_id(data, msgspec.json.encode(theirs), msgspec.json.encode(our_id))
