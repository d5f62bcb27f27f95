"""Soft labels on their way: who is asked for logprobs, and what the caller sees of those he did not ask for.

What a teacher sends stays as it is, byte for byte, but for the values of `logprobs`: null for a caller
who asked for none, and no more alternatives than he asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from stillroom.chat import ChatRequest

KEY = re.compile(rb'"logprobs"\s*:\s*')  # inside of a text its quotes would have backslashes
NONE = b"null"
KINDS = ("content", "refusal")


class _Choice(msgspec.Struct):
    logprobs: msgspec.Raw = msgspec.Raw(NONE)


class _Choices(msgspec.Struct):
    choices: list[_Choice]


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

    def shown(self, data: bytes, payload: bytes) -> bytes | None:
        """An answer's or an event's bytes as the caller sees them; `payload` is the JSON in them. None when the
        JSON is spread over them in such a way that its parts are not found."""
        if self.shows_all:
            return data
        parts, at = [], 0
        keys = KEY.finditer(data)
        for told in _told(payload):
            end = next((key.end() for key in keys if key.end() >= at and data.startswith(told, key.end())), None)
            if end is None:
                return None
            parts += [data[at:end], self._cut(told)]
            at = end + len(told)
        return b"".join([*parts, data[at:]])

    def hide(self, answer: dict[str, Any]) -> list[Any]:
        """Makes a parsed completion, or chunk, what the caller sees; gives what its first choice had."""
        content: list[Any] = []
        for number, choice in enumerate(answer.get("choices") or ()):
            told = choice.get("logprobs")
            if told is None:
                continue
            if not number and isinstance(told, dict) and isinstance(told.get("content"), list):
                content = told["content"]
            if not self.shows_all:
                choice["logprobs"] = msgspec.json.decode(self._cut(msgspec.json.encode(told)))
        return content

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


def _told(payload: bytes) -> Iterator[bytes]:
    """Each choice's logprobs as they are spelled, but for those that are null."""
    try:
        choices = msgspec.json.decode(payload, type=_Choices).choices
    except msgspec.ValidationError:
        return  # an error, or the like: it has no choices
    yield from (told for told in (bytes(choice.logprobs) for choice in choices) if told != NONE)


def _cut(positions: msgspec.Raw, most: int) -> Iterator[dict[str, msgspec.Raw | list[msgspec.Raw]]]:
    for position in msgspec.json.decode(positions, type=list[dict[str, msgspec.Raw]]):
        if bytes(position.get("top_logprobs", NONE)) == NONE:
            yield {**position}
        else:
            top = msgspec.json.decode(position["top_logprobs"], type=list[msgspec.Raw])
            yield {**position, "top_logprobs": top[:most]}
