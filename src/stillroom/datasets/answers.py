"""What of a stored answer goes into a training row: its words, its reasoning, its soft labels.

A teacher that thinks aloud tells its thoughts in a field of their own, or in its text before the answer, between
`<think>` and `</think>`. Soft labels follow the text that is kept: where the row's text is not the teacher's, byte
for byte, there are positions without alternatives, so that all others stay in their places.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillroom import logprobs
from stillroom.chat import parted
from stillroom.completions.conversations import answer_of, first_choice
from stillroom.logprobs import IMPOSSIBLE, Position

THOUGHTS = ("reasoning_content", "reasoning")
OPENING, CLOSING = "<think>\n", "\n</think>\n\n"


class Reasoning(enum.StrEnum):
    """Whether the teacher's reasoning stays in a row, between `<think>` and `</think>` before the answer."""

    STRIP = "strip"
    KEEP = "keep"


@dataclass(frozen=True, kw_only=True)
class Style:
    """How answers become rows. `soft_labels`: with what the teacher weighed at each token, where that is kept."""

    reasoning: Reasoning = Reasoning.STRIP
    soft_labels: bool = False


PLAIN = Style()


def message_of(response: Mapping[str, Any], style: Style = PLAIN, labels: bytes | None = None) -> dict[str, Any] | None:
    """The assistant message that a row ends with: the first choice's. None when it has neither text nor calls.
    `labels`: its packed soft labels, if some are kept."""
    choice = first_choice(response)
    said = answer_of(choice)
    thoughts, content = _parted(said)
    calls = {name: said[name] for name in ("tool_calls", "function_call") if said.get(name) is not None}
    if not content and not any(calls.values()):
        return None
    pieces = [content]
    if thoughts and style.reasoning is Reasoning.KEEP and isinstance(content, str | None):
        pieces = [OPENING, thoughts.strip(), CLOSING, content or ""]
        content = "".join(map(str, pieces))
    message = {"role": "assistant", **({} if content is None else {"content": content}), **calls}
    if style.soft_labels and isinstance(content, str):
        told = _labels(choice, labels)
        if fit := fitting(told, [str(piece) for piece in pieces]):
            message["logprobs"] = logprobs.as_text(logprobs.packed(fit))
    return message


def has_labels(response: Mapping[str, Any]) -> bool:
    """Whether the answer's own text has alternatives, because its caller asked for them."""
    return any(isinstance(each, dict) and each.get("top_logprobs") for each in _content(first_choice(response)))


def _parted(said: Mapping[str, Any]) -> tuple[str, Any]:
    """The thoughts and the answer. One that broke off while thinking has no answer."""
    content: Any = said.get("content")
    told = next((said[name] for name in THOUGHTS if isinstance(said.get(name), str)), "")
    if not isinstance(content, str):
        return told, content
    thoughts, answer = parted(content)
    return told or thoughts, answer


def _labels(choice: Mapping[str, Any], labels: bytes | None) -> list[Position]:
    if labels is not None:
        return logprobs.unpack(labels)
    found = logprobs.positions(_content(choice))
    return found if any(position.top for position in found) else []


def _content(choice: Mapping[str, Any]) -> Sequence[Any]:
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    return content if isinstance(content, list) else ()


def fitting(told: Sequence[Position], pieces: Sequence[str]) -> list[Position]:
    """The positions that spell the pieces, one after the other; none where the last is not what the teacher said."""
    said = b"".join(position.token for position in told)
    *before, answer = (piece.encode(errors="replace") for piece in pieces)
    last = said.rfind(answer)
    if not answer or last < 0:
        return []
    found: list[Position] = []
    at = 0
    for piece in before:
        place = said.find(piece, at, last)
        found += _part(told, place, piece)
        at = at if place < 0 else place + len(piece)
    return [*found, *_part(told, last, answer)]


def _part(told: Sequence[Position], place: int, text: bytes) -> Iterator[Position]:
    """The positions of this text, which stands there in what the teacher said, or, at -1, does not."""
    if place < 0:
        yield Position(text, IMPOSSIBLE, ())
        return
    at, end = 0, place + len(text)
    for position in told:
        begins, at = at, at + len(position.token)
        if begins >= place and at <= end and begins < end:
            yield position
        elif begins < end and at > place:  # a token that is only partly in it says nothing of that part
            yield Position(position.token[max(0, place - begins) : end - begins], IMPOSSIBLE, ())
