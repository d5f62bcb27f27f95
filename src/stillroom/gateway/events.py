"""Server-sent events of chat completions: bytes -> events -> chunks, and the event that tells an error."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from stillroom import chat
from stillroom.errors import StillroomError, TeacherFailed

EVENT_END = re.compile(rb"\r?\n\r?\n")
EVENT_BYTES = 16 * 1024 * 1024  # a longer event is no chat chunk
DONE_EVENT = b"data: [DONE]\n\n"


def error_event(error: StillroomError) -> bytes:
    """The event by which a failure in the middle of a stream is told."""
    body = {"message": error.message, "type": "server_error", "param": error.param, "code": error.code}
    return b"data: " + msgspec.json.encode({"error": body}) + b"\n\n"


async def split_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole events, each with the blank line that ends it, however the bytes were cut on the way.

    An end of the stream also ends its last event.
    """
    pending, searched = b"", 0
    async for piece in pieces:
        pending += piece
        start = 0
        for end in EVENT_END.finditer(pending, searched):
            yield pending[start : end.end()]
            start = end.end()
        pending = pending[start:]
        searched = max(0, len(pending) - len(b"\r\n\r\n") + 1)
        if len(pending) > EVENT_BYTES:
            raise TeacherFailed(f"The upstream sent an event of more than {EVENT_BYTES} bytes.")
    if pending.strip():
        yield pending


def data_of(event: bytes) -> bytes:
    """The event's data, its lines joined; empty for a comment."""
    lines = (line.strip() for line in event.splitlines())
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


def parse_chunk(payload: bytes, name: str) -> dict[str, Any]:
    """The chunk as an object. Raises TeacherFailed when it is none."""
    try:
        chunk = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TeacherFailed(f"'{name}' streamed something that is not JSON.") from error
    if not chat.is_chunk(chunk):
        raise TeacherFailed(f"'{name}' streamed something that is not a chat completion chunk.")
    return dict(chunk)


def check_first(payload: bytes, name: str) -> None:
    """Raises TeacherFailed unless the stream begins with a chunk."""
    if payload == chat.DONE:
        raise TeacherFailed(f"'{name}' answered with an empty stream.")
    chunk = parse_chunk(payload, name)
    if "error" in chunk:
        error = chunk["error"] if isinstance(chunk["error"], dict) else {}
        raise TeacherFailed(str(error.get("message") or f"'{name}' answered with an error."))
    if "choices" not in chunk:
        raise TeacherFailed(f"'{name}' streamed something that is not a chat completion chunk.")


def is_usage(chunk: Mapping[str, Any]) -> bool:
    """Whether the chunk is the last one, which holds nothing but the usage."""
    return not chunk.get("choices") and isinstance(chunk.get("usage"), dict)
