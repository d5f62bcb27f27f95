"""What the scripted teacher reads and writes: requests, completions, chunks, embeddings, errors."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from stillroom.teachers.scripted.weighing import MOST_ALTERNATIVES, weighed

JsonObject = dict[str, Any]

PATH = re.compile(r"/(?:v1|openai/deployments/[^/]+)/(chat/completions|embeddings|models)")
CHUNK = re.compile(r"\s*(?:\w{1,12}|[^\w\s]+)|\s+")
BYTES_PER_TOKEN = 4
PART_BYTES = 32
BLOCK_BYTES = 65_536
MOST_CHOICES = 128
MOST_TOKENS = 2**31
EMBEDDING = struct.Struct("<16f")
FINGERPRINT = "fp_scripted"
JSON = "application/json"
DONE = b"data: [DONE]\n\n"


def count_tokens(text: str) -> int:
    """The scripted teacher's token count: one for every four bytes of UTF-8 begun, and at least one."""
    return max(1, -(-len(text.encode()) // BYTES_PER_TOKEN))


def is_azure(request: web.BaseRequest) -> bool:
    return request.rel_url.raw_path.startswith("/openai/")


def resource_of(request: web.BaseRequest) -> str | None:
    """The resource that is asked for; None when the method, path or api-version fits none."""
    found = PATH.fullmatch(request.rel_url.raw_path)
    if found is None or (is_azure(request) and "api-version" not in request.query):
        return None
    resource = found[1]
    return resource if request.method == ("GET" if resource == "models" else "POST") else None


def parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def wrong_parameter(resource: str, body: Any) -> str | None:
    """The first parameter that makes the request impossible to answer; None when there is none."""
    if not isinstance(body, dict):
        return "body"
    if resource == "embeddings":
        return None if isinstance(body.get("input"), str | list) and body["input"] else "input"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        return "messages"
    most = {"n": MOST_CHOICES, "max_tokens": MOST_TOKENS, "max_completion_tokens": MOST_TOKENS}
    given = {name: body[name] for name in most if body.get(name) is not None}
    wrong = [n for n, value in given.items() if not isinstance(value, int) or not 1 <= value <= most[n]]
    return wrong[0] if wrong else _wrong_logprobs(body)


def _wrong_logprobs(body: JsonObject) -> str | None:
    asked, alternatives = body.get("logprobs"), body.get("top_logprobs")
    if not isinstance(asked, bool | None):
        return "logprobs"
    if alternatives is None:
        return None
    right = isinstance(alternatives, int) and 0 <= alternatives <= MOST_ALTERNATIVES
    return None if right and asked is True else "top_logprobs"


def refusal(request: web.BaseRequest, status: int, message: str, **details: str) -> web.Response:
    error = error_body(status, message, azure=is_azure(request), **details)
    return web.Response(status=status, body=msgspec.json.encode(error), content_type=JSON)


def error_body(
    status: int, message: str, *, code: str | None = None, param: str | None = None, azure: bool = False
) -> JsonObject:
    if azure:
        return {"error": {"code": str(status), "message": message}}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind, code = "requests", "rate_limit_exceeded"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def completion_of(
    body: JsonObject, answer: str | JsonObject, *, model: str, number: int, logprobs: bool = True
) -> JsonObject:
    """The `chat.completion`; with `n`, as many equal choices. `logprobs`: whether those are told when asked for."""
    message: JsonObject = {"role": "assistant", "content": None, "refusal": None}
    message |= {"content": answer} if isinstance(answer, str) else answer
    finish_reason = "tool_calls" if message.get("tool_calls") else "stop"
    most_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    content = message["content"]
    if most_tokens is not None and content and count_tokens(content) > most_tokens:
        message["content"] = content.encode()[: most_tokens * BYTES_PER_TOKEN].decode(errors="ignore")
        finish_reason = "length"
    told = _logprobs_of(body, message) if logprobs else None
    choice = {"message": message, "logprobs": told, "finish_reason": finish_reason}
    choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
    return {
        "id": f"chatcmpl-scripted{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage_of(body["messages"], message, choices=len(choices)),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _logprobs_of(body: JsonObject, message: JsonObject) -> JsonObject | None:
    """Those of the text; tool calls have none."""
    if body.get("logprobs") is not True:
        return None
    parts = CHUNK.findall(message["content"] or "")
    return {"content": weighed(parts, body.get("top_logprobs") or 0) if parts else None, "refusal": None}


def usage_of(messages: list[JsonObject], message: JsonObject, *, choices: int) -> JsonObject:
    prompt = sum(count_tokens(text_of(m.get("content"))) for m in messages)
    arguments = "".join(call["function"]["arguments"] for call in message.get("tool_calls") or ())
    completion = choices * count_tokens((message["content"] or "") + arguments)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def stream_events(body: JsonObject, completion: JsonObject) -> list[bytes]:
    """The completion as server-sent events with `[DONE]` at the end."""
    usage = completion["usage"]
    chunk = {**completion, "object": "chat.completion.chunk", "usage": None}
    if not (with_usage := (body.get("stream_options") or {}).get("include_usage") is True):
        del chunk["usage"]
    events = []
    for choice in completion["choices"]:
        frame = {"index": choice["index"], "logprobs": None, "finish_reason": None}
        told = list((choice["logprobs"] or {}).get("content") or ())
        for delta in deltas(choice["message"]):
            part = _taken(told, delta.get("content") or "")
            events.append(event_bytes({**chunk, "choices": [{**frame, "delta": delta, "logprobs": part}]}))
        end = {**frame, "delta": {}, "finish_reason": choice["finish_reason"]}
        events.append(event_bytes({**chunk, "choices": [end]}))
    if with_usage:
        events.append(event_bytes({**chunk, "choices": [], "usage": usage}))
    return [*events, DONE]


def _taken(told: list[JsonObject], text: str) -> JsonObject | None:
    """Takes from the front the tokens that spell this text, for the chunk that carries it."""
    left, content = len(text.encode(errors="replace")), []
    while told and left > 0:
        content.append(told.pop(0))
        left -= len(content[-1]["bytes"])
    return {"content": content, "refusal": None} if content else None


def deltas(message: JsonObject) -> Iterator[JsonObject]:
    """The message as it grows: first everything but its text and tool calls, then these in small parts."""
    content, calls = message["content"], message.get("tool_calls") or []
    rest = {name: value for name, value in message.items() if name not in ("content", "tool_calls")}
    yield {**rest, "content": None if content is None else ""}
    for part in CHUNK.findall(content or ""):
        yield {"content": part}
    for index, call in enumerate(calls):
        function = call["function"]
        yield {"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]}
        for part in CHUNK.findall(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


def embedding_list(body: JsonObject, *, model: str) -> JsonObject:
    """One vector for each text or token list of the input, as base64 when that is asked for."""
    given = body["input"]
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    vectors = [vector_of(one) for one in inputs]
    written = in_base64 if body.get("encoding_format") == "base64" else EMBEDDING.unpack
    tokens = sum(count_tokens(one) if isinstance(one, str) else len(one) for one in inputs)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": written(v)} for i, v in enumerate(vectors)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector_of(text: str | list[int]) -> bytes:
    """16 little-endian float32 of length 1 from a hash: equal inputs are equal, others are unrelated."""
    digest = hashlib.blake2b(msgspec.json.encode(text), digest_size=64).digest()
    numbers = [integer / 2**31 - 1 for integer in struct.unpack("<16I", digest)]
    length = math.hypot(*numbers)
    return EMBEDDING.pack(*(number / length for number in numbers))


def in_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def model_list(model: str) -> JsonObject:
    entry = {"id": model, "object": "model", "created": 0, "owned_by": "stillroom"}
    return {"object": "list", "data": [entry]}


def text_of(content: Any) -> str:
    """A message's text: itself, or its text parts joined; images and sounds have none."""
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def event_bytes(value: JsonObject) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def body_parts(value: JsonObject) -> list[bytes]:
    body = msgspec.json.encode(value)
    return [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]


def blocks(byte: bytes, total: int) -> Iterator[bytes]:
    block = byte * BLOCK_BYTES
    for done in range(0, total, BLOCK_BYTES):
        yield block[: total - done]
