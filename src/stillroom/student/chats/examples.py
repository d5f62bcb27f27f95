"""Training rows: a JSONL file of chats, or of pairs of answers -> encoded examples.

Owns what is wrong with a row, in words that name its line. Knows the template only by its methods;
does not order or batch.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from stillroom.errors import InvalidRequest, InvalidTrainingFile
from stillroom.student.chats.template import ChatTemplate, Example, Pair, Question, text_of

LINES_NAMED = 20
"""Of the rows that were cut; the rest are counted."""
ANSWERS = (("preferred_output", "non_preferred_output"), ("preferred_completion", "non_preferred_completion"))
"""The better answer and the other: as guides call them, and as the API's specification does."""
SYSTEM = ("system", "developer")

Encoded = TypeVar("Encoded", Example, Pair, Question)
Encoded_co = TypeVar("Encoded_co", bound=Example | Pair | Question, covariant=True)


class AnyRow(Protocol[Encoded_co]):
    """One line of a training file, whatever is learned from it."""

    @property
    def line(self) -> int: ...

    def texts(self) -> Iterator[str]:
        """All its words, for a tokenizer to learn from."""

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What comes before its first answer."""

    @property
    def has_logprobs(self) -> bool: ...

    @property
    def system_prompt(self) -> str | None:
        """What it begins with, if that is one."""

    def without_first(self) -> Self:
        """The same without its first message."""

    def encoded(self, template: ChatTemplate, *, labelled: bool) -> Sequence[Encoded_co]: ...


@dataclass(frozen=True, kw_only=True)
class Row:
    """One chat of a training file."""

    line: int
    messages: list[dict[str, Any]]
    tools: list[Any]

    def texts(self) -> Iterator[str]:
        for message in self.messages:
            yield from _strings({name: value for name, value in message.items() if name != "logprobs"})
        yield from (json.dumps(tool, ensure_ascii=False) for tool in self.tools)

    @property
    def asked(self) -> list[dict[str, Any]]:
        return list(takewhile(lambda message: message.get("role") != "assistant", self.messages))

    @property
    def has_logprobs(self) -> bool:
        return any(message.get("logprobs") is not None for message in self.messages)

    @property
    def system_prompt(self) -> str | None:
        first = self.messages[0]
        return text_of(first.get("content")) if first.get("role") in SYSTEM else None

    def without_first(self) -> Row:
        return replace(self, messages=self.messages[1:])

    def encoded(self, template: ChatTemplate, *, labelled: bool) -> list[Example]:
        return template.encode_example(self.messages, self.tools, line=self.line, labelled=labelled)


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """One prompt of a training file with two answers."""

    preferred: Row
    other: Row
    """Both as chats that end with their answer and train nothing else."""

    @property
    def line(self) -> int:
        return self.preferred.line

    def texts(self) -> Iterator[str]:
        yield from self.preferred.texts()
        yield from _strings(self.other.messages[-1])

    @property
    def asked(self) -> list[dict[str, Any]]:
        return self.preferred.asked

    @property
    def has_logprobs(self) -> bool:
        return self.preferred.has_logprobs

    @property
    def system_prompt(self) -> str | None:
        return self.preferred.system_prompt

    def without_first(self) -> PairRow:
        return PairRow(preferred=self.preferred.without_first(), other=self.other.without_first())

    def encoded(self, template: ChatTemplate, *, labelled: bool) -> list[Pair]:
        preferred, other = (row.encoded(template, labelled=False) for row in (self.preferred, self.other))
        return [Pair(preferred=preferred[-1], other=other[-1])]


@dataclass(frozen=True, kw_only=True)
class QuestionRow:
    """One chat of a training file, of which the last answer is what a student is to find by itself."""

    chat: Row
    teacher: ChatTemplate | None
    """That of the model that judges; None: the student itself, with the answer at hand."""

    @property
    def line(self) -> int:
        return self.chat.line

    def texts(self) -> Iterator[str]:
        return self.chat.texts()

    @property
    def asked(self) -> list[dict[str, Any]]:
        return self.chat.asked

    @property
    def has_logprobs(self) -> bool:
        return self.chat.has_logprobs

    @property
    def system_prompt(self) -> str | None:
        return self.chat.system_prompt

    def without_first(self) -> QuestionRow:
        return replace(self, chat=self.chat.without_first())

    def encoded(self, template: ChatTemplate, *, labelled: bool) -> list[Question]:
        messages, tools = self.chat.messages, self.chat.tools
        *before, answer = messages[: 1 + max(at for at, each in enumerate(messages) if each.get("role") == "assistant")]
        history = [{**message, "weight": 0} for message in before]
        answered = template.encode_example([*history, answer], tools, line=self.line)
        if not answered:
            return []  # its weight is 0
        taught = self.teacher.encode_prompt(before, tools) if self.teacher else None
        shown = taught or template.encode_prompt(_with_answer_at_hand(before, answer), tools)
        return [Question(answered=answered[-1], taught=array("i", shown))]


def _with_answer_at_hand(before: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The conversation as a teacher sees it that knows how somebody has answered."""
    written = text_of(answer.get("content")) or json.dumps(answer.get("tool_calls"), ensure_ascii=False)
    hint = f"Here is a good answer to this:\n\n{written}\n\nNow answer yourself, as well as that."
    if before and before[-1].get("role") == "user":
        asked = text_of(before[-1].get("content"))
        return [*before[:-1], {**before[-1], "content": f"{asked}\n\n{hint}"}]
    return [*before, {"role": "user", "content": hint}]


