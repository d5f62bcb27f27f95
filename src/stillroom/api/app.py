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

from stillroom.api import azure, chat_completions, identity, openapi, routes, sign_in
from stillroom.api.errors import UnknownPath, WrongMethod, reply_for
from stillroom.api.portal import Portal
from stillroom.api.wire import (
    MAY_BE_CUT,
    Call,
    ClientLeft,
    Dialect,
    Location,
    Message,
    Receive,
    Reply,
    Scope,
    Send,
    Streams,
    headers_of,
    packed,
    parse_query,
    read_body,
    segments_of,
    send_reply,
    send_stream,
    unless_caller_leaves,
)
from stillroom.assembly import Platform
from stillroom.auth import NOBODY, Principal
from stillroom.errors import AuthenticationFailed, StillroomError, shortened

log = logging.getLogger(__name__)

DESCRIPTION = routes.Route("GET", "stillroom/openapi.json", openapi.describe)
OPENAI = (*routes.BOTH_DIALECTS, *routes.OWN, DESCRIPTION)
# What a browser signed in is told besides: keep no copy, and be nothing but what the type says.
TO_BROWSERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


class Application:
    """Answers HTTP for one platform. Its state is the platform's, but for the streams under way; this only routes."""

    def __init__(self, platform: Platform, portal: Portal) -> None:
        self._platform = platform
        self._portal = portal
        self._streams = Streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self._platform, self._portal, self._streams, scope, receive, send).answer()
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, platform: Platform, portal: Portal, streams: Streams, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._platform = platform
        self._portal = portal
        self._streams = streams
        self._scope = scope
        self._receive = receive
        self._send = send
        self._given = headers_of(scope)
        self._started = False
        self._signed_in = False
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
        elif segments[0].lower() == "subscriptions":
            await self._operate(Location(dialect=Dialect.ARM, segments=segments), routes.ARM)
        elif segments == ("msi", "token"):
            # As the resource manager, it takes any api-version: azure-identity sends one of its own.
            await self._operate(Location(dialect=Dialect.ARM, segments=segments), routes.IDENTITY)
        elif (location := azure.locate(segments)) is not None:
            await self._operate(location, OPENAI if location.dialect is Dialect.OPENAI else routes.BOTH_DIALECTS)
        elif (page := self._portal.page(self._scope["method"], segments, self._given)) is not None:
            await self._reply(page)
        else:
            raise UnknownPath(f"Unknown request URL: {self._scope['method']} {shortened(self._scope['path'])}.")

    async def _operate(self, location: Location, table: tuple[routes.Route, ...]) -> None:
        self._dialect = location.dialect
        headers = self._given
        method = self._scope["method"]
        is_sign_in = location.segments == routes.SIGN_IN and method == "POST"
        principal = NOBODY if is_sign_in else await self._authenticate(headers, table)
        query = parse_query(self._scope["query_string"])
        azure.check_version(location, query)
        is_chat = location.segments == routes.CHAT and method == "POST"
        if principal.job is not None and not is_chat:
            raise AuthenticationFailed("A key lent to a job asks for chat completions and nothing else.")
        route, parameters = (
            (None, {}) if is_chat else routes.find(table, method, location.segments, self._scope["path"])
        )
        body = b""
        if route is None or not route.raw:
            limit = sign_in.BODY_BYTES if is_sign_in else self._platform.settings.gateway.chat_body_bytes
            body = await read_body(self._receive, headers, limit)
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
            body=body,
        )
        if route is None:
            await chat_completions.create(call, self._sending, self._headers())
        else:
            await self._reply(await _run(route.handler, call))

    async def _authenticate(self, headers: Mapping[str, str], table: tuple[routes.Route, ...]) -> Principal:
        """Whose key the headers hold; without one, whose session a browser's cookie belongs to."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else None
        secret = headers.get("api-key") or bearer or headers.get(identity.HEADER)
        # A token is made of a key, which a session is not.
        if not secret and table is not routes.IDENTITY:
            cookies = sign_in.cookie_secrets(self._platform.settings.folder, headers)
            if cookies:
                return await self._authenticate_session(cookies, headers)
        known = self._platform.keys.remembered(secret)
        return known if known is not None else await asyncio.to_thread(self._platform.keys.check, secret)

    async def _authenticate_session(self, secrets: list[str], headers: Mapping[str, str]) -> Principal:
        sign_in.check_origin(self._scope["method"], headers, self._scope["scheme"])
        session = await sign_in.session_of(self._platform.sessions, secrets)
        self._signed_in = True
        return session.principal

    async def _tell(self, error: StillroomError) -> None:
        if self._started:
            log.warning("request %s broke off: %s", self._request_id, error.message)
            return
        reply = reply_for(error, self._dialect)
        if isinstance(error, WrongMethod | UnknownPath):
            log.debug("%s %s: %s", self._scope["method"], self._scope["path"], error.message)
        await self._reply(reply)

    async def _reply(self, reply: Reply) -> None:
        if reply.stream is not None:
            with self._streams.one_more():
                self._scope["state"][MAY_BE_CUT] = True
                sent = send_stream(self._sending, reply, reply.stream, self._headers())
                await unless_caller_leaves(self._receive, sent)
        else:
            whole = packed(reply, self._given) if self._signed_in else reply
            await send_reply(self._sending, whole, self._headers())

    async def _sending(self, message: Message) -> None:
        self._started = True
        await self._send(message)

    def _headers(self) -> dict[str, str]:
        spent = round((time.monotonic() - self._began) * 1000)
        ours = {"x-request-id": self._request_id, "openai-processing-ms": str(spent)}
        if self._signed_in:
            ours |= TO_BROWSERS
        return {**ours, "apim-request-id": self._request_id} if self._dialect is Dialect.AZURE else ours


async def _run(handler: routes.Handler, call: Call) -> Reply:
    if inspect.iscoroutinefunction(handler):
        reply: Reply = await handler(call)
        return reply
    return await asyncio.to_thread(handler, call)  # type: ignore[arg-type]
