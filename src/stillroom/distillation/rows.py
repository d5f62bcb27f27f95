"""The rows to be labelled: read from wherever the file says, checked, and frozen for the run.

A row is a conversation whose last words the teacher is to say. What is read once is kept with the run, so that one
that goes on after an interruption asks the rest of the same rows, whatever the source has become.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from stillroom import auth
from stillroom.assembly import Platform
from stillroom.clock import moment
from stillroom.completions import soft_labels, table
from stillroom.datasets import answers
from stillroom.datasets.check import BYTE_ORDER_MARK, ROLES
from stillroom.datasets.selection import example
from stillroom.distillation.problems import Problems, written
from stillroom.distillation.spec import Kind, Reasoning, Source, Spec, Task

TABLES = Path(__file__).with_name("tables.py")  # a process of its own, which needs nothing else of the package
TRAINING, VALIDATION = "training", "validation"
PASSED_ON = ("tools", "functions", "parallel_tool_calls")
SYSTEM = ("system", "developer")
WRONG_SHOWN = 10  # kinds of wrong rows told of one file
LINES_SHOWN = 3  # of each kind


@dataclass(frozen=True, kw_only=True)
class Row:
    """`name` is its part and place, such as `training-17`, counted from 1. `messages` end with what the teacher is
    to answer, but that conversations have all their turns, and given answers stay where no teacher is asked."""

    name: str
    messages: Sequence[Mapping[str, Any]]
    more: Mapping[str, Any] = field(default_factory=dict)
    """Its tools, if it has any."""

    @property
    def part(self) -> str:
        return self.name.partition("-")[0]

    def as_json(self) -> bytes:
        return msgspec.json.encode({"row": self.name, "messages": self.messages, **self.more})


def of_json(line: bytes) -> Row:
    values = msgspec.json.decode(line)
    return Row(name=values.pop("row"), messages=values.pop("messages"), more=values)


def read(spec: Spec, platform: Platform, file: str) -> list[Row]:
    """The rows of both parts, training first. Raises InvalidJobFile with all that is wrong with them."""
    problems = Problems(file)
    found: list[Row] = []
    for part, source in ((TRAINING, spec.training), (VALIDATION, spec.validation)):
        if source is not None:
            found += _part(spec, part, source, platform, problems)
    problems.raise_any()
    return found


def _part(spec: Spec, part: str, source: Source, platform: Platform, problems: Problems) -> list[Row]:
    found: list[Row] = []
    wrong: dict[str, list[str]] = {}
    for number, (line, values) in enumerate(_values(spec, source, part, platform, problems), start=1):
        row = _row(spec, f"{part}-{number}", values) if isinstance(values, Mapping) else str(values)
        if isinstance(row, Row):
            found.append(row)
            continue
        wrong.setdefault(row, []).append(line)
    _tell_wrong(source, wrong, problems)
    count, least = len(found) + sum(map(len, wrong.values())), spec.minimum_rows if part == TRAINING else 1
    if count < least:
        asked = ", ".join(f"{name} {written(value)}" for name, value in source.filter.items() if value)
        remedy = f"The filter is: {asked or 'none'}." if source.kind is Kind.STORED_COMPLETIONS else "Add rows."
        problems.add(source.key, f"has {count} rows; at least {least} are needed. {remedy}")
    return found


def _tell_wrong(source: Source, wrong: Mapping[str, Sequence[str]], problems: Problems) -> None:
    """What is wrong with rows, each once, with their lines."""
    for reason, lines in list(wrong.items())[:WRONG_SHOWN]:
        if len(lines) == 1:
            problems.add(source.key, f"has a row, {lines[0]}, that cannot be asked: {reason}.")
        else:
            told = ", ".join(lines[:LINES_SHOWN]) + (", ..." if len(lines) > LINES_SHOWN else "")
            problems.add(source.key, f"has {len(lines)} rows, {told}, that cannot be asked: {reason}.")
    if len(wrong) > WRONG_SHOWN:
        problems.add(source.key, f"has {sum(map(len, wrong.values()))} such rows in all.")


# --- where they come from -------------------------------------------------------------------------------


def _values(spec: Spec, source: Source, part: str, platform: Platform, problems: Problems) -> Iterator[tuple[str, Any]]:
    """Each row as it stands there, with words for its place; text instead of a row says why it is none."""
    if source.kind is Kind.STORED_COMPLETIONS:
        rows = _stored(source, platform, _own_style(spec) if spec.teacher is None else answers.PLAIN)
    elif source.kind is Kind.JSONL:
        assert source.path is not None
        rows = _lines(source.path)
    else:
        rows = _of_table(source, part, problems)
    for number, (line, values) in enumerate(rows):
        if source.limit is not None and number >= source.limit:
            return
        yield line, (_mapped(source, values) if isinstance(values, Mapping) else values)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
            if not text:
                continue
            try:
                values = msgspec.json.decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                yield f"line {number}", f"it is not valid JSON ({error})"
            else:
                yield f"line {number}", values if isinstance(values, dict) else "it is no JSON object"


def _of_table(source: Source, part: str, problems: Problems) -> Iterator[tuple[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:
        target = Path(folder) / "rows.jsonl"
        command = [sys.executable, "-P", str(TABLES), str(source.path), str(target)]
        command += ["--split", source.split] if source.split else []
        command += ["--validation"] if part == VALIDATION else []
        command += ["--limit", str(source.limit)] if source.limit else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
            if "No module named 'pyarrow'" in last:
                last = "Reading tables needs `pip install 'stillroom[distill]'`."
            problems.add(source.key, f"is {source.path}, which cannot be read: {last}")
            return
        for line, values in _lines(target):
            yield line.replace("line", "row"), values


def _own_style(spec: Spec) -> answers.Style:
    """How the answers that are there become the student's."""
    keeps = spec.reasoning is Reasoning.KEEP
    return answers.Style(
        reasoning=answers.Reasoning.KEEP if keeps else answers.Reasoning.STRIP, soft_labels=spec.asks_logprobs
    )