Kind = TypeVar("Kind", bound=AnyRow[Any])


def read_rows(path: Path, *, param: str = "training_file") -> list[Row]:
    """The chats of a JSONL file; a byte order mark, CRLF and empty lines are tolerated."""
    return [_row(row, number, param) for number, row in _objects(path, param)]


def read_pairs(path: Path, *, param: str = "training_file") -> list[PairRow]:
    """The same of a file of preferences."""
    return [_pair(row, number, param) for number, row in _objects(path, param)]


def read_questions(
    path: Path, *, teacher: ChatTemplate | None = None, param: str = "training_file"
) -> list[QuestionRow]:
    """The chats of a file, for a student to answer itself. See `QuestionRow`."""
    return [QuestionRow(chat=row, teacher=teacher) for row in read_rows(path, param=param)]


def without_system_prompt(rows: Sequence[Kind], system_prompt: str, *, param: str = "training_file") -> list[Kind]:
    """The rows without the system prompt, with which all must begin. Raises InvalidTrainingFile when one does not."""
    if others := [row for row in rows if row.system_prompt != system_prompt]:
        different = len({system_prompt, *(row.system_prompt for row in others)})
        has = "another system prompt" if others[0].system_prompt is not None else "no system prompt"
        raise InvalidTrainingFile(
            '"system_prompt": "drop" needs one system prompt for all rows, so that the student can learn to do without. '
            f"Here are {different} different ones; the first row that differs is line {others[0].line} of the "
            f'{param.replace("_", " ")}, with {has}. Make them the same, or use "system_prompt": "keep".',
            param=param,
        )
    return [row.without_first() for row in rows]


def system_prompt_of(rows: Sequence[AnyRow[Any]]) -> str:
    """That of the first row. Raises InvalidTrainingFile when it has none."""
    found = rows[0].system_prompt
    if found is None:
        raise InvalidTrainingFile(
            f'"system_prompt": "drop" needs rows that begin with a system prompt, and line {rows[0].line} does not. '
            "Leave it out: there is nothing to drop.",
            param="training_file",
        )
    return found


def encode_rows(
    rows: Iterable[AnyRow[Encoded]],
    template: ChatTemplate,
    *,
    context_tokens: int,
    param: str = "training_file",
    labelled: bool = False,
) -> list[Encoded]:
    """All rows as examples, or as pairs of them; a row that does not fit the model's context is an error, never cut.
    `labelled`: with what the teacher held likely, where rows tell."""
    encoded = _encoded(rows, template, param, labelled=labelled)
    for each in encoded:
        if each.length > context_tokens:
            raise InvalidTrainingFile(
                f"Line {_line(each)} has {each.length} tokens; the model reads at most {context_tokens}. "
                'Shorten the row or leave it out, or let the job cut such rows: "long_rows": "truncate".',
                param=param,
            )
    return encoded


