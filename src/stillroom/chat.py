"""The chat completions language: requests, completions, chunks, and the protocol of whoever answers.

Requests are passed on as the bytes they came in; of the body only what the gateway needs is read.
This module knows the wire format and nothing of HTTP servers, databases or models.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from stillroom.errors import InvalidRequest

METADATA_PAIRS = 16
METADATA_KEY_LETTERS = 64
METADATA_VALUE_LETTERS = 512
DONE = b"[DONE]"
THINKS, HAS_THOUGHT = "<think>", "</think>"
OURS = "stillroom"  # the field of a request that is meant for nobody else
NOT_FORWARDED = ("store", "metadata", OURS)  # ours to honour; the teacher would store, or refuse them
MOST_TOP_LOGPROBS = 20  # that the API has
LEADING_ROLES = ("system", "developer")
MOST_TOKENS = 2**31  # an upstream that reports more is not believed
MOST_PARTS = 4096  # choices, and tool calls in one of them: an index beyond would only take memory
BYTES_PER_TOKEN = 4  # only for estimates, when a teacher reports no usage

JSON = msgspec.json


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A chat completion request: the parsed body and each top-level value's own bytes."""

    body: dict[str, Any]
    raw: Mapping[str, msgspec.Raw]

    @property
    def model(self) -> str | None:
        return self.body.get("model")

    @property
    def store(self) -> bool:
        return self.body.get("store") is True

    @property
    def stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def metadata(self) -> dict[str, str]:
        return self.body.get("metadata") or {}

    @property
    def top_logprobs(self) -> int | None:
        """How many alternatives at each token its caller wants kept, but not shown; None: as the teacher has it set."""
        number: int | None = (self.body.get(OURS) or {}).get("top_logprobs")
        return number

    def begins_with(self, prompt: str) -> bool:
        """Whether its system prompt is this, and something follows."""
        first, *others = self.body["messages"]
        more = {name for name, value in first.items() if value is not None} - {"role", "content"}
        if not others or more or first.get("role") not in LEADING_ROLES:
            return False
        content = first.get("content")
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
            content = content[0].get("text") if content[0].get("type") == "text" else None
        return bool(content == prompt)

    def forwarded(
        self, model: str, *, ask_usage: bool, top_logprobs: int | None = None, without_prompt: bool = False
    ) -> bytes:
        """The body for the upstream: `model` in its words, every other value byte for byte.

        `top_logprobs`: asks for so many, whatever the caller asked for. `without_prompt`: without the first message."""
        fields: dict[str, Any] = {name: value for name, value in self.raw.items() if name not in NOT_FORWARDED}
        fields["model"] = model
        if top_logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": top_logprobs}
        if without_prompt:
            fields["messages"] = JSON.decode(self.raw["messages"], type=list[msgspec.Raw])[1:]
        if self.stream and ask_usage:
            fields["stream_options"] = {**(self.body.get("stream_options") or {}), "include_usage": True}
        elif self.stream and not ask_usage:
            fields.pop("stream_options", None)
        return JSON.encode(fields)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one answer; `estimated` when the upstream did not report them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    estimated: bool = False


class Answer(Protocol):
    """An upstream's answer whose head has arrived. Close it, read to its end or not."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """The whole body."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""

    def close(self) -> None:
        """Drops the connection when the body was not read to its end."""


class Upstream(Protocol):
    """Whoever answers chat completions: a teacher, the student host, any compatible server."""

    async def ask(self, body: bytes) -> Answer:
        """Posts the body. Raises TeacherFailed when no answer's head can be had."""


def parted(text: str) -> tuple[str, str]:
    """The thoughts that a text begins with, when it does, and the answer behind them. A text that broke off before
    its thoughts had ended has no answer."""
    begin = text.lstrip()
    if not begin.startswith(THINKS):
        return "", text
    thoughts, _, answer = begin.removeprefix(THINKS).partition(HAS_THOUGHT)
    return thoughts, answer.lstrip()


def decode(data: bytes) -> Any:
    """The JSON value. Raises InvalidRequest for what is no JSON, NaN and lone surrogates included."""
    try:
        return JSON.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(
            "We could not parse the JSON body of your request. It must be valid UTF-8 JSON, without NaN, "
            f"lone surrogates or extreme nesting: {error}",
            code="invalid_json",
        ) from error


