"""Asks an upstream over HTTP: OpenAI, Azure, any compatible server, or the student host on its socket.

One question, one connection, no retries: those belong to the gateway. Redirects are not followed,
so that a key never travels to another host; answers are asked for uncompressed, so that a small
body cannot unfold into a large one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp

from stillroom.config import GatewaySettings, Teacher, secret
from stillroom.errors import StudentUnavailable, TeacherFailed, TeacherTimeout

PIECE = 64 * 1024


class HttpAnswer:
    """An answer whose head has arrived."""

    def __init__(self, response: aiohttp.ClientResponse, limits: GatewaySettings, name: str) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._limits = limits
        self._name = name

    async def read(self) -> bytes:
        """The whole body. Raises TeacherFailed when it breaks off or is too large."""
        # Some servers send the head at once and the body when it is whole: silence is no fault here.
        return b"".join([piece async for piece in self._pieces(None)])

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises TeacherFailed when it breaks off, falls silent or grows too large."""
        return self._pieces(self._limits.idle_seconds)

    async def _pieces(self, idle_seconds: float | None) -> AsyncIterator[bytes]:
        taken = 0
        pieces = self._response.content.iter_any()
        while True:
            try:
                # How long the first may take is the gateway's to say: a teacher thinks before it speaks.
                async with asyncio.timeout(idle_seconds if taken else None):
                    piece = await anext(pieces, None)
            except TimeoutError as error:
                raise TeacherTimeout(f"The teacher '{self._name}' fell silent in the middle of its answer.") from error
            except aiohttp.ClientError as error:
                raise TeacherFailed(f"The teacher '{self._name}' broke off its answer: {_reason(error)}.") from error
            if piece is None:
                return
            taken += len(piece)
            if taken > self._limits.answer_bytes:
                raise TeacherFailed(f"The teacher '{self._name}' sent more than {self._limits.answer_bytes} bytes.")
            yield piece

    def close(self) -> None:
        """Drops the connection unless the body was read to its end."""
        self._response.close()


class HttpUpstream:
    """One chat completions endpoint. The key travels in a header and nowhere else."""

    def __init__(
        self, name: str, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], limits: GatewaySettings
    ) -> None:
        self._name = name
        self._session = session
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._limits = limits

    async def ask(self, body: bytes) -> HttpAnswer:
        """Posts the body; returns when the answer's head is there. Raises TeacherFailed when it never is."""
        try:
            async with asyncio.timeout(self._limits.first_token_seconds):
                response = await self._session.post(self._url, data=body, headers=self._headers, allow_redirects=False)
        except TimeoutError as error:
            raise TeacherTimeout(f"The teacher '{self._name}' did not answer in time.") from error
        except aiohttp.ClientError as error:
            raise TeacherFailed(
                f"The teacher '{self._name}' cannot be reached: {_reason(error)}.", code="upstream_unreachable"
            ) from error
        return HttpAnswer(response, self._limits, self._name)


class StudentUpstream(HttpUpstream):
    """The student host's endpoint; what fails there is the student, and comes back by itself."""

    async def ask(self, body: bytes) -> HttpAnswer:
        try:
            return await super().ask(body)
        except TeacherFailed as error:
            raise StudentUnavailable(
                f"The student '{self._name}' did not answer; its process is being started again. Try again.",
            ) from error


def open_session(limits: GatewaySettings, *, socket: Path | None = None) -> aiohttp.ClientSession:
    """Connections kept for reuse, to anywhere or to one unix socket. Needs a running event loop."""
    connector: aiohttp.BaseConnector
    if socket is None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    else:
        connector = aiohttp.UnixConnector(str(socket), limit=0)
    # Only connecting is timed here; the rest is timed where its meaning is known.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_seconds)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False, trust_env=False)


def teacher_upstream(
    name: str, teacher: Teacher, session: aiohttp.ClientSession, limits: GatewaySettings
) -> HttpUpstream:
    """The endpoint that a configured teacher stands for."""
    key = secret(teacher.api_key)
    if teacher.kind == "azure":
        deployment = quote(teacher.deployment or name, safe="")
        url = f"{teacher.endpoint.rstrip('/')}/openai/deployments/{deployment}/chat/completions"
        return HttpUpstream(
            name, session, f"{url}?api-version={teacher.api_version}", {"api-key": key} if key else {}, limits
        )
    url = teacher.base_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    return HttpUpstream(name, session, url, {"Authorization": f"Bearer {key}"} if key else {}, limits)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        return error.os_error.strerror  # the rest is the library's own: host, port, and how it connects
    return str(error) or type(error).__name__