def encode_rows_cut(
    rows: Iterable[AnyRow[Encoded]],
    template: ChatTemplate,
    *,
    context_tokens: int,
    param: str = "training_file",
    warn: Callable[[str], None],
    labelled: bool = False,
) -> list[Encoded]:
    """The same; of a row that does not fit the model's context, only its beginning. Those that were
    cut are told to `warn`, and so are those that are left out because nothing that is trained would remain."""
    encoded = _encoded(rows, template, param, labelled=labelled)
    tokens_of = {_line(each): each.length for each in encoded if each.length > context_tokens}
    fitting = [each.cut(context_tokens) for each in encoded]
    kept = [
        each
        for each in fitting
        if each.length <= context_tokens and all(any(example.mask[1:]) for example in each.examples)
    ]
    kept_lines = {_line(each) for each in kept}
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


def _line(encoded: Example | Pair | Question) -> int:
    return encoded.examples[0].line


def _written(lines: list[int], tokens_of: Mapping[int, int]) -> str:
    named = ", ".join(f"{line} ({tokens_of[line]} tokens)" for line in lines[:LINES_NAMED])
    more = f" and {len(lines) - LINES_NAMED} more" if len(lines) > LINES_NAMED else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {named}{more}"


def _encoded(rows: Iterable[AnyRow[Encoded]], template: ChatTemplate, param: str, *, labelled: bool) -> list[Encoded]:
    encoded: list[Encoded] = []
    for row in rows:
        try:
            encoded += row.encoded(template, labelled=labelled)
        except InvalidRequest as error:
            raise InvalidTrainingFile(f"Line {row.line}: {error.message}", param=param) from error
    if not encoded:
        raise InvalidTrainingFile("No row has an assistant message that is trained (all have weight 0).", param=param)
    return encoded


def _objects(path: Path, param: str) -> list[tuple[int, Any]]:
    """What the lines of a JSONL file say, by their numbers."""
    try:
        # Only at newlines: JSON strings may hold U+2028 and others that splitlines() takes for line ends.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidTrainingFile(
            f"The file is not UTF-8: {error.reason} at byte {error.start}.", param=param
        ) from error
    except OSError as error:
        raise InvalidTrainingFile(f"{path} cannot be read: {error.strerror}.", param=param) from error
    found = [(number, _object(line, number, param)) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InvalidTrainingFile("The file has no rows.", param=param)
    return found


def _object(line: str, number: int, param: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidTrainingFile(f"Line {number} is not JSON: {error.msg}.", param=param) from error


def _row(row: Any, number: int, param: str) -> Row:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not (isinstance(messages, list) and messages and all(isinstance(message, dict) for message in messages)):
        raise InvalidTrainingFile(f"Line {number} has no list of 'messages'.", param=param)
    if not any(message.get("role") == "assistant" for message in messages):
        raise InvalidTrainingFile(f"Line {number} has no assistant message to learn from.", param=param)
    return Row(line=number, messages=messages, tools=_tools(row))


def _pair(row: Any, number: int, param: str) -> PairRow:
    asked = row.get("input") if isinstance(row, dict) else None
    messages = asked.get("messages") if isinstance(asked, dict) else None
    if not (
        isinstance(asked, dict)
        and isinstance(messages, list)
        and all(isinstance(message, dict) for message in messages)
    ):
        raise InvalidTrainingFile(
            f"Line {number} has no 'input' with a list of 'messages', as a row of preferences has.", param=param
        )
    names = [each for each in ANSWERS if each[0] in row or each[1] in row]
    if len(names) != 1:
        spelled = " or ".join(f"'{better}' and '{other}'" for better, other in ANSWERS)
        raise InvalidTrainingFile(f"Line {number} needs two answers, {spelled}.", param=param)
    history = [{**message, "weight": 0} for message in messages]
    preferred, other = (
        Row(line=number, messages=[*history, _answer(row.get(name), name, number, param)], tools=_tools(asked))
        for name in names[0]
    )
    return PairRow(preferred=preferred, other=other)


def _answer(value: Any, name: str, number: int, param: str) -> dict[str, Any]:
    answer = value[0] if isinstance(value, list) and len(value) == 1 else None
    if not isinstance(answer, dict) or answer.get("role") != "assistant":
        raise InvalidTrainingFile(f"Line {number} needs one assistant message in a list as '{name}'.", param=param)
    return {key: each for key, each in answer.items() if key != "weight"}


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