def _stored(source: Source, platform: Platform, style: answers.Style) -> Iterator[tuple[str, Any]]:
    asked = source.filter
    chosen = table.Filter(
        model=asked["model"],
        metadata=asked["metadata"],
        created_after=moment(asked["since"]) if asked["since"] else None,
        search=asked["search"],
        status=table.Status.COMPLETED,
    )
    with platform.database.read() as connection:
        for stored in table.walk(connection, auth.DEFAULT_PROJECT, chosen):
            labels = soft_labels.of_one(connection, stored.number) if style.soft_labels else None
            row = example(stored, style, labels)
            if row is not None:
                yield f"completion {stored.number}", row


def _mapped(source: Source, values: Mapping[str, Any]) -> Any:
    """The row in the form of a training example, or why it has none."""
    columns = source.columns
    row = dict(values)
    if "messages" in columns:
        row["messages"] = values.get(columns["messages"])
    elif columns:
        if missing := [name for name in columns.values() if values.get(name) is None]:
            there = ", ".join(map(str, values))
            return f"it has no {', '.join(map(repr, missing))}; there are {there}"
        row["messages"] = [
            {"role": role, "content": _text(values[columns[role]])}
            for role in ("system", "user", "assistant")
            if role in columns
        ]
    messages = row.get("messages")
    if source.kind is not Kind.JSONL and isinstance(messages, list):
        # A table's columns are there in every row, and what a message lacks is null, which not every teacher takes.
        messages = row["messages"] = [_without_nulls(message) for message in messages]
    if source.system and isinstance(messages, list) and not _has_system(messages):
        row["messages"] = [{"role": "system", "content": source.system}, *messages]
    return row


def _without_nulls(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message
    return {name: value for name, value in message.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _has_system(messages: Sequence[Any]) -> bool:
    return bool(messages) and isinstance(messages[0], Mapping) and messages[0].get("role") in SYSTEM


# --- what a row must be ---------------------------------------------------------------------------------


def _row(spec: Spec, name: str, values: Mapping[str, Any]) -> Row | str:
    """The row, or what is wrong with it."""
    messages = values.get("messages")
    if messages is None:
        return "it has no `messages`; a table's columns are named by `columns: {user: COLUMN}`"
    if not isinstance(messages, list) or not messages:
        return f"its `messages` are {written(messages)}; expected a list with a message of the user"
    for place, message in enumerate(messages):
        if (wrong := _wrong_message(message)) is not None:
            return f"messages[{place}] {wrong}"
    if spec.needs_system and messages[0]["role"] not in SYSTEM:
        return f"its first message is from the {messages[0]['role']}; it must be the system prompt"
    if spec.teacher is None:
        if messages[-1]["role"] != "assistant":
            return "it has no answer; name a `teacher` that gives one"
    elif spec.prompting.task is Task.CONVERSATION:
        if (wrong := _wrong_turns(messages)) is not None:
            return wrong
    else:
        messages = _to_be_answered(messages)
        if not messages or messages[-1]["role"] not in ("user", "tool", "function"):
            return "it asks nothing: a message of the user must be the last"
        if messages[-1]["role"] == "user" and _is_blank(messages[-1].get("content")):
            return "it asks nothing: its last message is empty"
    more = {key: values[key] for key in PASSED_ON if values.get(key) is not None}
    return Row(name=name, messages=messages, more=more)


def _wrong_message(message: Any) -> str | None:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        role = message.get("role") if isinstance(message, Mapping) else message
        return f"is from {written(role)}; expected one of {', '.join(ROLES)}"
    content = message.get("content")
    if isinstance(content, list) and any(isinstance(part, Mapping) and part.get("type") != "text" for part in content):
        return "has an image or another part that is no text, which students here cannot read"
    if not isinstance(content, (str, list)) and not message.get("tool_calls") and not message.get("function_call"):
        return "has no `content`" if content is None else f"has {written(content)} as its content; expected text"
    return None


def _is_blank(content: Any) -> bool:
    """Whether it is text, in one piece or in parts, of which nothing can be read."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return all(isinstance(text, str) and not text.strip() for text in texts)


def _to_be_answered(messages: list[Any]) -> list[Any]:
    """Without the answer that the teacher is to give anew."""
    last = len(messages)
    while last and messages[last - 1]["role"] == "assistant":
        last -= 1
    return messages[:last]


def _wrong_turns(messages: Sequence[Mapping[str, Any]]) -> str | None:
    turns = [message["role"] for message in messages if message["role"] not in SYSTEM]
    expected = ["user" if place % 2 == 0 else "assistant" for place in range(len(turns))]
    if len(turns) < 2 or turns != expected:
        return f"its turns are {', '.join(turns) or 'none'}; they must alternate: user, assistant, user, ..."
    if any(_is_blank(message.get("content")) for message in messages if message["role"] == "user"):
        return "a message of the user is empty"
    return None
