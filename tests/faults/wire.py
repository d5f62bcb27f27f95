"""What an SDK hides: plain HTTP requests, raw connections, and what a process holds."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support import Server

TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer as it came; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object. Fails unless the body is one."""
        error = self.json["error"]
        assert isinstance(error["message"], str)
        assert error["message"]
        return dict(error)


def send(server: Server, method: str, path: str, body: Any = None, *, key: str | None = "", **headers: str) -> Answer:
    """One request. A body that is not bytes becomes JSON; `key` None sends none, "" the admin key."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent["authorization"] = f"Bearer {key or server.key}"
    if data is not None:
        sent.setdefault("content-type", "application/json")
    with closing(connect(server)) as connection:
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        return Answer(
            status=answer.status,
            headers={name.lower(): value for name, value in answer.getheaders()},
            body=answer.read(),
        )


def chat(server: Server, text: str = "hello", *, model: str = "gpt-4o", **more: Any) -> Answer:
    """One chat completion."""
    return send(server, "POST", "/v1/chat/completions", question(text, model=model, **more))


def question(text: str = "hello", *, model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def stored(server: Server, **metadata: str) -> list[dict[str, Any]]:
    """Every stored completion that has the metadata, oldest first."""
    wanted = "".join(f"&metadata[{name}]={value}" for name, value in metadata.items())
    found: list[dict[str, Any]] = []
    while True:
        after = f"&after={found[-1]['id']}" if found else ""
        answer = send(server, "GET", f"/v1/chat/completions?limit=100{wanted}{after}")
        assert answer.status == 200, answer.body
        found += answer.json["data"]
        if not answer.json["has_more"]:
            return found


def payloads(body: bytes) -> list[str]:
    """The data of every server-sent event."""
    return [line.removeprefix("data: ") for line in body.decode().splitlines() if line.startswith("data: ")]


def text_of(body: bytes) -> str:
    """What a stream's chunks spell."""
    chunks = [json.loads(payload) for payload in payloads(body) if payload != "[DONE]"]
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk.get("choices", ()))


def connect(server: Server) -> http.client.HTTPConnection:
    address = urlsplit(server.url)
    assert address.hostname
    return http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT)


def raw(server: Server, head: bytes = b"") -> socket.socket:
    """A connection on which these bytes have been sent."""
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=TIMEOUT)
    if head:
        connection.sendall(head)
    return connection


def request_bytes(server: Server, body: Any, path: str = "/v1/chat/completions") -> bytes:
    """A whole chat request as it goes over the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {server.key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def seconds_until_closed(connection: socket.socket, most: float) -> float | None:
    """When the other side closes the connection, in seconds from now; None when it does not in time."""
    began = time.monotonic()
    while (left := began + most - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            if not connection.recv(65536):
                return time.monotonic() - began
        except TimeoutError:
            return None
        except OSError:
            return time.monotonic() - began
    return None


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """The process ids of a process' living descendants."""
    direct = [int(child) for child in _children_file(pid)]
    return direct + [below for child in direct for below in children(child)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _children_file(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            yield from task.read_text().split()
