"""Training rows: a JSONL file of chats -> encoded examples.

Owns what is wrong with a row, in words that name its line. Knows the template only by its two methods;
does not order or batch.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillroom.errors import InvalidRequest, InvalidTrainingFile
from stillroom.student.chats.template import ChatTemplate, Example

LINES_NAMED = 20
"""Of the rows that were cut; the rest are counted."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One chat of a training file."""

    line: int
    messages: list[dict[str, Any]]
    tools: list[Any]

    def texts(self) -> Iterator[str]:
        """All words of the chat, for a tokenizer to learn from."""
        for message in self.messages:
            yield from _strings(message)
        yield from (json.dumps(tool, ensure_ascii=False) for tool in self.tools)


def read_rows(path: Path, *, param: str = "training_file") -> list[Row]:
    """The rows of a JSONL file; a byte order mark, CRLF and empty lines are tolerated."""
    try:
        # Only at newlines: JSON strings may hold U+2028 and others that splitlines() takes for line ends.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidTrainingFile(
            f"The file is not UTF-8: {error.reason} at byte {error.start}.", param=param
        ) from error
    except OSError as error:
        raise InvalidTrainingFile(f"{path} cannot be read: {error.strerror}.", param=param) from error
    rows = [_row(line, number, param) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise InvalidTrainingFile("The file has no rows.", param=param)
    return rows


def encode_rows(
    rows: Iterable[Row], template: ChatTemplate, *, context_tokens: int, param: str = "training_file"
) -> list[Example]:
    """All rows as examples; a row that does not fit the model's context is an error, never cut."""
    examples = _encoded(rows, template, param)
    for example in examples:
        if len(example.ids) > context_tokens:
            raise InvalidTrainingFile(
                f"Line {example.line} has {len(example.ids)} tokens; the model reads at most {context_tokens}. "
                'Shorten the row or leave it out, or let the job cut such rows: "long_rows": "truncate".',
                param=param,
            )
    return examples


def encode_rows_cut(
    rows: Iterable[Row],
    template: ChatTemplate,
    *,
    context_tokens: int,
    param: str = "training_file",
    warn: Callable[[str], None],
) -> list[Example]:
    """All rows as examples; of a row that does not fit the model's context, only its beginning. Those that were
    cut are told to `warn`, and so are those that are left out because nothing that is trained would remain."""
    examples = _encoded(rows, template, param)
    tokens_of = {each.line: len(each.ids) for each in examples if len(each.ids) > context_tokens}
    fitting = [_beginning(each, context_tokens) for each in examples]
    kept = [each for each in fitting if each.line not in tokens_of or any(each.mask[1:])]
    kept_lines = {each.line for each in kept}
    cut = [line for line in tokens_of if line in kept_lines]
    lost = [line for line in tokens_of if line not in kept_lines]
    where = f"of the {param.replace('_', ' ')}"
    if cut:
        them = _written(cut, tokens_of)
        warn(f"Rows {where} that have more than the model's {context_tokens} tokens were cut at their end: {them}.")
    if lost:
        them = _written(lost, tokens_of)
        warn(f"Rows {where} were left out, for nothing to train begins within {context_tokens} tokens: {them}.")
    if not kept:
        raise InvalidTrainingFile(
            f"No row has anything to train within the model's {context_tokens} tokens. Shorten the prompts.",
            param=param,
        )
    return kept


def _beginning(example: Example, context_tokens: int) -> Example:
    if len(example.ids) <= context_tokens:
        return example
    return replace(example, ids=array("i", example.ids[:context_tokens]), mask=example.mask[:context_tokens])


def _written(lines: list[int], tokens_of: Mapping[int, int]) -> str:
    named = ", ".join(f"{line} ({tokens_of[line]} tokens)" for line in lines[:LINES_NAMED])
    more = f" and {len(lines) - LINES_NAMED} more" if len(lines) > LINES_NAMED else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {named}{more}"


def _encoded(rows: Iterable[Row], template: ChatTemplate, param: str) -> list[Example]:
    examples: list[Example] = []
    for row in rows:
        try:
            examples += template.encode_example(row.messages, row.tools, line=row.line)
        except InvalidRequest as error:
            raise InvalidTrainingFile(f"Line {row.line}: {error.message}", param=param) from error
    if not examples:
        raise InvalidTrainingFile("No row has an assistant message that is trained (all have weight 0).", param=param)
    return examples


def _row(line: str, number: int, param: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidTrainingFile(f"Line {number} is not JSON: {error.msg}.", param=param) from error
    messages = row.get("messages") if isinstance(row, dict) else None
    if not (isinstance(messages, list) and messages and all(isinstance(message, dict) for message in messages)):
        raise InvalidTrainingFile(f"Line {number} has no list of 'messages'.", param=param)
    if not any(message.get("role") == "assistant" for message in messages):
        raise InvalidTrainingFile(f"Line {number} has no assistant message to learn from.", param=param)
    return Row(line=number, messages=messages, tools=_tools(row))


def _tools(row: Mapping[str, Any]) -> list[Any]:
    """Tools, and functions (their older form) written as tools."""
    functions = row.get("functions") or []
    return [*(row.get("tools") or []), *({"type": "function", "function": each} for each in functions)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child)
