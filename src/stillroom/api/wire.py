"""What a handler gets and gives: a parsed call, a reply; and how both meet ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gzip
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import anyio
import msgspec

from stillroom import chat
from stillroom.assembly import Platform
from stillroom.auth import Principal
from stillroom.errors import InvalidRequest, RateLimited, TooLarge, shortened

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIECE = 256 * 1024
WRITTEN = 64 * 1024  # of a stream's piece, what is handed on at once: the caller must take so much in time
MOST_STREAMS = 8
MAY_BE_CUT = "stillroom.may_be_cut"  # in a scope's state: an answer that is not waited for when the server stops
PACKED_BYTES = (4 * 1024, 256 * 1024)  # smaller gains nothing; larger would hold up everybody else
METADATA_FILTER = "metadata["
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")  # what int() takes besides, such as "²" or " 1", is no number here


class Dialect(enum.Enum):
    """Whose words the caller speaks. ARM is Azure's resource manager."""

    OPENAI = "openai"
    AZURE = "azure"
    ARM = "arm"


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a path leads, its prefixes taken off and its segments unquoted."""

    dialect: Dialect
    segments: tuple[str, ...]
    deployment: str | None = None
    versioned: bool = False
    """Whether the path itself names a version, so that no api-version is needed."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, authenticated and located."""

    platform: Platform
    principal: Principal
    location: Location
    method: str
    path: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    request_id: str
    scheme: str
    receive: Receive = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def dialect(self) -> Dialect:
        return self.location.dialect

    @property
    def project(self) -> int:
        return self.principal.project

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises InvalidRequest when it is none."""
        value = chat.decode(self.body) if self.body else {}
        if not isinstance(value, dict):
            raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
        return value

    def limit(self, default: int, most: int) -> int:
        """The page size asked for. Raises InvalidRequest outside 1..most."""
        number = self.number("limit", f"a whole number from 1 to {most}", least=1, most=most)
        return default if number is None else number

    def number(self, name: str, expected: str, *, least: int = 0, most: int | None = None) -> int | None:
        """The whole number that a field of the query is; None without the field. Raises InvalidRequest, saying
        what was `expected`, for anything else."""
        text = self.query.get(name)
        if text is None:
            return None
        number = whole_number(text)
        if number is None or number < least or (most is not None and number > most):
            raise InvalidRequest(f"Invalid '{name}': {text[:40]!r}. Expected {expected}.", param=name)
        return number

    def descending(self, default: str) -> bool:
        """Whether `order` asks for newest first. Raises InvalidRequest for other words."""
        order = self.query.get("order", default)
        if order not in ("asc", "desc"):
            raise InvalidRequest(f"Invalid 'order': {order!r}. Expected 'asc' or 'desc'.", param="order")
        return order == "desc"

    def metadata_filter(self) -> dict[str, str]:
        """The pairs of `metadata[key]=value`. Raises InvalidRequest for a name that only begins like one: to pass
        it over would be to find more than was asked for."""
        found = {}
        for name, value in self.query.items():
            if name.startswith(METADATA_FILTER):
                if not name.endswith("]"):
                    raise InvalidRequest(
                        f"Invalid filter: {shortened(name)!r}. Expected 'metadata[KEY]'.", param=shortened(name)
                    )
                found[name[len(METADATA_FILTER) : -1]] = value
        return found


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer: `body` is JSON to be, or bytes as they are; `file` is sent from disk instead, `stream`
    piece by piece as the caller takes them, each made in a thread."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    stream: Iterator[bytes] | None = field(default=None, repr=False)


class Streams:
    """The replies that are being sent piece by piece. Each keeps a thread and the disk busy for as long as its
    caller takes, so there are only a few at a time."""

    def __init__(self) -> None:
        self._count = 0

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Counts one while it is sent. Raises RateLimited when there are enough."""
        if self._count >= MOST_STREAMS:
            raise RateLimited(f"{MOST_STREAMS} downloads are being sent already. Try again when one has ended.")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


