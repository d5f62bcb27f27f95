"""HTTP/1.1 for callers we do not trust to be quick: uvicorn's httptools protocol, with deadlines.

A connection that dribbles its headers, or its body below a crawl, is closed; oversized headers are
refused. Answers may take as long as they like to be made, but who asked must take them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sys
import termios
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stillroom.api.wire import MAY_BE_CUT

log = logging.getLogger(__name__)

HEADER_SECONDS = 5.0
BODY_CHECK_SECONDS = 10.0
BODY_BYTES = 1024  # at least so many between two checks
GOODBYE_SECONDS = 1.0  # for an idle TLS client to say goodbye when the server stops
CUT_SECONDS = 2.0  # for an answer that may be cut to end by itself when the server stops
HEADERS = 100
HEADER_BYTES = 64 * 1024


class PatientNoMore(HttpToolsProtocol):
    """Closes connections that never finish their request, or never take their answer."""

    taking_seconds: ClassVar[float] = 60.0
    """How long a caller may take nothing of what is written to him."""

    _timer: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _taken = 0
    _header_bytes = 0
    _in_head = True
    _head_taken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEADER_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The parser tells of a header only when it is whole, and until then keeps all of it.
        self._head_taken = self._head_taken + len(data) if self._in_head else 0
        if self._head_taken > HEADER_BYTES + len(data) and not self.transport.is_closing():
            self.send_400_response("The request's headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = self._head_taken = 0
        self._wait(HEADER_SECONDS, self._give_up)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._taken = 0
        self._in_head = False
        self._wait(BODY_CHECK_SECONDS, self._check_body)

    def on_body(self, body: bytes) -> None:
        self._taken += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._stop_waiting()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        self._stop_watching()
        super().resume_writing()

    def shutdown(self) -> None:
        super().shutdown()
        # Closing TLS waits half a minute for a goodbye that an idle client does not send.
        if self.transport.is_closing():
            self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)
        elif self.cycle.scope["state"].get(MAY_BE_CUT):
            self.loop.call_later(CUT_SECONDS, self._cut)

    def _cut(self) -> None:
        if not self.transport.is_closing():
            log.warning("%s was cut off, because the server stops", self.cycle.scope["path"])
            self.transport.abort()

    def _watch_taking(self) -> None:
        self._stop_watching()
        self._taking = self.loop.call_later(self.taking_seconds, self._check_taking, self._untaken())

    def _check_taking(self, before: int) -> None:
        # Nothing is written while writing is paused, so what the caller takes makes it less.
        if self._untaken() < before:
            self._watch_taking()
        else:
            self.transport.abort()

    def _untaken(self) -> int:
        """Bytes that are written and have not reached the caller. The system's part counts, too: it holds megabytes,
        and takes more of ours only when there is room for much."""
        queued = bytearray(4)
        with contextlib.suppress(OSError):  # a system that does not tell
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _stop_watching(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES or len(self.headers) >= HEADERS:
            raise ValueError("headers too large")  # the parser turns it into a 400

    def _check_body(self) -> None:
        # While we do not read, because the application is behind, the caller is not to blame.
        if self._taken < BODY_BYTES and not self.flow.read_paused:
            self._give_up()
            return
        self._taken = 0
        self._wait(BODY_CHECK_SECONDS, self._check_body)

    def _give_up(self) -> None:
        self.transport.close()

    def _wait(self, seconds: float, then: Any) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
