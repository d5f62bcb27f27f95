"""Messages <-> token ids and loss mask, the same for training and serving.

Owns how a chat becomes tokens: `encode_prompt` is what the engine is asked, `encode_example` what the
trainer sees, and every trained token stands behind exactly the ids that serving would have put before
it. Rendering is the tokenizer's own Jinja template in transformers' sandbox. Control tokens inside a
message are encoded as plain text, so that no user can speak as the system.

Knows no files, batches or models.
"""

from __future__ import annotations

import json
import re
import secrets
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from stillroom.errors import InvalidRequest, InvalidTrainingFile
from stillroom.logprobs import of_message
from stillroom.student.chats.labels import SoftLabels, Vocabulary, aligned, soft_labels

Message = Mapping[str, Any]

TOOL_CALL_OPENS, TOOL_CALL_CLOSES = "<tool_call>", "</tool_call>"
_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)

CHATML = """
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}
{{- 'Functions, one a line. Call one with <tool_call>{"name": ..., "arguments": ...}</tool_call>\\n' }}
{%- for tool in tools %}{{- tool | tojson + '\\n' }}{% endfor %}
{{- eos_token + '\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>{"name": ' + call.function.name | tojson + ', "arguments": ' }}
{%- if call.function.arguments is string %}{{- call.function.arguments }}
{%- else %}{{- call.function.arguments | tojson }}{% endif %}
{{- '}</tool_call>' }}
{%- endfor %}
{{- eos_token + '\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
""".strip()
"""Our own template: ChatML, with tool calls in the tags that Hermes and Qwen made common. A turn ends
with the tokenizer's own end token, so that a base model without these control tokens can learn it."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """Token ids, and a mask that is 1 where the token is the assistant's own and trained."""

    ids: array[int]
    mask: bytes
    line: int = 0
    """The line of the file it came from, counted from 1; 0 when it came from no file."""
    weight: float = 1.0
    """How much each of its trained tokens counts."""
    labels: SoftLabels | None = None

    @property
    def examples(self) -> tuple[Example]:
        return (self,)

    @property
    def length(self) -> int:
        """Tokens that a model must be able to read."""
        return len(self.ids)

    def cut(self, tokens: int) -> Example:
        """Its beginning; itself if it is no longer than that."""
        if len(self.ids) <= tokens:
            return self
        return replace(self, ids=array("i", self.ids[:tokens]), mask=self.mask[:tokens])


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two answers to one prompt; no pair equals another."""

    preferred: Example
    other: Example

    @property
    def examples(self) -> tuple[Example, Example]:
        return self.preferred, self.other

    @property
    def length(self) -> int:
        return max(self.preferred.length, self.other.length)

    def cut(self, tokens: int) -> Pair:
        return Pair(preferred=self.preferred.cut(tokens), other=self.other.cut(tokens))


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Something to answer, an answer that somebody gave, and what a teacher reads before it judges another."""

    answered: Example
    taught: array[int]

    @property
    def examples(self) -> tuple[Example]:
        return (self.answered,)

    @property
    def length(self) -> int:
        return max(self.answered.length, len(self.taught) + sum(self.answered.mask))

    @property
    def prompt(self) -> array[int]:
        return self.answered.ids[: self.answered.mask.index(1)]

    def cut(self, tokens: int) -> Question:
        return replace(self, answered=self.answered.cut(tokens))


class Lesson(Protocol):
    """What a method learns from at a time: an example, or several that belong together."""

    @property
    def examples(self) -> tuple[Example, ...]: ...


def examples_of(lessons: Iterable[Lesson]) -> list[Example]:
    return [example for lesson in lessons for example in lesson.examples]


class _Writing:
    """An example while its turns are written."""

    def __init__(self) -> None:
        self.ids, self.mask = array("i"), bytearray()
        self._labels: dict[int, dict[int, float]] = {}

    def write(
        self, prompt: array[int], turn: array[int], *, is_trained: bool, labels: Mapping[int, dict[int, float]]
    ) -> None:
        """One turn more. The prompt begins with all that was written before."""
        self.mask += bytes(len(prompt) - len(self.mask)) + bytes([is_trained]) * len(turn)
        self._labels |= {len(prompt) + place: label for place, label in labels.items() if is_trained}
        self.ids = prompt + turn

    def example(self, line: int) -> Example:
        return Example(ids=self.ids, mask=bytes(self.mask), line=line, labels=soft_labels(self._labels))


