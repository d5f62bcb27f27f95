"""`stillroom serve`: one event loop with the plain listener, the TLS listener and the jobs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from stillroom.api.app import Application
from stillroom.api.portal import Portal
from stillroom.api.protocol import PatientNoMore
from stillroom.api.tls import ensure_certificate
from stillroom.assembly import Platform, ensure_admin_key, open_platform
from stillroom.config import SERVER_FILE, Settings, sign_in_address
from stillroom.errors import AuthenticationFailed, ConfigurationError
from stillroom.worker.supervisor import Supervisor

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DRAIN_SECONDS = 30
TOKEN_SECONDS = 3600  # how long the address that is printed signs in, until it is used
THREADS = 32  # for handlers and look-ups: one slow request must not keep the others waiting
KEEP_ALIVE_SECONDS = 15


class _Listener(uvicorn.Server):
    """One port. Signals are the server's to handle, because there may be two listeners."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Ends it, when the requests under way are answered."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        # uvicorn's own wakes ten times a second to see whether it is to end; this one is told.
        while not await self.on_tick(0):  # 0: the tick that renews the date in the answers' headers
            until_next = 1.0 - asyncio.get_running_loop().time() % 1.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), until_next)

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where this machine reaches the server; the last two are None without a TLS port."""

    url: str
    tls_url: str | None
    ca: str | None


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What is told to whoever started the server, and written to no log: the admin key if it was just made, and
    where a browser goes, to be signed in once if there is an admin key; None when the portal is not built."""

    new_key: str | None
    portal: str | None


Announce = Callable[[Addresses, Secrets], None]


def serve(settings: Settings, announce: Announce) -> None:
    """Runs until SIGTERM or SIGINT. `announce` is called once, when the API answers. Raises
    ConfigurationError when it cannot start."""
    platform = open_platform(settings)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(platform, announce))
    finally:
        platform.close()


async def _serve(platform: Platform, announce: Announce) -> None:
    settings = platform.settings
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="handler"))
    if settings.host not in LOOPBACK:
        log.warning("listening on %s: other machines can reach this server; every call needs a key", settings.host)
    (settings.folder / SERVER_FILE).unlink(missing_ok=True)  # one that was killed left it, with its address
    portal = Portal()
    listeners = _listeners(platform, portal)
    async with _running(platform):
        tasks = [asyncio.create_task(listener.serve([bound])) for listener, bound in listeners]
        _stop_on_signals([listener for listener, _ in listeners])
        try:
            while not all(listener.started for listener, _ in listeners):  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            new_key = await asyncio.to_thread(ensure_admin_key, platform)
            addresses = _addresses(settings, [bound for _, bound in listeners])
            _write_server_file(settings.folder, addresses)
            page = await asyncio.to_thread(_portal_address, platform, addresses.url) if portal.is_built else None
            announce(addresses, Secrets(new_key=new_key, portal=page))
            await asyncio.gather(*tasks)
        finally:
            for listener, _ in listeners:
                listener.leave()
            await asyncio.gather(*tasks, return_exceptions=True)
            (settings.folder / SERVER_FILE).unlink(missing_ok=True)


def _listeners(platform: Platform, portal: Portal) -> list[tuple[_Listener, socket.socket]]:
    settings = platform.settings
    application = Application(platform, portal)
    found = [(_listener(application, settings), _bind(settings.host, settings.port, "--port"))]
    if settings.tls_port:
        listener = _listener(application, settings, tls=settings.folder / "tls")
        found.append((listener, _bind(settings.host, settings.tls_port, "--tls-port")))
    return found


def _bind(host: str, port: int, flag: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another with {flag}.", param="port"
        ) from error


def _listener(application: Application, settings: Settings, *, tls: Path | None = None) -> _Listener:
    certificate, key = ensure_certificate(tls, settings.host) if tls else (None, None)
    return _Listener(
        uvicorn.Config(
            application,
            http=PatientNoMore,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
    )


@contextlib.asynccontextmanager
async def _running(platform: Platform) -> AsyncIterator[None]:
    """What runs beside the listeners."""
    platform.models.start()
    await platform.deployments.finish_interrupted()
    beside = [
        _beside("the supervisor of jobs", Supervisor(platform).run()),
        _beside("the tending of hosted models", platform.hosting.tend()),
        _beside("the search's indexer", platform.indexer.tend()),
    ]
    try:
        yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await platform.gateway.close()
        await platform.deployments.close()
        await platform.exports.close()
        await platform.hosting.close()
        await platform.models.close()


def _beside(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """The work as a task that is never to end by itself: if it does, the log says so."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell_of_end)
    return task


def _tell_of_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        log.critical("%s has ended; it comes back with the next start", task.get_name(), exc_info=task.exception())


def _stop_on_signals(listeners: list[_Listener]) -> None:
    def stop() -> None:
        for listener in listeners:
            listener.leave()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _addresses(settings: Settings, bound: list[socket.socket]) -> Addresses:
    # A server that listens everywhere is reached by loopback from this machine.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    name = f"[{host}]" if ":" in host else host
    plain, *tls = (listener.getsockname()[1] for listener in bound)
    return Addresses(
        url=f"http://{name}:{plain}",
        tls_url=f"https://{name}:{tls[0]}" if tls else None,
        ca=str(settings.folder / "tls" / "ca.pem") if tls else None,
    )


def _portal_address(platform: Platform, url: str) -> str:
    try:
        principal = platform.keys.check((platform.settings.folder / "admin-key").read_text().strip())
    except (AuthenticationFailed, OSError):
        return url  # the admin key is gone: another one must be typed
    token, _ = platform.sign_in_tokens.mint(principal, TOKEN_SECONDS)
    return sign_in_address(url, token)


def _write_server_file(folder: Path, addresses: Addresses) -> None:
    """Tells the commands on this machine where the server is."""
    draft = folder / ".server.json"
    draft.write_text(json.dumps({**asdict(addresses), "pid": os.getpid()}))
    draft.rename(folder / SERVER_FILE)
