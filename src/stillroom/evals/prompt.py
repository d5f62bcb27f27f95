"""A run's messages with variables: read once, rendered for each item as a chat completion's messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillroom.errors import InvalidRequest
from stillroom.graders.subject import Subject
from stillroom.graders.template import Reference, Template, resolve

ROLES = ("system", "developer", "user", "assistant")
# What a stored request brings along when its prompt is put to another model.
REPEATED = ("tools", "tool_choice", "parallel_tool_calls", "response_format")
TEXT_PARTS = ("input_text", "output_text", "text")

Prompt = Callable[[Subject], list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class _Image:
    address: Template
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class _Message:
    role: str
    parts: tuple[Template | _Image, ...]
    is_text: bool

    def render(self, subject: Subject) -> dict[str, Any]:
        parts = [_rendered(part, subject) for part in self.parts]
        return {"role": self.role, "content": parts[0]["text"] if self.is_text else parts}


def referred(reference: str, *, param: str) -> Prompt:
    """The messages that stand in the item. Raises InvalidRequest when the reference is none."""
    path = Reference.read(reference, param=param)

    def messages(subject: Subject) -> list[dict[str, Any]]:
        found = resolve(path, subject)
        if isinstance(found, str):
            return [{"role": "user", "content": found}]
        if not isinstance(found, list) or not found or not all(isinstance(one, Mapping) for one in found):
            raise InvalidRequest(f"{reference} is no list of messages in this item.", param=param)
        return [dict(one) for one in found]

    return messages


def templated(template: Sequence[Any], *, param: str) -> Prompt:
    """The template's messages. Raises InvalidRequest naming what is wrong in it."""
    if not template:
        raise InvalidRequest(f"'{param}' has no messages.", param=param)
    messages = [_message(one, f"{param}[{position}]") for position, one in enumerate(template)]
    return lambda subject: [message.render(subject) for message in messages]


def _message(value: Any, param: str) -> _Message:
    if not isinstance(value, Mapping) or value.get("role") not in ROLES:
        raise InvalidRequest(
            f"'{param}' must be a message with a role ({', '.join(ROLES)}) and a content.", param=f"{param}.role"
        )
    content = value.get("content")
    parts = content if isinstance(content, list) else [content]
    if not parts:
        raise InvalidRequest(f"'{param}.content' is empty.", param=f"{param}.content")
    return _Message(
        role=value["role"],
        parts=tuple(_part(part, f"{param}.content") for part in parts),
        is_text=isinstance(content, str),
    )


def _part(value: Any, param: str) -> Template | _Image:
    if isinstance(value, str):
        return Template.read(value, param=param)
    if isinstance(value, Mapping) and value.get("type") in TEXT_PARTS and isinstance(value.get("text"), str):
        return Template.read(value["text"], param=param)
    if isinstance(value, Mapping) and value.get("type") == "input_image" and isinstance(value.get("image_url"), str):
        return _Image(address=Template.read(value["image_url"], param=param), detail=value.get("detail"))
    kind = value.get("type") if isinstance(value, Mapping) else type(value).__name__
    raise InvalidRequest(
        f"'{param}' has a part {kind!r}; known are text, and objects of type input_text, output_text and input_image.",
        param=param,
    )


def _rendered(part: Template | _Image, subject: Subject) -> dict[str, Any]:
    if isinstance(part, Template):
        return {"type": "text", "text": part.render(subject)}
    detail = {"detail": part.detail} if part.detail else {}
    return {"type": "image_url", "image_url": {"url": part.address.render(subject), **detail}}
