"""Soft labels on their way: who is asked for logprobs, and what the caller sees of those he did not ask for.

What a teacher sends stays as it is, byte for byte, but for the values of `logprobs`: null for a caller
who asked for none, and no more alternatives than he asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from stillroom.chat import ChatRequest

KEY = re.compile(rb'"logprobs"\s*:\s*')  # inside of a text its quotes would have backslashes
NONE, FIRST = b"null", b"0"
KINDS = ("content", "refusal")


class _Choice(msgspec.Struct):
    index: msgspec.Raw = msgspec.Raw(FIRST)
    logprobs: msgspec.Raw = msgspec.Raw(NONE)


class _Choices(msgspec.Struct):
    choices: list[_Choice]


@dataclass(frozen=True, kw_only=True)
class Parted:
    """What the caller sees of an answer's or event's bytes, and the logprobs of its first choice as they are spelled,
    if it has some. `shown` is None when the JSON is spread over the bytes in such a way that its parts are not found."""

    shown: bytes | None
    told: bytes | None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """That so many alternatives are kept at each token. `own`: how many the caller asked to see; None when
    he asked for no logprobs at all."""

    alternatives: int
    own: int | None

    @property
    def shows_all(self) -> bool:
        """Whether the caller sees what the teacher is asked for."""
        return self.own is not None and self.own >= self.alternatives

    def part(self, data: bytes, payload: bytes) -> Parted:
        """Takes an answer or an event apart; `payload` is the JSON in its bytes. Nothing is parsed that need not be:
        logprobs are a hundred times larger than the answer."""
        choices = _choices(payload)
        told = [(bytes(choice.index), bytes(choice.logprobs)) for choice in choices if bytes(choice.logprobs) != NONE]
        first = next((logprobs for index, logprobs in told if index == FIRST), None)
        shown = data if self.shows_all else self._shown(data, [logprobs for _, logprobs in told])
        return Parted(shown=shown, told=first)

    def hide(self, answer: Mapping[str, Any]) -> None:
        """Makes a parsed answer or chunk what the caller sees."""
        for choice in answer.get("choices") or ():
            if choice.get("logprobs") is not None and not self.shows_all:
                choice["logprobs"] = msgspec.json.decode(self._cut(msgspec.json.encode(choice["logprobs"])))

    def _shown(self, data: bytes, every: Sequence[bytes]) -> bytes | None:
        parts, at = [], 0
        keys = KEY.finditer(data)
        for told in every:
            end = next((key.end() for key in keys if key.end() >= at and data.startswith(told, key.end())), None)
            if end is None:
                return None
            parts += [data[at:end], self._cut(told)]
            at = end + len(told)
        return b"".join([*parts, data[at:]])

    def _cut(self, told: bytes) -> bytes:
        if self.own is None:
            return NONE
        try:
            fields = msgspec.json.decode(told, type=dict[str, msgspec.Raw])
            cut = {name: [*_cut(fields[name], self.own)] for name in KINDS if bytes(fields.get(name, NONE)) != NONE}
        except msgspec.ValidationError:
            return told  # of no shape that could be cut
        return msgspec.json.encode({**fields, **cut})


def wish_of(request: ChatRequest, usual: int) -> Wish | None:
    """What is to be kept of the answer's logprobs; None for nothing. `usual`: so many alternatives, when the
    caller does not say."""
    alternatives = usual if request.top_logprobs is None else request.top_logprobs
    if not alternatives or not request.store:
        return None
    asked, own = request.body.get("logprobs"), request.body.get("top_logprobs")
    if asked is True and (own is None or (isinstance(own, int) and not isinstance(own, bool))):
        return Wish(alternatives=alternatives, own=own or 0)
    if asked in (None, False) and own is None:
        return Wish(alternatives=alternatives, own=None)
    return None  # of a kind that the teacher must judge


def parse(data: bytes) -> Any:
    """The JSON of an answer, its logprobs left as they are spelled. They are read through token by token: in a thread
    of its own, that leaves others their turns. Raises what msgspec raises."""
    told = {place: choice.logprobs for place, choice in enumerate(_choices(data)) if bytes(choice.logprobs) != NONE}
    bare = Wish(alternatives=1, own=None).part(data, data).shown if told else None
    if bare is None:
        return msgspec.json.decode(data)
    answer = msgspec.json.decode(bare)
    for place, logprobs in told.items():
        _read_through(logprobs)
        answer["choices"][place]["logprobs"] = logprobs
    return answer


def _read_through(told: msgspec.Raw) -> None:
    """What is stored unread must be sound in its texts, too, which the spelling alone does not show."""
    try:
        fields = msgspec.json.decode(told, type=dict[str, list[msgspec.Raw] | None])
    except msgspec.ValidationError:
        msgspec.json.decode(told)  # of another shape
    else:
        for entry in chain.from_iterable(each or () for each in fields.values()):
            msgspec.json.decode(entry)


def _choices(payload: bytes) -> list[_Choice]:
    try:
        return msgspec.json.decode(payload, type=_Choices).choices
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []  # an error, or the like: it has none, or whoever parses it will say so


def _cut(positions: msgspec.Raw, most: int) -> Iterator[dict[str, msgspec.Raw | list[msgspec.Raw]]]:
    for position in msgspec.json.decode(positions, type=list[dict[str, msgspec.Raw]]):
        if bytes(position.get("top_logprobs", NONE)) == NONE:
            yield {**position}
        else:
            top = msgspec.json.decode(position["top_logprobs"], type=list[msgspec.Raw])
            yield {**position, "top_logprobs": top[:most]}
