"""The ASGI application: locate, authenticate, read, hand to the operation, tell errors.

The catch-all here is one of the product's two: what was not foreseen becomes a 500 in the
caller's dialect, and its traceback a line in the log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace

from stillroom.api import azure, chat_completions, identity, openapi, routes
from stillroom.api.errors import UnknownPath, WrongMethod, reply_for
from stillroom.api.wire import (
    Call,
    ClientLeft,
    Dialect,
    Location,
    Message,
    Receive,
    Reply,
    Scope,
    Send,
    headers_of,
    parse_query,
    read_body,
    segments_of,
    send_reply,
)
from stillroom.assembly import Platform
from stillroom.auth import Principal
from stillroom.errors import AuthenticationFailed, StillroomError, shortened

log = logging.getLogger(__name__)

DESCRIPTION = routes.Route("GET", "stillroom/openapi.json", openapi.describe)
WELCOME = """stillroom is running.

The API is at /v1 (OpenAI) and /openai (Azure OpenAI). `stillroom env --shell` prints what to export.
"""


class Application:
    """Answers HTTP for one platform. Its state is the platform's; this only routes."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self._platform, scope, receive, send).answer()
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})


class _Exchange:
    """One request and its answer."""

    def __init__(self, platform: Platform, scope: Scope, receive: Receive, send: Send) -> None:
        self._platform = platform
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self._dialect = Dialect.OPENAI
        self._request_id = f"req_{secrets.token_hex(16)}"
        self._began = time.monotonic()

    async def answer(self) -> None:
        try:
            await self._route()
        except ClientLeft:
            pass  # nobody is there to be told
        except StillroomError as error:
            await self._tell(error)
        except Exception:
            log.exception("request %s: %s %s", self._request_id, self._scope["method"], self._scope["path"])
            await self._tell(StillroomError(f"The server had an error. Its log has it under {self._request_id}."))

    async def _route(self) -> None:
        segments = segments_of(self._scope.get("raw_path") or self._scope["path"].encode())
        if segments == ("health",):
            await self._reply(Reply(body={"status": "ok"}))
        elif segments == ("",):
            await self._reply(Reply(body=WELCOME.encode(), headers={"content-type": "text/plain; charset=utf-8"}))
        elif segments[0].lower() == "subscriptions":
            await self._operate(Location(dialect=Dialect.ARM, segments=segments), routes.ARM)
        elif segments == ("msi", "token"):
            # As the resource manager, it takes any api-version: azure-identity sends one of its own.
            await self._operate(Location(dialect=Dialect.ARM, segments=segments), routes.IDENTITY)
        else:
            location = azure.locate(segments)
            if location is None:
                raise UnknownPath(f"Unknown request URL: {self._scope['method']} {shortened(self._scope['path'])}.")
            own = (*routes.OWN, DESCRIPTION) if location.dialect is Dialect.OPENAI else ()
            await self._operate(location, (*routes.BOTH_DIALECTS, *own))

    async def _operate(self, location: Location, table: tuple[routes.Route, ...]) -> None:
        self._dialect = location.dialect
        headers = headers_of(self._scope)
        principal = await self._authenticate(headers)
        query = parse_query(self._scope["query_string"])
        azure.check_version(location, query)
        method = self._scope["method"]
        is_chat = location.segments == routes.CHAT and method == "POST"
        if principal.job is not None and not is_chat:
            raise AuthenticationFailed("A key lent to a job asks for chat completions and nothing else.")
        route, parameters = (
            (None, {}) if is_chat else routes.find(table, method, location.segments, self._scope["path"])
        )
        call = Call(
            platform=self._platform,
            principal=principal,
            location=location,
            method=method,
            path=self._scope["path"],
            parameters=parameters,
            query=query,
            headers=headers,
            request_id=self._request_id,
            scheme=self._scope["scheme"],
            receive=self._receive,
        )
        if route is None or not route.raw:
            limit = self._platform.settings.gateway.chat_body_bytes
            call = replace(call, body=await read_body(self._receive, headers, limit))
        if route is None:
            await chat_completions.create(call, self._sending, self._headers())
        else:
            await self._reply(await _run(route.handler, call))

    async def _authenticate(self, headers: Mapping[str, str]) -> Principal:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        secret = headers.get("api-key") or bearer or headers.get(identity.HEADER)
        known = self._platform.keys.remembered(secret)
        return known if known is not None else await asyncio.to_thread(self._platform.keys.check, secret)

    async def _tell(self, error: StillroomError) -> None:
        if self._started:
            log.warning("request %s broke off: %s", self._request_id, error.message)
            return
        reply = reply_for(error, self._dialect)
        if isinstance(error, WrongMethod | UnknownPath):
            log.debug("%s %s: %s", self._scope["method"], self._scope["path"], error.message)
        await self._reply(reply)

    async def _reply(self, reply: Reply) -> None:
        await send_reply(self._sending, reply, self._headers())

    async def _sending(self, message: Message) -> None:
        self._started = True
        await self._send(message)

    def _headers(self) -> dict[str, str]:
        spent = round((time.monotonic() - self._began) * 1000)
        ours = {"x-request-id": self._request_id, "openai-processing-ms": str(spent)}
        return {**ours, "apim-request-id": self._request_id} if self._dialect is Dialect.AZURE else ours


async def _run(handler: routes.Handler, call: Call) -> Reply:
    if inspect.iscoroutinefunction(handler):
        reply: Reply = await handler(call)
        return reply
    return await asyncio.to_thread(handler, call)  # type: ignore[arg-type]