def parse_request(data: bytes) -> ChatRequest:
    """The request, checked as far as the gateway reads it; the upstream checks the rest."""
    body = decode(data)
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    request = ChatRequest(body=body, raw=JSON.decode(data, type=dict[str, msgspec.Raw]))
    _check_flag(body, "store")
    _check_flag(body, "stream")
    if request.stream and not isinstance(body.get("stream_options"), (dict, type(None))):
        raise InvalidRequest(
            "Invalid type for 'stream_options': expected an object.", param="stream_options", code="invalid_type"
        )
    if not isinstance(body.get("model"), (str, type(None))):
        raise InvalidRequest("Invalid type for 'model': expected a string.", param="model", code="invalid_type")
    _check_messages(body)
    _check_ours(body)
    check_metadata(body.get("metadata"))
    if request.store and "\\u0000" in data.decode() and _has_nul(body):
        raise InvalidRequest("NUL characters (\\u0000) cannot be stored; remove them or send store=false.")
    return request


def _check_flag(body: dict[str, Any], name: str) -> None:
    if not isinstance(body.get(name), (bool, type(None))):  # 1 is no boolean, though it equals True
        raise InvalidRequest(f"Invalid type for '{name}': expected a boolean.", param=name, code="invalid_type")


def _check_ours(body: dict[str, Any]) -> None:
    ours = body.get(OURS)
    if ours is None:
        return
    if not isinstance(ours, dict):
        raise InvalidRequest(f"Invalid type for '{OURS}': expected an object.", param=OURS, code="invalid_type")
    for name, value in ours.items():
        if name != "top_logprobs":
            raise InvalidRequest(f"Unknown parameter: '{OURS}.{name[:40]}'. It may have: top_logprobs.", param=OURS)
        right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOP_LOGPROBS
        if value is not None and not right:
            raise InvalidRequest(
                f"Invalid '{OURS}.{name}': expected an integer from 0 to {MOST_TOP_LOGPROBS}.", param=f"{OURS}.{name}"
            )


def _check_messages(body: dict[str, Any]) -> None:
    if "messages" not in body:
        raise InvalidRequest(
            "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
        )
    messages = body["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest(
            "Invalid type for 'messages': expected an array of objects.", param="messages", code="invalid_type"
        )
    if not messages:
        raise InvalidRequest("Invalid 'messages': expected at least one message.", param="messages", code="empty_array")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_has_nul(part) for part in value)


