"""What was said in a stored conversation, for whoever searches or shows it.

Callers and teachers alike send what is no conversation, and it is kept as it came: here whatever has
another shape than it should is passed over, so that one odd answer never hides the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]


def texts_of(body: Any) -> Iterator[str]:
    """All texts of a completion's `request` and `response`: contents, refusals, names and arguments of calls.
    The answers' come first, because of a very long conversation only the first are searched."""
    messages = [answer_of(choice) for choice in objects(_field(_field(body, "response"), "choices"))]
    messages += objects(_field(_field(body, "request"), "messages"))
    for message in messages:
        content = message.get("content")
        said = [content, *(part.get("text") for part in objects(content)), message.get("refusal")]
        for function in functions_of(message):
            said += [function.get("name"), function.get("arguments")]
        yield from (text for text in said if isinstance(text, str))


def first_choice(response: Json) -> Json:
    """The choice that is shown where there is room for one; empty when there is none."""
    return next(iter(objects(response.get("choices"))), {})


def answer_of(choice: Json) -> Json:
    message = choice.get("message")
    return message if isinstance(message, Mapping) else {}


def functions_of(message: Json) -> list[Json]:
    """The functions that a message calls."""
    calls = [call.get("function") for call in objects(message.get("tool_calls"))]
    return objects([*calls, message.get("function_call")])


def objects(value: Any) -> list[Json]:
    """Those entries of a list that are objects."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
