"""The embedded engine: students attached by name, one thread that generates for all of them.

    attach(name, folder)   detach(name)   generate(request) -> token events   score(...)   stats()

Owns continuous batching: requests join and leave a student's running batch between steps. Works on token
ids; what a message is and how an answer is written in HTTP is the host's matter.

B running sequences, V vocabulary
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillroom.errors import InvalidRequest, ModelNotFound, StillroomError, StudentUnavailable, shortened
from stillroom.student.bases.base_models import Student, open_artefact
from stillroom.student.serving.kv_cache import BatchCache, PrefixCache
from stillroom.student.serving.sampling import Picked, Sampler, Sampling, top_of
from stillroom.student.serving.text_stream import Characters, Holdback

MAX_RUNNING = 32
"""Sequences of one student in a step; further ones wait."""
ADMISSIONS_A_STEP = 4
"""Prompts read between two steps, so that a burst of long prompts does not silence running answers."""


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    model: str
    """The name it was attached under."""
    prompt_ids: Sequence[int]
    max_tokens: int
    """Clipped to what the context has left."""
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class TokenEvent:
    """One generated token. `text` is what may be shown now: it lags behind where characters or stop strings span tokens."""

    token_id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    finish: FinishReason | None = None
    """Set on the last event only."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How likely a given token was behind those before it, and which were likeliest there."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Engine:
    """Methods are called from an event loop; models are touched by the engine's own thread alone."""

    def __init__(self) -> None:
        self._attached: dict[str, _Attached] = {}
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stillroom-engine", daemon=True)
        self._thread.start()

    async def attach(self, name: str, folder: Path) -> None:
        """Opens one of our model folders; a student of that name is replaced. `proving` asks it first who it is."""
        self.attach_student(name, await asyncio.to_thread(open_artefact, folder))

    def attach_student(self, name: str, student: Student) -> None:
        """Attaches a student that is open already; its adapter must be merged."""
        replaced, self._attached[name] = self._attached.get(name), _Attached(name, student)
        if replaced is not None:
            self._commands.put(replaced.abandon)

    async def detach(self, name: str) -> None:
        """Forgets a student; its running requests fail with StudentUnavailable."""
        attached = self.student_named(name)
        del self._attached[name]
        self._commands.put(attached.abandon)

    def student(self, name: str) -> Student:
        return self.student_named(name).student

    def student_named(self, name: str) -> _Attached:
        attached = self._attached.get(name)
        if attached is None:
            raise ModelNotFound(
                f"The model `{shortened(name)}` does not exist or you do not have access to it.", param="model"
            )
        return attached

    def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenEvent]:
        """Token events as they come; closing the iterator cancels. What is wrong with the request raises at once."""
        attached = self.student_named(request.model)
        room = attached.student.context_tokens - len(request.prompt_ids)
        if room < 1:
            raise InvalidRequest(
                f"This model's maximum context length is {attached.student.context_tokens} tokens. However, your "
                f"messages resulted in {len(request.prompt_ids)} tokens. Please reduce the length of the messages.",
                param="messages",
                code="context_length_exceeded",
            )
        return self._events(attached, request, max_tokens=min(room, request.max_tokens))

    async def score(self, name: str, token_ids: Sequence[int], start: int, k: int) -> list[Scored]:
        """For every token from `start` (at least 1) on: its log-probability and the k likeliest in its place."""
        if not 1 <= start < len(token_ids):
            raise InvalidRequest(f"'start' is {start}; it must be from 1 to {len(token_ids) - 1}.", param="start")
        attached = self.student_named(name)
        loop = asyncio.get_running_loop()
        scored: asyncio.Future[list[Scored]] = loop.create_future()

        def settle(result: list[Scored] | StillroomError) -> None:
            if scored.cancelled():
                return
            if isinstance(result, StillroomError):
                scored.set_exception(result)
            else:
                scored.set_result(result)

        def command() -> None:
            result = attached.score(token_ids, start, k)
            loop.call_soon_threadsafe(settle, result)

        self._commands.put(command)
        return await scored

    def stats(self) -> dict[str, dict[str, int]]:
        """Counters of each attached student since it was attached."""
        return {name: attached.stats() for name, attached in self._attached.items()}

    def close(self) -> None:
        """Ends the thread; running requests fail."""
        for attached in self._attached.values():
            self._commands.put(attached.abandon)
        self._commands.put(None)
        self._thread.join()

    async def _events(
        self, attached: _Attached, request: GenerateRequest, *, max_tokens: int
    ) -> AsyncGenerator[TokenEvent]:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[TokenEvent | StillroomError] = asyncio.Queue()

        def deliver(event: TokenEvent | StillroomError) -> None:
            # A loop that closed has nobody left to tell.
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        sequence = _Sequence(attached.student, request, max_tokens=max_tokens, deliver=deliver)
        self._commands.put(lambda: attached.enqueue(sequence))
        try:
            while True:
                event = await events.get()
                if isinstance(event, StillroomError):
                    raise event
                yield event
                if event.finish is not None:
                    return
        finally:
            sequence.cancelled = True

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                busy = [attached for attached in list(self._attached.values()) if attached.busy]
                if not self._take_commands(wait=not busy):
                    return
                for attached in busy:
                    attached.step()

    def _take_commands(self, *, wait: bool) -> bool:
        """Runs what was asked of the thread; false when it was asked to end."""
        while wait or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command()
            wait = False
        return True


