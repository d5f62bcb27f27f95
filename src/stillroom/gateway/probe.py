"""What a teacher can do beyond answering, found out by asking it small real questions.

Each question is an ordinary call: it goes the ordinary way, is metered like any other, and is not stored. What
a teacher says about itself is not believed, nor what is said about it; only what it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from stillroom import billing, chat
from stillroom.chat import MOST_TOP_LOGPROBS
from stillroom.completions.conversations import answer_of, first_choice
from stillroom.errors import TeacherFailed, TeacherRefused, shortened
from stillroom.gateway.complete import Call, Gateway
from stillroom.gateway.events import data_of
from stillroom.gateway.stream import open_stream
from stillroom.logprobs import MOST_SUM

QUESTION = "What is the capital of Japan? Answer with the one word 東京."
ALTERNATIVES = (MOST_TOP_LOGPROBS, 5, 1)
TOKENS = 32
THINKING_TOKENS = 1024  # for a teacher that thinks first, and knows no max_tokens


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that a teacher can or cannot do, and in a sentence how that showed. `can` is None where it could
    not be found out."""

    name: str
    can: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a probe found. `top_logprobs`: the most alternatives that the teacher gave; 0 for none. `calls` were
    answered, and are in the ledger; those that were refused cost nothing."""

    teacher: str
    checks: list[Check]
    top_logprobs: int
    calls: int
    cost_picousd: int
    advice: str


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """An answer, or why there is none."""

    completion: Mapping[str, Any] | None
    reason: str = ""

    @property
    def content(self) -> list[Mapping[str, Any]]:
        """What it says of its tokens' probabilities."""
        told = first_choice(self.completion or {}).get("logprobs")
        content = told.get("content") if isinstance(told, dict) else None
        return [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []

    @property
    def alternatives(self) -> int:
        return max((len(_top(entry)) for entry in self.content), default=0)

    @property
    def thinks_on(self) -> bool:
        """Whether its tokens were used up before it said anything."""
        choice = first_choice(self.completion or {})
        return choice.get("finish_reason") == "length" and not answer_of(choice).get("content")

    @property
    def usage_told(self) -> bool:
        return isinstance((self.completion or {}).get("usage"), dict)


async def probe(gateway: Gateway, call: Call) -> Found:
    """Asks the call's teacher. The call's own request is the first question, see `first_question`."""
    asker = _Asker(gateway, call)
    plain = await asker.ask()
    if "max_tokens" in plain.reason:
        asker.more = {"max_completion_tokens": THINKING_TOKENS}
        plain = await asker.ask()
    elif plain.thinks_on:
        asker.more = {"max_tokens": THINKING_TOKENS}
        plain = await asker.ask()
    checks = [_answers(plain)]
    most = 0
    if plain.completion is not None:
        weighed, refusals = await _weighed(asker)
        most = weighed.alternatives
        asked = {"logprobs": True, "top_logprobs": most} if most else {}
        streamed = await asker.ask(stream=True, stream_options={"include_usage": True}, **asked)
        checks += [
            _usage(plain, "usage", "answers"),
            *_logprobs(weighed, refusals),
            _streams(streamed),
            _usage(streamed, "stream_usage", "streams"),
            _stream_logprobs(streamed, most),
            _reasoning(plain),
        ]
    return Found(
        teacher=call.name,
        checks=checks,
        top_logprobs=most,
        calls=asker.calls,
        cost_picousd=asker.cost_picousd,
        advice=_advice(call, checks, most),
    )


def first_question(model: str) -> chat.ChatRequest:
    """What a teacher is asked first."""
    return _request({"model": model, "messages": [{"role": "user", "content": QUESTION}]})


class _Asker:
    """Asks questions that differ from the first in some fields, and adds up what they cost."""

    def __init__(self, gateway: Gateway, call: Call) -> None:
        self.more: dict[str, Any] = {"max_tokens": TOKENS}
        self.calls = self.cost_picousd = 0
        self._gateway = gateway
        self._call = call

    async def ask(self, **more: Any) -> _Heard:
        call = replace(self._call, request=_request({**self._call.request.body, **self.more, **more}))
        try:
            completion = await (self._streamed(call) if call.request.stream else self._whole(call))
        except TeacherRefused as refusal:
            return _Heard(completion=None, reason=f"status {refusal.details['status']}: {shortened(refusal.message)}")
        except TeacherFailed as failure:
            return _Heard(completion=None, reason=shortened(failure.message))
        self._count(completion, call.request)
        return _Heard(completion=completion)

    async def _whole(self, call: Call) -> Mapping[str, Any]:
        done = await self._gateway.complete(call)
        completion: dict[str, Any] = msgspec.json.decode(done.body)
        return completion

    async def _streamed(self, call: Call) -> Mapping[str, Any]:
        """The answer that the stream spells. Raises TeacherFailed when it breaks off."""
        opened, first = await open_stream(self._gateway, call)
        events: list[bytes] = []

        async def take(event: bytes) -> None:
            events.append(event)

        await opened.pump(first, take)
        chunks = list(_chunks(events))
        if failed := [chunk["error"] for chunk in chunks if "error" in chunk]:
            raise TeacherFailed(str(failed[0].get("message") if isinstance(failed[0], dict) else failed[0]))
        return chat.completion_from_chunks(chunks)

    def _count(self, completion: Mapping[str, Any], request: chat.ChatRequest) -> None:
        usage = chat.usage_of(completion, request)
        entry = billing.Entry(
            project=self._call.project,
            kind=billing.Kind.ANSWER,
            model=self._call.name,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )
        self.calls += 1
        if self._call.target is not None:
            self.cost_picousd += billing.cost_picousd(entry, self._call.target.price)


async def _weighed(asker: _Asker) -> tuple[_Heard, list[str]]:
    """The answer with the most alternatives that can be had, and why there are no more."""
    refusals: list[str] = []
    for alternatives in ALTERNATIVES:
        heard = await asker.ask(logprobs=True, top_logprobs=alternatives)
        if heard.completion is not None:
            return heard, refusals
        refusals.append(f"{alternatives}: {heard.reason}")
    return heard, refusals


def _answers(heard: _Heard) -> Check:
    said = f"It said: {shortened(str(answer_of(first_choice(heard.completion or {})).get('content')))}"
    return Check(
        name="answers",
        can=heard.completion is not None,
        detail=heard.reason if heard.completion is None else said,
    )


def _usage(heard: _Heard, name: str, where: str) -> Check:
    if heard.completion is None:
        return Check(name=name, can=None, detail="There was no answer to look at.")
    detail = "Tokens are counted as the teacher reports them."
    if not heard.usage_told:
        detail = f"Its {where} come without `usage`: tokens are estimated from the bytes, and so is the cost."
    return Check(name=name, can=heard.usage_told, detail=detail)


def _logprobs(heard: _Heard, refusals: Sequence[str]) -> Iterator[Check]:
    most = heard.alternatives
    refused = " Refused with " + "; ".join(refusals) if refusals else ""
    if heard.completion is None:
        yield Check(name="logprobs", can=False, detail=f"It refuses `logprobs`.{refused}")
    elif not heard.content:
        yield Check(name="logprobs", can=False, detail=f"It takes no notice of `logprobs`: none came.{refused}")
    else:
        yield Check(name="logprobs", can=True, detail=f"They came with {len(heard.content)} tokens.")
        yield Check(
            name="top_logprobs",
            can=most > 0,
            detail=f"At most {most} alternatives came with a token.{refused}" if most else "No alternatives came.",
        )
        yield _bytes(heard)
        yield _sums(heard)


def _bytes(heard: _Heard) -> Check:
    listed = [entry.get("bytes") for entry in heard.content]
    if not all(isinstance(each, list) for each in listed):
        detail = "Its tokens lack `bytes`: their text is taken, which is not enough where a letter is several tokens."
        return Check(name="bytes", can=False, detail=detail)
    said = str(answer_of(first_choice(heard.completion or {})).get("content") or "").encode()
    spelled = said in b"".join(map(_spelled, listed))
    detail = "The bytes of its tokens spell the answer."
    if not spelled:
        detail = "The bytes of its tokens do not spell the answer: soft labels cannot be laid beside it."
    return Check(name="bytes", can=spelled, detail=detail)


def _sums(heard: _Heard) -> Check:
    """Whether the alternatives' probabilities can be some."""
    most = max(sum(_probability(other) for other in _top(entry)) for entry in heard.content)
    right = most <= MOST_SUM
    detail = f"The alternatives' probabilities add up to {most:.3f} at most."
    return Check(name="probabilities", can=right, detail=detail if right else f"{detail} They cannot be probabilities.")


def _streams(heard: _Heard) -> Check:
    detail = "It streams." if heard.completion is not None else f"Its stream failed: {heard.reason}"
    return Check(name="stream", can=heard.completion is not None, detail=detail)


def _stream_logprobs(heard: _Heard, most: int) -> Check:
    if not most or heard.completion is None:
        why = "It gives no alternatives at all." if not most else "There was no stream to look at."
        return Check(name="stream_logprobs", can=False if not most else None, detail=why)
    detail = f"Streams have {heard.alternatives} alternatives a token."
    if not heard.alternatives:
        detail = "Its streams come without: soft labels are kept of answers that are not streamed."
    return Check(name="stream_logprobs", can=heard.alternatives > 0, detail=detail)


def _reasoning(heard: _Heard) -> Check:
    said = answer_of(first_choice(heard.completion or {}))
    fields = [name for name in ("reasoning_content", "reasoning") if isinstance(said.get(name), str)]
    if str(said.get("content") or "").lstrip().startswith("<think>"):
        fields.append("<think>")
    detail = f"It tells it in `{fields[0]}`." if fields else "It told none with this answer."
    return Check(name="reasoning", can=True if fields else None, detail=detail)


def _advice(call: Call, checks: Sequence[Check], most: int) -> str:
    cannot = {check.name for check in checks if check.can is False}
    if "answers" in cannot:
        return f"'{call.name}' did not answer. Correct its table in the configuration, or try again later."
    if not most:
        return f"'{call.name}' cannot give soft labels. Its answers can be imitated as they are."
    if cannot & {"bytes", "probabilities"}:
        return f"'{call.name}' gives logprobs that cannot be learned from. Leave its top_logprobs at 0."
    configured = 0 if call.target is None else call.target.top_logprobs
    if configured == most:
        return f"'{call.name}' is asked for all the alternatives that it gives."
    return f'To keep soft labels of stored answers, set top_logprobs = {most} below [teachers."{call.name}"].'


def _request(body: dict[str, Any]) -> chat.ChatRequest:
    return chat.parse_request(msgspec.json.encode(body))


def _chunks(events: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    payloads = [data_of(event) for event in events]
    yield from (msgspec.json.decode(payload) for payload in payloads if payload and payload != chat.DONE)


def _top(entry: Mapping[str, Any]) -> list[Any]:
    top = entry.get("top_logprobs")
    return top if isinstance(top, list) else []


def _spelled(listed: Any) -> bytes:
    try:
        return bytes(listed)
    except (TypeError, ValueError):
        return b""


def _probability(entry: Any) -> float:
    logprob = entry.get("logprob") if isinstance(entry, dict) else None
    return math.exp(min(logprob, 20.0)) if isinstance(logprob, (int, float)) else 0.0
