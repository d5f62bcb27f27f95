"""Callers who dribble, or take nothing of their answer, are shown the door; who waits for a long answer is not."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from stillroom.api.protocol import PatientNoMore
from stillroom.api.wire import Receive, Scope, Send
from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.faults.wire import chat, connect, payloads, question, raw, request_bytes, seconds_until_closed, send
from tests.support import Server

HEADER_SECONDS = (4.5, 8.0)  # five, and what a loaded machine adds
BODY_SECONDS = (9.0, 14.0)


@pytest.fixture(scope="module")
def drawling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose teacher takes about twelve seconds for a long answer."""
    with ScriptedTeacher(echo, token_seconds=0.2) as teacher:
        folder = tmp_path_factory.mktemp("drawling") / "data"
        with Server(folder, teachers={"gpt-4o": {"base_url": teacher.url}}).start() as running:
            yield running


def drip(connection: socket.socket, data: bytes, stop: threading.Event) -> None:
    for byte in data:
        try:
            connection.sendall(bytes((byte,)))
        except OSError:
            return
        if stop.wait(0.4):
            return


def dribbled(server: Server, at_once: bytes, then: bytes) -> float | None:
    """After how many seconds the server closes on a caller who sends the rest byte by byte."""
    stop = threading.Event()
    with raw(server, at_once) as connection:
        thread = threading.Thread(target=drip, args=(connection, then, stop))
        thread.start()
        seconds = seconds_until_closed(connection, 20)
        stop.set()
        thread.join()
    return seconds


def silent(server: Server) -> float | None:
    with raw(server) as connection:
        return seconds_until_closed(connection, 20)


def long_stream(server: Server) -> tuple[float, bytes]:
    began = time.monotonic()
    answer = chat(server, "a " * 50, stream=True)
    return time.monotonic() - began, answer.body


def kept_alive(server: Server) -> list[int]:
    """The statuses of three requests on one connection, with pauses longer than the header time."""
    connection: http.client.HTTPConnection = connect(server)
    found = []
    for _ in range(3):
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        found.append(answer.status)
        port = connection.sock.getsockname()[1]
        time.sleep(5.8)
        assert connection.sock.getsockname()[1] == port
    connection.close()
    return found


@pytest.mark.slow
def test_dribbling_callers_are_closed_and_patient_ones_are_not(drawling: Server) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n"
    whole = request_bytes(drawling, question("x" * 20_000))
    body_at = whole.index(b"\r\n\r\n") + 4
    with ThreadPoolExecutor(6) as pool:
        quiet = pool.submit(silent, drawling)
        headers = pool.submit(dribbled, drawling, b"", head + b"x-slow: " + b"a" * 1000)
        more_headers = pool.submit(dribbled, drawling, head, b"x-slow: " + b"a" * 1000)
        body = pool.submit(dribbled, drawling, whole[:body_at], whole[body_at:])
        stream = pool.submit(long_stream, drawling)
        alive = pool.submit(kept_alive, drawling)
    for closed, (least, most) in (
        (quiet, HEADER_SECONDS),
        (headers, HEADER_SECONDS),
        (more_headers, HEADER_SECONDS),
        (body, BODY_SECONDS),
    ):
        seconds = closed.result()
        assert seconds is not None
        assert least < seconds < most
    # The controls: neither a long answer nor a pause between two requests is dribbling.
    spent, events = stream.result()
    assert payloads(events)[-1] == "[DONE]"
    assert spent > BODY_SECONDS[0]
    assert alive.result() == [200, 200, 200]


def test_dribbling_callers_do_not_hold_up_others(drawling: Server) -> None:
    held = [raw(drawling, b"POST /v1/files HTTP/1.1\r\nx: ") for _ in range(300)]
    began = time.monotonic()
    assert send(drawling, "GET", "/health").status == 200
    assert time.monotonic() - began < 1
    for connection in held:
        connection.close()


class Impatient(PatientNoMore):
    taking_seconds = 0.4


async def pour(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without end, until the caller is gone."""

    async def write() -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    while (await receive())["type"] != "http.disconnect":
        pass
    writing.cancel()


async def seconds_served(*, reads: bool) -> float | None:
    """After how many seconds a caller is left alone who asks for that, and reads a little at a time or nothing;
    None when he is still served after two."""
    config = uvicorn.Config(pour, http=Impatient, lifespan="off", log_config=None)
    config.load()
    listener = socket.create_server(("127.0.0.1", 0))
    serving = uvicorn.Server(config)
    running = asyncio.create_task(serving.serve([listener]))
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*listener.getsockname(), limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n")
    while not serving.started or not serving.server_state.connections:
        await asyncio.sleep(0.01)
    while serving.server_state.connections and time.monotonic() - began < 2:
        await asyncio.sleep(0.05)
        if reads:
            await reader.readexactly(200_000)
    spent = time.monotonic() - began
    gone = not serving.server_state.connections
    serving.should_exit = serving.force_exit = True
    writer.transport.abort()
    await running
    return spent if gone else None


def test_who_takes_nothing_of_an_answer_is_closed() -> None:
    spent = asyncio.run(seconds_served(reads=False))
    assert spent is not None
    assert 0.4 <= spent < 1.5


def test_who_takes_a_little_at_a_time_is_not_closed() -> None:
    assert asyncio.run(seconds_served(reads=True)) is None
