"""Large completions and callers who take nothing: memory, threads and the server's end are bounded all the same."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stillroom.teachers.scripted import ScriptedTeacher
from tests.faults.wire import chat, raw, send
from tests.support import Server, wait_for

MEGABYTE = 1_000_000
EXPORT = "/v1/stillroom/completions/export"
STORED = 24  # of four megabytes each
MOST_EXPORTS = 8


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a hundred megabytes of stored completions."""
    with ScriptedTeacher(lambda _: "ok", record=False) as teacher:
        folder = tmp_path_factory.mktemp("large") / "data"
        with Server(folder, teachers={"gpt-4o": {"base_url": teacher.url}}).start() as running:
            for n in range(STORED):
                assert chat(running, f"{n} " + "refund " * (4 * MEGABYTE // 7), store=True).status == 200
            yield running


def export_unread(server: Server) -> socket.socket:
    """An export of which nothing is read but that it begins."""
    head = f"GET {EXPORT} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {server.key}\r\n\r\n"
    connection = raw(server, head.encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def forget_peak(server: Server) -> int:
    """Resident bytes; from here on the peak is counted."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    return _status(server, "VmRSS")


def peak(server: Server) -> int:
    return _status(server, "VmHWM")


def _status(server: Server, name: str) -> int:
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def test_a_list_of_large_completions_takes_little_memory(large: Server) -> None:
    before = forget_peak(large)
    answer = send(large, "GET", f"/v1/stillroom/completions?limit={STORED}")
    questions = [item["question"] for item in answer.json["data"]]
    assert [text.partition(" ")[0] for text in questions] == [str(n) for n in reversed(range(STORED))]
    assert {len(text) for text in questions} == {200}
    assert peak(large) - before < 60 * MEGABYTE


def test_exports_that_nobody_reads_take_little_memory_and_are_few(large: Server) -> None:
    before = forget_peak(large)
    with ExitStack() as held:
        first, *_ = [held.enter_context(export_unread(large)) for _ in range(MOST_EXPORTS)]
        refused = send(large, "GET", EXPORT)
        assert (refused.status, refused.headers["retry-after"]) == (429, "2")
        assert refused.error["code"] == "rate_limit_exceeded"
        time.sleep(0.5)
        assert peak(large) - before < 200 * MEGABYTE
        first.close()
        answer = wait_for(lambda: again if (again := send(large, "GET", EXPORT)).status == 200 else None)
        assert len(answer.body.splitlines()) == STORED


def test_a_server_stops_although_nobody_reads_its_export(large: Server) -> None:
    with export_unread(large):
        began = time.monotonic()
        assert large.stop() == 0
        assert time.monotonic() - began < 12  # half a minute, if it waited for the export
    assert "Traceback" not in large.log.read_text()
    large.start()
