"""A teacher that answers from a script: a real HTTP server on loopback, speaking OpenAI's chat completions.

It is for the demo, which needs a teacher without keys or network, and for tests (yours too), which need a
teacher that fails on demand:

    with ScriptedTeacher(echo) as teacher:
        teacher.script(Status(code=429, headers={"retry-after": "1"}))
        client = OpenAI(base_url=teacher.url, api_key="any")

Owns the wire: the response objects, the server-sent events, the scripted faults and the record of what
arrived. What an answer says comes from a function that is handed in; there is no language model in here.
Knows nothing of stillroom's own API, of deployments or of prices.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import math
import re
import socket
import struct
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self, TypedDict

import msgspec
from aiohttp import web

from stillroom.teachers import triage

JsonObject = dict[str, Any]
Answer = Callable[[JsonObject], "str | JsonObject"]
"""From the request's body to the answer's text, or to an assistant message (`content`, `tool_calls`, ...)."""

PATH = re.compile(r"/(?:v1|openai/deployments/[^/]+)/(chat/completions|embeddings|models)")
CHUNK = re.compile(r"\s*(?:\w{1,12}|[^\w\s]+)|\s+")
BYTES_PER_TOKEN = 4
PART_BYTES = 32
BLOCK_BYTES = 65_536
MOST_CHOICES = 128
MOST_TOKENS = 2**31
EMBEDDING = struct.Struct("<16f")
GZIP = 31  # zlib's name for a gzip header and the largest window
FINGERPRINT = "fp_scripted"
JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, with no time to linger
SHUTDOWN_SECONDS = 0.1


# What the answers say.


def triage_expert(body: JsonObject) -> str:
    """The triage of the last user message, by the rules of `stillroom.teachers.triage`."""
    return triage.triage(echo(body))


def echo(body: JsonObject) -> str:
    """The text of the last user message; empty when there is none."""
    return next((_text(m.get("content")) for m in reversed(body["messages"]) if m.get("role") == "user"), "")


def count_tokens(text: str) -> int:
    """The scripted teacher's token count: one for every four bytes of UTF-8 begun, and at least one."""
    return max(1, -(-len(text.encode()) // BYTES_PER_TOKEN))


# What goes wrong.


class Fault(Protocol):
    """A way in which one answer goes wrong. The shipped ones follow; a test may bring its own."""

    async def send(self, reply: Reply) -> web.StreamResponse: ...


@dataclass(frozen=True, kw_only=True)
class Status:
    """This status instead of an answer: with an error object, or with the body that is given.

    An object is sent as JSON, a text as text/plain, bytes as JSON; `headers` may name another content-type.
    """

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: JsonObject | str | bytes | None = None

    async def send(self, reply: Reply) -> web.StreamResponse:
        body = self.body
        if body is None:
            body = _error(self.code, "The scripted teacher was told to fail.", azure=reply.azure)
        if isinstance(body, dict):
            body = msgspec.json.encode(body)
        kind = "text/plain" if isinstance(body, str) else JSON
        headers = reply.headers(kind) | {name.lower(): value for name, value in self.headers.items()}
        content = body.encode() if isinstance(body, str) else body
        return web.Response(status=self.code, headers=headers, body=content)


@dataclass(frozen=True, kw_only=True)
class Html:
    """A page with status 200, as a proxy or a captive portal gives."""

    async def send(self, reply: Reply) -> web.StreamResponse:
        page = "<html><body><h1>Please sign in</h1></body></html>"
        return await Status(code=200, headers={"content-type": "text/html"}, body=page).send(reply)


@dataclass(frozen=True, kw_only=True)
class BadJson:
    """JSON that breaks off, as the body or as a stream's only event; status and content type are right."""

    async def send(self, reply: Reply) -> web.StreamResponse:
        broken = b'{"id":"chatcmpl-broken","choices":[{"index":0,'
        return await reply.send([b"data: " + broken + b"\n\n", DONE] if reply.streamed else [broken])


@dataclass(frozen=True, kw_only=True)
class Hang:
    """Silence for so long, before anything is sent or after so many pieces; then the answer goes on."""

    seconds: float
    after_chunks: int | None = None

    async def send(self, reply: Reply) -> web.StreamResponse:
        if self.after_chunks is None:
            await asyncio.sleep(self.seconds)
            return await reply.send()
        response = await reply.open()
        await reply.write(response, reply.pieces[: self.after_chunks])
        await asyncio.sleep(self.seconds)
        return await reply.write(response, reply.pieces[self.after_chunks :])


@dataclass(frozen=True, kw_only=True)
class Drip:
    """The right answer one byte at a time, with so long a pause after each."""

    seconds: float

    async def send(self, reply: Reply) -> web.StreamResponse:
        response = await reply.open()
        for byte in b"".join(reply.pieces):
            await response.write(bytes((byte,)))
            await asyncio.sleep(self.seconds)
        return response


@dataclass(frozen=True, kw_only=True)
class CutStream:
    """A TCP reset after so many pieces."""

    after_chunks: int

    async def send(self, reply: Reply) -> web.StreamResponse:
        await reply.write(await reply.open(), reply.pieces[: self.after_chunks])
        reply.reset()


@dataclass(frozen=True, kw_only=True)
class EndStreamWithoutDone:
    """An orderly end of the response after so many pieces: only the missing rest gives it away."""

    after_chunks: int

    async def send(self, reply: Reply) -> web.StreamResponse:
        return await reply.send(reply.pieces[: self.after_chunks])


@dataclass(frozen=True, kw_only=True)
class StreamError:
    """An error event after so many pieces of a stream; an answer that is not streamed becomes status 500."""

    after_chunks: int

    async def send(self, reply: Reply) -> web.StreamResponse:
        if not reply.streamed:
            return await Status(code=500).send(reply)
        error = _event(_error(500, "The scripted teacher was told to fail in the stream."))
        return await reply.send([*reply.pieces[: self.after_chunks], error])


@dataclass(frozen=True, kw_only=True)
class HugeLine:
    """One line of so many bytes and more: an event that never ends, or JSON that never closes."""

    bytes: int

    async def send(self, reply: Reply) -> web.StreamResponse:
        response = await reply.open()
        await response.write(b'data: {"id":"' if reply.streamed else b'{"id":"')
        for block in _blocks(b"x", self.bytes):
            await response.write(block)
        return response


@dataclass(frozen=True, kw_only=True)
class GzipBomb:
    """A small gzip body that inflates to so many spaces."""

    bytes: int

    async def send(self, reply: Reply) -> web.StreamResponse:
        packer = zlib.compressobj(wbits=GZIP)
        body = b"".join(packer.compress(block) for block in _blocks(b" ", self.bytes)) + packer.flush()
        return await Status(code=200, headers={"content-encoding": "gzip"}, body=body).send(reply)


@dataclass(frozen=True, kw_only=True)
class RefuseStreamOptions:
    """400 for a request with `stream_options`, as some servers answer; others get their right answer."""

    async def send(self, reply: Reply) -> web.StreamResponse:
        if "stream_options" not in reply.question:
            return await reply.send()
        message = "Unrecognized request argument supplied: stream_options"
        return await Status(code=400, body=_error(400, message)).send(reply)


@dataclass(frozen=True, kw_only=True)
class CloseAtOnce:
    """A TCP reset instead of a response."""

    async def send(self, reply: Reply) -> web.StreamResponse:
        reply.reset()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The right answer to one request, and the connection on which it goes out or goes wrong."""

    request: web.BaseRequest
    question: JsonObject
    number: int
    pieces: Sequence[bytes]
    """A stream's events with `[DONE]` at the end; otherwise the JSON body in parts of 32 bytes."""
    streamed: bool = False
    pause_seconds: float = 0.0
    """After each event of a stream."""

    @property
    def azure(self) -> bool:
        return _is_azure(self.request)

    async def send(self, pieces: Sequence[bytes] | None = None) -> web.StreamResponse:
        """The right answer, or other pieces in its place."""
        pieces = self.pieces if pieces is None else pieces
        if self.streamed:
            return await self.write(await self.open(), pieces)
        return web.Response(body=b"".join(pieces), headers=self.headers(JSON))

    async def open(self) -> web.StreamResponse:
        """Send status 200 and the headers."""
        response = web.StreamResponse(headers=self.headers(EVENT_STREAM if self.streamed else JSON))
        await response.prepare(self.request)
        return response

    async def write(self, response: web.StreamResponse, pieces: Iterable[bytes]) -> web.StreamResponse:
        for piece in pieces:
            await response.write(piece)
            if self.pause_seconds:
                await asyncio.sleep(self.pause_seconds)
        return response

    def headers(self, content_type: str) -> dict[str, str]:
        return {"content-type": content_type, "x-request-id": f"req_{self.number}"}

    def reset(self) -> NoReturn:
        """Break the connection with a TCP reset; what was written before still arrives."""
        if (transport := self.request.transport) is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            transport.abort()
        raise _ResetByScript


class _ResetByScript(ConnectionResetError):
    """Tells the server that nothing is left to send although the client has not gone away."""


# The server.


class ReceivedRequest(TypedDict):
    """A request as it arrived: header names in lower case; the body parsed, None when it is not JSON."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, kw_only=True)
class _Running:
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


class ScriptedTeacher:
    """An OpenAI-shaped and Azure-shaped model server in a thread of its own, from `with` or `start` on.

    `answer` is called in the server's thread and must not block. An answer takes `first_token_seconds` and
    then `token_seconds` for every chunk, streamed or not. Answers carry the name `model`, whatever name the
    request has. With an `api_key` a request must bring it: as a bearer token, on Azure's paths as `api-key`.
    Without `record` the requests are counted but not kept.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        first_token_seconds: float = 0.0,
        token_seconds: float = 0.0,
        model: str = "scripted-triage",
        api_key: str | None = None,
        record: bool = True,
    ) -> None:
        self._answer = answer
        self._host = host
        self._port = port
        self._first_token_seconds = first_token_seconds
        self._token_seconds = token_seconds
        self._model = model
        self._api_key = api_key
        self._record = record
        self._lock = threading.Lock()
        self._requests: list[ReceivedRequest] = []
        self._calls = 0
        self._cancelled = 0
        self._faults: deque[Fault | None] = deque()
        self._lasting: Fault | None = None
        self._running: _Running | None = None

    def start(self) -> Self:
        """Accept connections from now on; starting twice does nothing. OSError when the port is taken."""
        if self._running is not None:
            return self
        listener = socket.create_server((self._host, self._port), backlog=1_024)
        self._port = listener.getsockname()[1]
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(
            target=loop.run_until_complete,
            args=(self._serve(listener, stop),),
            name="scripted-teacher",
            daemon=True,
        )
        self._running = _Running(thread=thread, loop=loop, stop=stop)
        thread.start()
        return self

    def close(self) -> None:
        """Stop; answers on their way are broken off. Closing twice does nothing."""
        if self._running is not None:
            running, self._running = self._running, None
            running.loop.call_soon_threadsafe(running.stop.set)
            running.thread.join()
            running.loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The `base_url` of OpenAI clients."""
        return f"{self.azure_endpoint}/v1"

    @property
    def azure_endpoint(self) -> str:
        """The `azure_endpoint` of Azure OpenAI clients; any deployment name and api-version will do."""
        return f"http://{self._host}:{self._port}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The chat and embedding requests so far, oldest first."""
        with self._lock:
            return list(self._requests)

    @property
    def calls(self) -> int:
        """How many chat and embedding requests arrived, refused and failed ones included."""
        return self._calls

    @property
    def cancelled(self) -> int:
        """How many answers, streamed or not, were not finished because the client left."""
        return self._cancelled

    def script(self, *faults: Fault | None) -> None:
        """One fault for each of the next chat or embedding requests, in order; None is a right answer."""
        with self._lock:
            self._faults.extend(faults)

    def script_lasting(self, fault: Fault | None) -> None:
        """This fault for every request for which `script` has none left; None ends it."""
        with self._lock:
            self._lasting = fault

    async def _serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        # Without handler_cancellation a hanging answer would not notice that its client has left.
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        await stop.wait()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._respond(request)
        except _ResetByScript:
            raise
        except (asyncio.CancelledError, ConnectionError):
            if self._running is not None:
                self._cancelled += 1
            raise

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        resource = _resource(request)
        if resource is None:
            return _refusal(request, 404, f"Invalid URL ({request.method} {request.path})")
        if resource == "models":
            return web.Response(body=msgspec.json.encode(_model_list(self._model)), content_type=JSON)
        # `content` has no size limit, unlike `request.read()`: images make long requests.
        body = _parsed(await request.content.read())
        number = self._note(request, body)
        if not self._admits(request):
            return _refusal(request, 401, "Incorrect API key provided.", code="invalid_api_key")
        if (wrong := _wrong_parameter(resource, body)) is not None:
            return _refusal(request, 400, f"Missing or invalid parameter: '{wrong}'.", param=wrong)
        fault = self._next_fault()
        reply = await self._reply(request, resource, body, number)
        return await (reply.send() if fault is None else fault.send(reply))

    def _note(self, request: web.BaseRequest, body: Any) -> int:
        """Record the request; its number, from 1."""
        with self._lock:
            self._calls += 1
            if self._record:
                headers = {name.lower(): value for name, value in request.headers.items()}
                self._requests.append(
                    {"path": request.path, "query": dict(request.query), "headers": headers, "body": body}
                )
            return self._calls

    def _admits(self, request: web.BaseRequest) -> bool:
        if self._api_key is None:
            return True
        if _is_azure(request):
            return request.headers.get("api-key") == self._api_key
        return request.headers.get("authorization") == f"Bearer {self._api_key}"

    def _next_fault(self) -> Fault | None:
        with self._lock:
            return self._faults.popleft() if self._faults else self._lasting

    async def _reply(self, request: web.BaseRequest, resource: str, body: JsonObject, number: int) -> Reply:
        if self._first_token_seconds:
            await asyncio.sleep(self._first_token_seconds)
        if resource == "embeddings":
            vectors = _embedding_list(body, model=self._model)
            return Reply(request=request, question=body, number=number, pieces=_parts(vectors))
        completion = _completion(body, self._answer(body), model=self._model, number=number)
        if body.get("stream") is not True:
            if self._token_seconds:
                await asyncio.sleep(self._token_seconds * len(_events(body, completion)))
            return Reply(request=request, question=body, number=number, pieces=_parts(completion))
        return Reply(
            request=request,
            question=body,
            number=number,
            pieces=_events(body, completion),
            streamed=True,
            pause_seconds=self._token_seconds,
        )


# What arrives, and the objects that leave.


def _is_azure(request: web.BaseRequest) -> bool:
    return request.rel_url.raw_path.startswith("/openai/")


def _resource(request: web.BaseRequest) -> str | None:
    """The resource that is asked for; None when the method, path or api-version fits none."""
    found = PATH.fullmatch(request.rel_url.raw_path)
    if found is None or (_is_azure(request) and "api-version" not in request.query):
        return None
    resource = found[1]
    return resource if request.method == ("GET" if resource == "models" else "POST") else None


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _wrong_parameter(resource: str, body: Any) -> str | None:
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
    return next((n for n, value in given.items() if not isinstance(value, int) or not 1 <= value <= most[n]), None)


def _refusal(request: web.BaseRequest, status: int, message: str, **details: str) -> web.Response:
    error = _error(status, message, azure=_is_azure(request), **details)
    return web.Response(status=status, body=msgspec.json.encode(error), content_type=JSON)


def _error(
    status: int, message: str, *, code: str | None = None, param: str | None = None, azure: bool = False
) -> JsonObject:
    if azure:
        return {"error": {"code": str(status), "message": message}}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind, code = "requests", "rate_limit_exceeded"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _completion(body: JsonObject, answer: str | JsonObject, *, model: str, number: int) -> JsonObject:
    """The `chat.completion`; with `n`, as many equal choices."""
    message: JsonObject = {"role": "assistant", "content": None, "refusal": None}
    message |= {"content": answer} if isinstance(answer, str) else answer
    finish_reason = "tool_calls" if message.get("tool_calls") else "stop"
    most_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    content = message["content"]
    if most_tokens is not None and content and count_tokens(content) > most_tokens:
        message["content"] = content.encode()[: most_tokens * BYTES_PER_TOKEN].decode(errors="ignore")
        finish_reason = "length"
    choice = {"message": message, "logprobs": None, "finish_reason": finish_reason}
    choices = [{"index": index, **choice} for index in range(body.get("n") or 1)]
    return {
        "id": f"chatcmpl-scripted{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": _usage(body["messages"], message, choices=len(choices)),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _usage(messages: list[JsonObject], message: JsonObject, *, choices: int) -> JsonObject:
    prompt = sum(count_tokens(_text(m.get("content"))) for m in messages)
    arguments = "".join(call["function"]["arguments"] for call in message.get("tool_calls") or ())
    completion = choices * count_tokens((message["content"] or "") + arguments)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _events(body: JsonObject, completion: JsonObject) -> list[bytes]:
    """The completion as server-sent events with `[DONE]` at the end."""
    usage = completion["usage"]
    chunk = {**completion, "object": "chat.completion.chunk", "usage": None}
    if not (with_usage := (body.get("stream_options") or {}).get("include_usage") is True):
        del chunk["usage"]
    events = []
    for choice in completion["choices"]:
        frame = {"index": choice["index"], "logprobs": None, "finish_reason": None}
        for delta in _deltas(choice["message"]):
            events.append(_event({**chunk, "choices": [{**frame, "delta": delta}]}))
        end = {**frame, "delta": {}, "finish_reason": choice["finish_reason"]}
        events.append(_event({**chunk, "choices": [end]}))
    if with_usage:
        events.append(_event({**chunk, "choices": [], "usage": usage}))
    return [*events, DONE]


def _deltas(message: JsonObject) -> Iterator[JsonObject]:
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


def _embedding_list(body: JsonObject, *, model: str) -> JsonObject:
    """One vector for each text or token list of the input, as base64 when that is asked for."""
    given = body["input"]
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    vectors = [_vector(one) for one in inputs]
    written = _in_base64 if body.get("encoding_format") == "base64" else EMBEDDING.unpack
    tokens = sum(count_tokens(one) if isinstance(one, str) else len(one) for one in inputs)
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": written(v)} for i, v in enumerate(vectors)],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(text: str | list[int]) -> bytes:
    """16 little-endian float32 of length 1 from a hash: equal inputs are equal, others are unrelated."""
    digest = hashlib.blake2b(msgspec.json.encode(text), digest_size=64).digest()
    numbers = [integer / 2**31 - 1 for integer in struct.unpack("<16I", digest)]
    length = math.hypot(*numbers)
    return EMBEDDING.pack(*(number / length for number in numbers))


def _in_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _model_list(model: str) -> JsonObject:
    entry = {"id": model, "object": "model", "created": 0, "owned_by": "stillroom"}
    return {"object": "list", "data": [entry]}


def _text(content: Any) -> str:
    """A message's text: itself, or its text parts joined; images and sounds have none."""
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _event(value: JsonObject) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _parts(value: JsonObject) -> list[bytes]:
    body = msgspec.json.encode(value)
    return [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]


def _blocks(byte: bytes, total: int) -> Iterator[bytes]:
    block = byte * BLOCK_BYTES
    for done in range(0, total, BLOCK_BYTES):
        yield block[: total - done]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the triage expert until interrupted, or until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m stillroom.teachers.scripted", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seconds-per-answer", type=float, default=0.0)
    parser.add_argument("--until-stdin-closes", action="store_true")
    options = parser.parse_args(arguments)
    seconds = options.seconds_per_answer
    with ScriptedTeacher(triage_expert, port=options.port, first_token_seconds=seconds, record=False) as teacher:
        print(teacher.url, flush=True)  # noqa: T201
        try:
            if options.until_stdin_closes:
                sys.stdin.buffer.read()
            else:
                threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
