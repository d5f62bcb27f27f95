"""Reads a training file as strictly as a fine-tuning job would, and says where it is wrong.

Rows are chat examples, or all of them preference pairs, one JSON object a line, as OpenAI and Azure define them; a
byte order mark, CRLF line ends and blank lines are tolerated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stillroom import logprobs
from stillroom.errors import InvalidTrainingFile

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
ROW_FIELDS = {"messages", "tools", "parallel_tool_calls", "functions", "function_call", "tool_choice"}
# OpenAI's guides and OpenAI's specification spell them differently.
PAIRS = (("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion"))
PREFERENCE_FIELDS = {"input", *PAIRS[0], *PAIRS[1]}
INPUT_FIELDS = {"messages", "tools", "parallel_tool_calls"}
SAID = ("content", "refusal", "tool_calls", "function_call")  # what makes two answers differ
LINE_BYTES = 32 * 1024 * 1024  # a longer line is no chat example


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a well-formed file holds. `image_line` is the first line with an image, `preference_line` the first
    that is a preference pair, as all others are then; None when there is none."""

    examples: int
    image_line: int | None = None
    preference_line: int | None = None


def check_file(path: Path) -> Report:
    """Reads every line. Raises InvalidTrainingFile naming the first wrong line and its field."""
    examples, image_line, preference_line = 0, None, None
    for number, row in rows(path):
        is_pair = _is_pair(row)
        if examples and is_pair != (preference_line is not None):
            raise _wrong(number, None, _another_kind(is_pair))
        examples += 1
        if is_pair:
            preference_line = preference_line or number
            _check_pair(number, row)
        else:
            _check_row(number, row)
        if image_line is None and _has_image(row["input"] if is_pair else row):
            image_line = number
    return Report(examples=examples, image_line=image_line, preference_line=preference_line)


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of every line that is not blank."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES + 1), b""), start=1):
            if len(line) > LINE_BYTES:
                raise _wrong(number, None, f"is longer than {LINE_BYTES} bytes")
            text = line.removeprefix(BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
            if text:
                yield number, _object(number, text)


def _object(number: int, text: bytes) -> dict[str, Any]:
    try:
        row = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        start = text[:40].decode(errors="replace")
        raise _wrong(number, None, f"is not valid JSON ({error}); it starts with: {start!r}") from error
    if not isinstance(row, dict):
        raise _wrong(number, None, "is not a JSON object")
    return row


def _is_pair(row: dict[str, Any]) -> bool:
    return "messages" not in row and not PREFERENCE_FIELDS.isdisjoint(row)


def _another_kind(is_pair: bool) -> str:
    kinds = ("a preference pair", "conversations") if is_pair else ("a conversation", "preference pairs")
    return f"is {kinds[0]}, while the lines before are {kinds[1]}; a file has one kind of rows"


def _check_row(number: int, row: dict[str, Any]) -> None:
    if unknown := sorted(set(row) - ROW_FIELDS):
        raise _wrong(number, unknown[0], f"is not a field of a chat example; known are {', '.join(sorted(ROW_FIELDS))}")
    for field in ("tools", "functions"):
        if not isinstance(row.get(field) or [], list):
            raise _wrong(number, field, "must be an array")
    messages = row.get("messages")
    _check_messages(number, "messages", messages)
    assert isinstance(messages, list)
    if messages[-1]["role"] != "assistant":
        raise _wrong(number, f"messages[{len(messages) - 1}]", "is the last message and must be from the assistant")
    if not any(m["role"] == "assistant" and m.get("weight", 1) for m in messages):
        raise _wrong(number, "messages", "has no assistant message with weight 1, so there is nothing to learn")


def _check_messages(number: int, field: str, messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise _wrong(number, field, "must be an array with at least one message")
    for index, message in enumerate(messages):
        _check_message(number, f"{field}[{index}]", message)


def _check_message(number: int, field: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise _wrong(number, field, "must be an object")
    role = message.get("role")
    if role not in ROLES:
        raise _wrong(number, f"{field}.role", f"is {role!r}; expected one of {', '.join(ROLES)}")
    if "weight" in message:
        if role != "assistant":
            raise _wrong(number, f"{field}.weight", f"stands on a {role} message; only assistant messages have one")
        if message["weight"] not in (0, 1, None) or isinstance(message["weight"], bool):
            raise _wrong(number, f"{field}.weight", f"is {message['weight']!r}; expected 0 or 1")
    _check_content(number, field, message)
    if message.get("logprobs") is not None:
        _check_logprobs(number, field, message)


def _check_logprobs(number: int, field: str, message: dict[str, Any]) -> None:
    if message["role"] != "assistant":
        raise _wrong(number, f"{field}.logprobs", f"stands on a {message['role']} message; only answers have them")
    try:
        logprobs.check_message(message["logprobs"])
    except ValueError as error:
        raise _wrong(number, f"{field}.logprobs", f"cannot be read: {error}") from error


def _check_content(number: int, field: str, message: dict[str, Any]) -> None:
    content = message.get("content")
    says_otherwise = any(message.get(name) for name in ("tool_calls", "function_call", "refusal"))
    if content is None and message["role"] == "assistant" and says_otherwise:
        return
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("type"), str) for p in content):
        return
    if not isinstance(content, str):
        raise _wrong(number, f"{field}.content", "must be text or an array of content parts")


def _check_pair(number: int, row: dict[str, Any]) -> None:
    if unknown := sorted(set(row) - PREFERENCE_FIELDS):
        known = ", ".join(("input", *PAIRS[0]))
        raise _wrong(number, unknown[0], f"is not a field of a preference pair; known are {known}")
    _check_input(number, row.get("input"))
    better, worse = _spelling(number, row)
    for field in (better, worse):
        _check_answer(number, field, row[field])
    if said(row[better][0]) == said(row[worse][0]):
        raise _wrong(number, worse, f"says the same as `{better}`, so there is nothing to prefer")


def _check_input(number: int, given: Any) -> None:
    if not isinstance(given, dict):
        raise _wrong(number, "input", "must be an object with `messages`")
    if unknown := sorted(set(given) - INPUT_FIELDS):
        known = ", ".join(sorted(INPUT_FIELDS))
        raise _wrong(number, f"input.{unknown[0]}", f"is not a field of a pair's input; known are {known}")
    if not isinstance(given.get("tools") or [], list):
        raise _wrong(number, "input.tools", "must be an array")
    messages = given.get("messages")
    _check_messages(number, "input.messages", messages)
    assert isinstance(messages, list)
    if messages[-1]["role"] == "assistant":
        last = f"input.messages[{len(messages) - 1}]"
        raise _wrong(number, last, "is from the assistant; the conversation must end before the two answers")


def _spelling(number: int, row: dict[str, Any]) -> tuple[str, str]:
    """The names that the row has for the better and the worse answer."""
    used = [pair for pair in PAIRS if not set(pair).isdisjoint(row)]
    if len(used) > 1:
        names = " and ".join(f"`{name}`" for name in sorted(set(row) - {"input"}))
        raise _wrong(
            number, None, f"has {names}; a row has either {' and '.join(PAIRS[0])} or {' and '.join(PAIRS[1])}"
        )
    pair = used[0] if used else PAIRS[0]
    for name in pair:
        if name not in row:
            raise _wrong(number, name, "is missing; a preference pair has both answers")
    return pair


def _check_answer(number: int, field: str, answer: Any) -> None:
    if not isinstance(answer, list) or len(answer) != 1:
        raise _wrong(number, field, "must be an array with exactly one message")
    _check_messages(number, field, answer)
    if answer[0]["role"] != "assistant":
        raise _wrong(number, f"{field}[0]", f"is a {answer[0]['role']} message; an answer is the assistant's")


def said(message: Mapping[str, Any]) -> list[Any]:
    """What an answer says: two that say the same have the same."""
    return [plain(message.get(name)) for name in SAID]


def plain(value: Any) -> Any:
    """Text given as parts is the same text, and nothing is nothing."""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(str(part.get("text")) for part in value) or None
    return value or None


def _has_image(row: dict[str, Any]) -> bool:
    contents = (message.get("content") for message in row["messages"])
    return any(part.get("type") == "image_url" for content in contents if isinstance(content, list) for part in content)


def _wrong(number: int, field: str | None, what: str) -> InvalidTrainingFile:
    where = f"Line {number}: `{field}`" if field else f"Line {number}"
    return InvalidTrainingFile(f"{where} {what}.", param="training_file", line=number)