def listing(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page of a list, with the ids that it begins and ends with."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def parse_query(raw: bytes) -> dict[str, str]:
    """The query's fields; of a repeated one, the last."""
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError) as error:
        raise InvalidRequest("The query string is not valid UTF-8 in percent-encoding.") from error


def whole_number(text: str) -> int | None:
    """The number that a few ASCII digits spell; None for any other text."""
    return int(text) if WHOLE_NUMBER.fullmatch(text) else None


def segments_of(raw_path: bytes) -> tuple[str, ...]:
    """The path's segments, split before unquoting, so that `%2F` in a model's name stays one segment."""
    try:
        parts = raw_path.decode("ascii").strip("/").split("/")
        return tuple(unquote(part, errors="strict") for part in parts)
    except UnicodeDecodeError as error:
        raise InvalidRequest("The path is not valid UTF-8 in percent-encoding.") from error


def headers_of(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """The request's body. Raises TooLarge as soon as it is known to be beyond `most` bytes."""
    return b"".join([piece async for piece in stream_body(receive, headers, most)])


async def stream_body(receive: Receive, headers: Mapping[str, str], most: int) -> AsyncGenerator[bytes, None]:
    """The request's body as it comes, counted."""
    if (whole_number(headers.get("content-length", "0")) or 0) > most:
        raise _too_large(most)
    taken = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece = message.get("body", b"")
        taken += len(piece)
        if taken > most:
            raise _too_large(most)
        more = message.get("more_body", False)
        yield piece


class ClientLeft(Exception):
    """The caller closed the connection; there is nobody to answer."""


def takes_gzip(headers: Mapping[str, str]) -> bool:
    """Whether the caller says that it reads gzip."""
    for coding in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def packed(reply: Reply, headers: Mapping[str, str]) -> Reply:
    """The reply with its JSON as gzip, where the caller reads that and it is worth the time."""
    if reply.file is not None or reply.body is None or isinstance(reply.body, bytes) or not takes_gzip(headers):
        return reply
    body = msgspec.json.encode(reply.body)
    if not PACKED_BYTES[0] <= len(body) <= PACKED_BYTES[1]:
        return replace(reply, body=body)
    return replace(reply, body=gzip.compress(body, 1, mtime=0), headers={"content-encoding": "gzip", **reply.headers})


async def send_reply(send: Send, reply: Reply, headers: Mapping[str, str]) -> None:
    """Sends a whole reply."""
    if reply.file is not None:
        await _send_file(send, reply, reply.file, headers)
        return
    body = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
    if reply.status in (204, 304):
        body = b""
    size = {} if reply.status == 304 else {"content-length": str(len(body))}
    await send_start(send, reply.status, {"content-type": "application/json", **headers, **reply.headers, **size})
    await send({"type": "http.response.body", "body": body})


async def send_stream(send: Send, reply: Reply, stream: Iterator[bytes], headers: Mapping[str, str]) -> None:
    """Sends the pieces as they are made; what goes wrong before the first is raised before anything is sent."""
    piece = await asyncio.to_thread(next, stream, None)
    await send_start(send, reply.status, {**headers, **reply.headers})
    while piece is not None:
        for start in range(0, len(piece), WRITTEN):
            await send({"type": "http.response.body", "body": piece[start : start + WRITTEN], "more_body": True})
        del piece
        piece = await asyncio.to_thread(next, stream, None)
    await send({"type": "http.response.body", "body": b""})


async def unless_caller_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Runs the work; cancels it when the caller disconnects first, which raises ClientLeft."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return await working
    finally:
        for task in (working, watching):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send_file(send: Send, reply: Reply, path: Path, headers: Mapping[str, str]) -> None:
    size = {"content-length": str(path.stat().st_size), "content-type": "application/octet-stream"}
    await send_start(send, reply.status, {**headers, **size, **reply.headers})
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the {most} bytes allowed.")
