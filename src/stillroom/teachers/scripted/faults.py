"""What goes wrong on demand: each fault sends a right answer in its own wrong way."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import msgspec
from aiohttp import web

from stillroom.teachers.scripted.objects import JsonObject, blocks, error_body, event_bytes, is_azure

GZIP = 31  # zlib's name for a gzip header and the largest window
JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, with no time to linger


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
            body = error_body(self.code, "The scripted teacher was told to fail.", azure=reply.azure)
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
        error = event_bytes(error_body(500, "The scripted teacher was told to fail in the stream."))
        return await reply.send([*reply.pieces[: self.after_chunks], error])


@dataclass(frozen=True, kw_only=True)
class HugeLine:
    """One line of so many bytes and more: an event that never ends, or JSON that never closes."""

    bytes: int

    async def send(self, reply: Reply) -> web.StreamResponse:
        response = await reply.open()
        await response.write(b'data: {"id":"' if reply.streamed else b'{"id":"')
        for block in blocks(b"x", self.bytes):
            await response.write(block)
        return response


@dataclass(frozen=True, kw_only=True)
class GzipBomb:
    """A small gzip body that inflates to so many spaces."""

    bytes: int

    async def send(self, reply: Reply) -> web.StreamResponse:
        packer = zlib.compressobj(wbits=GZIP)
        body = b"".join(packer.compress(block) for block in blocks(b" ", self.bytes)) + packer.flush()
        return await Status(code=200, headers={"content-encoding": "gzip"}, body=body).send(reply)


@dataclass(frozen=True, kw_only=True)
class RefuseStreamOptions:
    """400 for a request with `stream_options`, as some servers answer; others get their right answer."""

    async def send(self, reply: Reply) -> web.StreamResponse:
        if "stream_options" not in reply.question:
            return await reply.send()
        message = "Unrecognized request argument supplied: stream_options"
        return await Status(code=400, body=error_body(400, message)).send(reply)


@dataclass(frozen=True, kw_only=True)
class RefuseLogprobs:
    """400 for a request that asks for logprobs with more alternatives than `most`, or, with None, for any."""

    most: int | None = None

    async def send(self, reply: Reply) -> web.StreamResponse:
        asked = reply.question.get("top_logprobs") or 0
        if reply.question.get("logprobs") is not True or (self.most is not None and asked <= self.most):
            return await reply.send()
        message = f"Invalid value for 'top_logprobs': must be at most {self.most}."
        if self.most is None:
            message = "Unsupported parameter: 'logprobs' is not supported with this model."
        name = "logprobs" if self.most is None else "top_logprobs"
        error = error_body(400, message, code="unsupported_parameter", param=name, azure=reply.azure)
        return await Status(code=400, body=error).send(reply)


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
        return is_azure(self.request)

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
        raise ResetByScript


class ResetByScript(ConnectionResetError):
    """Tells the server that nothing is left to send although the client has not gone away."""