def check_metadata(metadata: Any) -> None:
    """Raises InvalidRequest, in OpenAI's words, unless it is None or at most 16 pairs of short text."""
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise InvalidRequest("Invalid type for 'metadata': expected an object.", param="metadata", code="invalid_type")
    if len(metadata) > METADATA_PAIRS:
        raise InvalidRequest(
            f"Invalid 'metadata': too many properties. Expected an object with at most {METADATA_PAIRS} properties, "
            f"but got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        _check_metadata_pair(key, value)


def _check_metadata_pair(key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InvalidRequest(
            f"Invalid type for 'metadata.{key}': expected a string, but got {type(value).__name__} instead.",
            param=f"metadata.{key}",
            code="invalid_type",
        )
    if "\0" in key or "\0" in value:
        raise InvalidRequest("Metadata must not contain NUL characters.", param="metadata")
    for what, text, limit in (("key", key, METADATA_KEY_LETTERS), ("value", value, METADATA_VALUE_LETTERS)):
        if len(text) > limit:
            raise InvalidRequest(
                f"Invalid 'metadata': {what} '{text[:40]}…' is too long. Expected a string with maximum length "
                f"{limit}, but got a string with length {len(text)} instead.",
                param="metadata",
                code="string_above_max_length",
            )


def is_completion(value: Any) -> bool:
    """Whether a parsed body is a chat completion with at least one choice that holds a message."""
    if not isinstance(value, dict) or not isinstance(value.get("choices"), list) or not value["choices"]:
        return False
    return all(isinstance(c, dict) and isinstance(c.get("message"), dict) for c in value["choices"])


def usage_of(completion: Mapping[str, Any], request: ChatRequest) -> Usage:
    """The usage the upstream reported, or an estimate marked as such."""
    reported = completion.get("usage")
    prompt_tokens = _count(reported, "prompt_tokens")
    if isinstance(reported, dict) and prompt_tokens is not None:
        cached = _count(reported.get("prompt_tokens_details"), "cached_tokens") or 0
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=_count(reported, "completion_tokens") or 0,
            cached_tokens=min(cached, prompt_tokens),
        )
    said = sum(len(JSON.encode(choice.get("message"))) for choice in completion.get("choices") or [])
    asked = len(bytes(request.raw["messages"]))
    return Usage(prompt_tokens=asked // BYTES_PER_TOKEN + 1, completion_tokens=said // BYTES_PER_TOKEN, estimated=True)


def _count(usage: Any, name: str) -> int | None:
    """A number of tokens that an upstream reports; None when it is none that can be billed."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS else None


def replace_id(data: bytes, old: bytes, new: bytes) -> bytes:
    """`data` with the JSON string `old` (quotes included), where it stands as an id, made `new`."""
    return re.sub(rb'("id"\s*:\s*)' + re.escape(old), lambda found: found[1] + new, data, count=0)


def is_chunk(value: Any) -> bool:
    """Whether a parsed event has a chunk's shape, as far as `completion_from_chunks` relies on it."""
    choices = value.get("choices", []) if isinstance(value, dict) else None
    return isinstance(choices, list) and all(map(_is_choice, choices))


def _is_choice(part: Any) -> bool:
    if not isinstance(part, dict) or not _is_index(part.get("index", 0)):
        return False
    delta = part.get("delta") or {}
    calls = (delta.get("tool_calls") or []) if isinstance(delta, dict) else None
    return isinstance(calls, list) and all(isinstance(c, dict) and _is_index(c.get("index", 0)) for c in calls)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_PARTS


def completion_from_chunks(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The completion that a stream of `chat.completion.chunk` objects spells.

    A choice that never got a finish reason keeps `finish_reason: null`: the stream was cut.
    """
    completion: dict[str, Any] = {"object": "chat.completion", "choices": [], "usage": None}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for name in ("id", "created", "model", "system_fingerprint", "service_tier", "usage"):
            if chunk.get(name) is not None:
                completion[name] = chunk[name]
        for part in chunk.get("choices") or []:
            _add_delta(choices.setdefault(part.get("index", 0), _empty_choice(part.get("index", 0))), part)
    completion["choices"] = [choices[index] for index in sorted(choices)]
    return completion


def _empty_choice(index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": None}


def _add_delta(choice: dict[str, Any], part: Mapping[str, Any]) -> None:
    message = choice["message"]
    for name, value in (part.get("delta") or {}).items():
        if name == "role":
            message["role"] = value or message["role"]
        elif name == "tool_calls":
            _add_tool_calls(message.setdefault("tool_calls", []), value or [])
        elif name == "function_call":
            _add_text(message.setdefault("function_call", {}), value)
        elif isinstance(value, str) and isinstance(message.get(name), (str, type(None))):
            message[name] = (message.get(name) or "") + value
        elif value is not None:
            message[name] = value
    if isinstance(part.get("logprobs"), dict):
        _add_logprobs(choice, part["logprobs"])
    choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]


def _add_tool_calls(calls: list[dict[str, Any]], deltas: list[dict[str, Any]]) -> None:
    for delta in deltas:
        index = delta.get("index", len(calls))
        while len(calls) <= index:
            calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
        calls[index]["id"] = delta.get("id") or calls[index]["id"]
        calls[index]["type"] = delta.get("type") or calls[index]["type"]
        _add_text(calls[index]["function"], delta.get("function"))


def _add_text(target: dict[str, Any], parts: Any) -> None:
    for name, value in parts.items() if isinstance(parts, dict) else ():
        if isinstance(value, str):
            target[name] = (target.get(name) or "") + value


def _add_logprobs(choice: dict[str, Any], logprobs: Mapping[str, Any]) -> None:
    kept = choice["logprobs"] = choice["logprobs"] or {"content": None, "refusal": None}
    for name in ("content", "refusal"):
        if isinstance(logprobs.get(name), list):
            kept[name] = (kept[name] or []) + logprobs[name]
