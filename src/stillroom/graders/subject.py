"""What a grader looks at: one item of the data set and, when there is one, the model's answer to it.

A sample has the fields that templates and python graders read: `output_text`, `output_json`,
`output_tools`, `choices`, and what the completion tells of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

TOLD = ("model", "usage", "id", "created")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One item and the answer to it; `sample` is None when nothing was answered."""

    item: Mapping[str, Any]
    sample: Mapping[str, Any] | None = None


def sample_of(text: str) -> dict[str, Any]:
    """The sample that a bare answer makes; `output_json` is None unless the whole text is JSON."""
    message = {"role": "assistant", "content": text}
    return {
        "output_text": text,
        "output_json": _parsed(text),
        "output_tools": [],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "finish_reason": "stop",
    }


def sample_of_completion(completion: Mapping[str, Any]) -> dict[str, Any]:
    """The sample that a chat completion makes: its first choice counts, `choices` has them all."""
    choices = completion.get("choices") or [{}]
    message = choices[0].get("message") or {}
    text = text_of(message)
    told = {name: completion[name] for name in TOLD if completion.get(name) is not None}
    return {
        **told,
        "output_text": text,
        "output_json": _parsed(text),
        "output_tools": message.get("tool_calls") or [],
        "choices": choices,
        "finish_reason": choices[0].get("finish_reason"),
    }


def text_of(message: Mapping[str, Any]) -> str:
    """What a message says in words; empty when it only calls tools."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