class ChatTemplate:
    """One tokenizer's way of writing chats."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, end_ids: Iterable[int], name: str) -> None:
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        """Tokens that end a turn, in training and in generation; the first is written where a template writes none."""
        self.name = name
        """The base model's name, for messages."""
        self.sanitizes = self._can_sanitize()
        """Whether control tokens that a message spells stay text."""

    def encode_prompt(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, moment: datetime | None = None
    ) -> list[int]:
        """The ids after which the assistant's next turn begins. Some templates write the date: `moment`, or now."""
        template = str(self.tokenizer.chat_template)
        dated = {"chat_template": _dated(template, moment)} if moment and "strftime_now" in template else {}
        return self._ids(_plain(messages), tools, prompt=True, **dated)

    def encode_example(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, line: int = 0, labelled: bool = False
    ) -> list[Example]:
        """One example that trains all assistant turns, except those with `weight: 0`.

        A template may write history differently from a turn in progress (Qwen3 drops earlier reasoning).
        Then the chat becomes several examples, so that each turn is trained behind the prompt it will meet.
        `labelled`: with what the teacher held likely, where messages tell (`logprobs`).
        """
        plain = _plain(messages)
        finished: list[_Writing] = []
        writing = _Writing()
        for index in (i for i, message in enumerate(plain) if message["role"] == "assistant"):
            prompt = array("i", self._ids(plain[:index], tools, prompt=True))
            if prompt[: len(writing.ids)] != writing.ids:
                finished.append(writing)
                writing = _Writing()
            turn = self._turn(plain[: index + 1], tools, prompt)
            labels = self._labels_of(messages[index], plain[index]["content"], turn) if labelled else {}
            writing.write(prompt, turn, is_trained=messages[index].get("weight", 1) != 0, labels=labels)
        finished.append(writing)
        # Nothing comes before the first token that it could be told from.
        return [each.example(line) for each in finished if any(each.mask[1:])]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without control tokens; tool calls stay in their tags."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer)

    def _labels_of(self, message: Message, content: str, turn: array[int]) -> dict[int, dict[int, float]]:
        if message.get("logprobs") is None:
            return {}
        try:
            return aligned(turn, content, of_message(message["logprobs"]), self.vocabulary)
        except ValueError as error:
            raise InvalidRequest(f"{error}.", param="messages") from error

    def _turn(self, messages: list[dict[str, Any]], tools: Sequence[Any], prompt: array[int]) -> array[int]:
        """The last message as the model would generate it behind `prompt`, end-of-turn token included."""
        whole = array("i", self._ids(messages, tools, prompt=False))
        turn = whole[len(prompt) :]
        if whole[: len(prompt)] != prompt:
            turn = self._turn_from_text(messages, tools)
        ends = [at for at, token in enumerate(turn) if token in self.end_ids]
        if ends:
            return turn[: ends[-1] + 1]
        # Without an end the student would never learn to stop.
        return turn + array("i", self.end_ids[:1])

    def _turn_from_text(self, messages: list[dict[str, Any]], tools: Sequence[Any]) -> array[int]:
        """For tokenizers that merge the prompt's last characters with the answer's first ones.

        Generation cannot merge them, so the answer is encoded apart from its prompt.
        """
        prompt = self._text(messages[:-1], tools, prompt=True)
        whole = self._text(messages, tools, prompt=False)
        if not whole.startswith(prompt):
            raise InvalidTrainingFile(
                f"The chat template of {self.name} writes an assistant turn differently from the prompt before it, "
                "so it cannot be trained on. Choose another base model, or give the folder another chat template.",
                param="model",
            )
        return array("i", self.tokenizer.encode(whole[len(prompt) :], add_special_tokens=False))

    def _ids(self, messages: list[dict[str, Any]], tools: Sequence[Any], *, prompt: bool, **given: Any) -> list[int]:
        encoded = self._render(
            messages, tools, prompt=prompt, tokenize=True, sanitize_control_tokens=self.sanitizes, **given
        )
        return list(encoded["input_ids"])

    def _text(self, messages: list[dict[str, Any]], tools: Sequence[Any], *, prompt: bool) -> str:
        return str(self._render(messages, tools, prompt=prompt, tokenize=False))

    def _render(self, messages: list[dict[str, Any]], tools: Sequence[Any], *, prompt: bool, **options: Any) -> Any:
        if not messages:
            # Templates read messages[0]; an answer to nothing is an answer to an empty question.
            messages = [{"role": "user", "content": ""}]
        try:
            return self.tokenizer.apply_chat_template(
                messages, tools=list(tools) or None, add_generation_prompt=prompt, **options
            )
        except TemplateError as error:
            raise InvalidRequest(
                f"The chat template of {self.name} refuses these messages: {error}", param="messages"
            ) from error

    def _can_sanitize(self) -> bool:
        self.sanitizes = True
        try:
            self._ids([{"role": "user", "content": f"a {self.tokenizer.eos_token}"}], (), prompt=True)
        except (ValueError, InvalidRequest):
            return False  # some tokenizers make control tokens of plain text, and some templates refuse the question
        return True


