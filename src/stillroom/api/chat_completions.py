"""`POST chat/completions`: the hot path's edge. It watches for the caller leaving, and ends the
upstream's work when he does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any

from stillroom import chat
from stillroom.api.wire import Call, ClientLeft, Dialect, Receive, Reply, Send, send_reply, send_start
from stillroom.errors import InvalidRequest
from stillroom.gateway import complete, stream

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def create(call: Call, send: Send, headers: Mapping[str, str]) -> None:
    """Answers one chat completion, whole or streamed. Raises before the first byte is sent, or not at all."""
    request = chat.parse_request(call.body)
    asked = complete.Call(
        request=request,
        name=_name(call, request),
        project=call.project,
        key_id=call.principal.key_id,
        request_id=call.request_id,
        by_model_name=call.dialect is Dialect.OPENAI,
    )
    work = _stream(call, asked, send, headers) if request.stream else _whole(call, asked, send, headers)
    await _unless_caller_leaves(call.receive, work)


def _name(call: Call, request: chat.ChatRequest) -> str:
    # The deployment in the path wins: clients bound to one send any model, LangChain sends null.
    name = call.location.deployment or request.model
    if not name:
        raise InvalidRequest("you must provide a model parameter", param="model", code="missing_required_parameter")
    return name


async def _whole(call: Call, asked: complete.Call, send: Send, headers: Mapping[str, str]) -> None:
    done = await call.platform.gateway.complete(asked)
    await send_reply(send, Reply(body=done.body, headers=done.headers), headers)


async def _stream(call: Call, asked: complete.Call, send: Send, headers: Mapping[str, str]) -> None:
    opened, first = await stream.open_stream(call.platform.gateway, asked)
    await send_start(send, 200, {**STREAM_HEADERS, **headers, **opened.headers})

    async def forward(piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    await opened.pump(first, forward)
    await send({"type": "http.response.body", "body": b""})


async def _unless_caller_leaves(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Runs the work; cancels it when the caller disconnects first, which raises ClientLeft."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        await working
    finally:
        for task in (working, watching):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