class _Sequence:
    """One request on its way: chooses its tokens, watches for its end, tells its reader."""

    def __init__(
        self,
        student: Student,
        request: GenerateRequest,
        *,
        max_tokens: int,
        deliver: Callable[[TokenEvent | StillroomError], None],
    ) -> None:
        self.prompt_ids = list(request.prompt_ids)
        self.deliver = deliver
        self.cancelled = False
        self.finished = False
        self.last_id = -1
        self._sampler = Sampler(request.sampling)
        self._end_ids = student.template.end_ids
        self._left = max_tokens
        self._characters = Characters(student.template.tokenizer)
        self._holdback = Holdback(request.stop)

    @property
    def over(self) -> bool:
        return self.cancelled or self.finished

    def advance(self, logits_V: Tensor) -> None:
        """Takes the next token from the logits behind the last one."""
        picked = self._sampler.pick(logits_V)
        self.last_id = picked.token_id
        self._left -= 1
        if picked.token_id in self._end_ids:
            self._finish(picked, "", FinishReason.STOP)
            return
        text = self._holdback.push(self._characters.push(picked.token_id))
        if self._holdback.found:
            self._finish(picked, text, FinishReason.STOP)
        elif not self._left:
            self._finish(picked, text, FinishReason.LENGTH)
        else:
            self.deliver(_event(picked, text))

    def _finish(self, picked: Picked, text: str, reason: FinishReason) -> None:
        if not self._holdback.found:
            text += self._holdback.push(self._characters.finish())
            text += self._holdback.finish()
        self.finished = True
        self.deliver(_event(picked, text, reason))