def _dated(template: str, moment: datetime) -> str:
    """The template with the one moment for its clock: a macro of its own hides what transformers gives it."""
    parts = "".join(f" | replace('%{part}', '{moment.strftime(f'%{part}')}')" for part in _PARTS_OF_TIME)
    # The empty expression keeps Jinja from trimming what the template begins with.
    return f"{{%- macro strftime_now(format) -%}}{{{{- format{parts} -}}}}{{%- endmacro -%}}{{{{ '' }}}}{template}"


_PARTS_OF_TIME = "aAbBdfHIjmMpSuUVwWyYZ"


def parse_answer(text: str) -> tuple[str | None, list[dict[str, Any]]]:
    """Content and OpenAI tool calls of a generated text; what is no valid call stays content."""
    calls = [(match, _call(match.group(1))) for match in _TOOL_CALL.finditer(text)]
    valid = [(match, call) for match, call in calls if call is not None]
    if not valid:
        return text, []
    rest, at = "", 0
    for match, _ in valid:
        rest, at = rest + text[at : match.start()], match.end()
    return (rest + text[at:]).strip() or None, [call for _, call in valid]


def _call(text: str) -> dict[str, Any] | None:
    try:
        call = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not (isinstance(call, dict) and isinstance(call.get("name"), str)):
        return None
    arguments = call.get("arguments", {})
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": call["name"], "arguments": arguments},
    }


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates know them: text content, parsed arguments, no OpenAI-only roles."""
    return [_PLAIN_ROLES.get(message.get("role", ""), _unknown_role)(message) for message in messages]


def _text_message(message: Message) -> dict[str, Any]:
    return {"role": message["role"], "content": text_of(message.get("content"))}


def _system(message: Message) -> dict[str, Any]:
    return {"role": "system", "content": text_of(message.get("content"))}


def _tool(message: Message) -> dict[str, Any]:
    plain = {"role": "tool", "content": text_of(message.get("content"))}
    return {**plain, **{key: message[key] for key in ("tool_call_id", "name") if message.get(key)}}


def _assistant(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "role": "assistant",
        "content": text_of(message.get("content") or message.get("refusal")),
    }
    calls = list(message.get("tool_calls") or [])
    if message.get("function_call"):
        calls.append({"type": "function", "function": message["function_call"]})
    if calls:
        plain["tool_calls"] = [_plain_call(call) for call in calls]
    return plain


def _plain_call(call: Any) -> dict[str, Any]:
    if not (isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)):
        raise InvalidRequest("Every entry of 'tool_calls' needs a 'function'.", param="messages")
    function = call["function"]
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except json.JSONDecodeError:
            parsed = arguments
        # Only objects: a template that writes JSON would quote a bare string once more.
        arguments = parsed if isinstance(parsed, dict) else arguments
    plain = {"type": "function", "function": {"name": str(function.get("name", "")), "arguments": arguments}}
    return {**plain, "id": call["id"]} if call.get("id") else plain


def _unknown_role(message: Message) -> dict[str, Any]:
    raise InvalidRequest(f"Unknown role '{message.get('role')}' in 'messages'.", param="messages")


_PLAIN_ROLES = {
    "system": _system,
    "developer": _system,
    "user": _text_message,
    "assistant": _assistant,
    "tool": _tool,
    "function": _tool,
}


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of text parts, joined."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("'content' must be a string or a list of parts.", param="messages")
    return "".join(_part(part) for part in content)


def _part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    named = "image" if kind in ("image_url", "image", "input_image") else kind
    raise InvalidRequest(f"The student reads text only; 'content' has a part of type '{named}'.", param="messages")
