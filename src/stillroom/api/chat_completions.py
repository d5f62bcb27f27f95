"""`POST chat/completions`: the hot path's edge. It watches for the caller leaving, and ends the
upstream's work when he does; an answer with an Idempotency-Key goes on, for it is kept for his next try."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stillroom import chat
from stillroom.api.wire import Call, Dialect, Reply, Send, send_reply, send_start, unless_caller_leaves
from stillroom.billing import BudgetState
from stillroom.errors import InvalidRequest
from stillroom.gateway import complete, stream

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
IDEMPOTENCY_KEY = re.compile(r"[ -~]{1,255}")
REPLAYED = {"x-stillroom-replayed": "true"}
NOT_FOR_STREAMS = "Idempotency-Key has no effect on a streamed answer."


async def create(call: Call, send: Send, headers: Mapping[str, str]) -> None:
    """Answers one chat completion, whole or streamed. Raises before the first byte is sent, or not at all."""
    key = _idempotency_key(call)
    request = chat.parse_request(call.body)
    headers = {**headers, **await _warnings(call, request, key)}
    asked = complete.Call(
        request=request,
        name=_name(call, request),
        project=call.project,
        key_id=call.principal.key_id,
        run=call.principal.job,
        request_id=call.request_id,
        by_model_name=call.dialect is Dialect.OPENAI,
        idempotency_key=None if request.stream else key,
    )
    work = _stream(call, asked, send, headers) if request.stream else _whole(call, asked, send, headers)
    await unless_caller_leaves(call.receive, work)


def _name(call: Call, request: chat.ChatRequest) -> str:
    # The deployment in the path wins: clients bound to one send any model, LangChain sends null.
    name = call.location.deployment or request.model
    if not name:
        raise InvalidRequest("you must provide a model parameter", param="model", code="missing_required_parameter")
    return name


def _idempotency_key(call: Call) -> str | None:
    key = call.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequest(
            f"Invalid Idempotency-Key of {len(key)} characters: expected 1 to 255 printable ASCII characters.",
            param="Idempotency-Key",
        )
    return key


async def _warnings(call: Call, request: chat.ChatRequest, key: str | None) -> dict[str, str]:
    """What the caller should know though he is answered."""
    found = [NOT_FOR_STREAMS] if request.stream and key is not None else []
    state: BudgetState | None = await call.platform.budgets.known(call.project)
    if state is not None and state.is_nearly_spent:
        found.append(f"The budget is {'spent' if state.is_spent else 'nearly spent'}: {state.sentence()}")
    return {"x-stillroom-warning": " ".join(found)} if found else {}


async def _whole(call: Call, asked: complete.Call, send: Send, headers: Mapping[str, str]) -> None:
    done = await call.platform.gateway.complete(asked)
    passed = {**done.headers, **REPLAYED} if done.replayed else done.headers
    await send_reply(send, Reply(body=done.body, headers=passed), headers)


async def _stream(call: Call, asked: complete.Call, send: Send, headers: Mapping[str, str]) -> None:
    opened, first = await stream.open_stream(call.platform.gateway, asked)
    await send_start(send, 200, {**STREAM_HEADERS, **headers, **opened.headers})

    async def forward(piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    await opened.pump(first, forward)
    await send({"type": "http.response.body", "body": b""})