class _Attached:
    """A student with its running batch and those who wait. Lives in the engine's thread."""

    def __init__(self, name: str, student: Student) -> None:
        self.name = name
        self.student = student
        student.model.eval()
        self._device = next(student.model.parameters()).device
        self._batch = BatchCache(student.model)
        self._running: list[_Sequence] = []
        self._waiting: deque[_Sequence] = deque()
        self._prefixes = PrefixCache()
        self._abandoned = False
        self._counts = dict.fromkeys(
            ("requests", "prompt_tokens", "cached_prompt_tokens", "generated_tokens", "steps"), 0
        )

    @property
    def busy(self) -> bool:
        return bool(self._running or self._waiting)

    def enqueue(self, sequence: _Sequence) -> None:
        if self._abandoned:
            sequence.deliver(self._gone())
            return
        self._counts["requests"] += 1
        self._waiting.append(sequence)

    def abandon(self) -> None:
        self._abandoned = True
        self._fail(self._gone())

    def step(self) -> None:
        """One token for every running sequence, after new ones were let in."""
        try:
            self._drop_finished()
            self._admit()
            self._decode()
        except (RuntimeError, MemoryError) as error:
            # Mostly memory. The requests of this student are lost, the others go on.
            self._fail(self._broken(error))

    def score(self, token_ids: Sequence[int], start: int, k: int) -> list[Scored] | StillroomError:
        try:
            return self._scored(token_ids, start, k)
        except (RuntimeError, MemoryError) as error:
            return self._broken(error)

    def _scored(self, token_ids: Sequence[int], start: int, k: int) -> list[Scored]:
        ids_1T = torch.tensor([list(token_ids)], device=self._device)
        kept = len(token_ids) - start + 1
        logits_TV = self.student.model(input_ids=ids_1T, use_cache=False, logits_to_keep=kept).logits[0, :-1]
        logprobs_TV = logits_TV.float().cpu().log_softmax(-1)
        return [
            Scored(token_id=token, logprob=float(logprobs_V[token]), top=top_of(logprobs_V, k))
            for token, logprobs_V in zip(token_ids[start:], logprobs_TV, strict=True)
        ]

    def stats(self) -> dict[str, int]:
        return {**self._counts, "running": len(self._running), "waiting": len(self._waiting)}

    def _drop_finished(self) -> None:
        self._waiting = deque(sequence for sequence in self._waiting if not sequence.cancelled)
        rows = [row for row, sequence in enumerate(self._running) if not sequence.over]
        if len(rows) < len(self._running):
            self._batch.keep(rows)
            self._running = [self._running[row] for row in rows]

    def _admit(self) -> None:
        for _ in range(ADMISSIONS_A_STEP):
            if not self._waiting or len(self._running) >= MAX_RUNNING:
                return
            sequence = self._waiting.popleft()
            self._read_prompt(sequence)

    def _read_prompt(self, sequence: _Sequence) -> None:
        """The prompt into the cache, as far as no earlier prompt began with it; and its first token."""
        ids = sequence.prompt_ids
        prefix, length = self._prefixes.longest(ids)
        own = BatchCache(self.student.model)
        own.start(prefix, length)
        logits_1V = own.forward(torch.tensor([ids[length:]], device=self._device))
        self._prefixes.add(ids, own.layers())
        self._count(prompt_tokens=len(ids), cached_prompt_tokens=length, generated_tokens=1)
        sequence.advance(logits_1V[0])
        if not sequence.over:
            self._batch.join(own)
            self._running.append(sequence)

    def _decode(self) -> None:
        if any(sequence.over for sequence in self._running):
            self._drop_finished()
        if not self._running:
            return
        ids_B1 = torch.tensor([[sequence.last_id] for sequence in self._running], device=self._device)
        logits_BV = self._batch.forward(ids_B1)
        self._count(generated_tokens=len(self._running), steps=1)
        for sequence, logits_V in zip(self._running, logits_BV, strict=True):
            sequence.advance(logits_V)

    def _count(self, **more: int) -> None:
        for name, amount in more.items():
            self._counts[name] += amount

    def _fail(self, error: StillroomError) -> None:
        for sequence in (*self._running, *self._waiting):
            sequence.finished = True
            sequence.deliver(error)
        self._running, self._waiting = [], deque()
        self._batch.keep([])

    def _broken(self, error: Exception) -> StudentUnavailable:
        return StudentUnavailable(f"The student {self.name} failed: {error}")

    def _gone(self) -> StudentUnavailable:
        return StudentUnavailable(f"The student {self.name} was detached.", param="model")


def _event(picked: Picked, text: str, finish: FinishReason | None = None) -> TokenEvent:
    return TokenEvent(token_id=picked.token_id, text=text, logprob=picked.logprob, top=picked.top, finish=finish)


def describe_token(student: Student, token_id: int) -> dict[str, Any]:
    """A token as OpenAI's logprobs write it: its bytes are its own even where they are no whole characters."""
    spelled = student.template.vocabulary.bytes_of(token_id)
    if not spelled:  # a control token, which writes nothing into an answer: its name
        spelled = str(student.template.tokenizer.decode([token_id], skip_special_tokens=False)).encode()
    return {"token": spelled.decode(errors="replace"), "bytes": list(spelled)}
