"""Real servers for tests: `stillroom serve` in a process of its own, on a port of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

START_SECONDS = 60.0


class Server:
    """One `stillroom serve` on a data folder. Start it, talk to `url` with `key`, stop or kill it."""

    def __init__(self, data: Path, *, teachers: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.data = data
        self.log = data.with_name(data.name + ".log")
        self.url = ""
        self.tls_url: str | None = None
        self.ca: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = {f"STILLROOM_{name.upper()}": str(value) for name, value in settings.items()}
        self._environment["STILLROOM_TEACHERS"] = json.dumps(teachers or {})
        self._environment.setdefault("STILLROOM_TRAINING_THREADS", "1")
        self._environment.setdefault("STILLROOM_SERVING_THREADS", "1")

    @property
    def key(self) -> str:
        """The admin key of the data folder."""
        return (self.data / "admin-key").read_text().strip()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, port: int = 0, tls: bool = False) -> Server:
        """Starts the server; returns when it answers."""
        (self.data / "server.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "stillroom", "serve", "--data", str(self.data), "--port", str(port)]
        if tls:
            command += ["--tls-port", str(free_port())]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**_clean_environment(), **self._environment}, stdout=log, stderr=log, cwd=self.data.parent
            )
        self._await_answer()
        return self

    def stop(self) -> int:
        """Ends the server as a supervisor would; gives its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """Ends the server as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=60)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a `stillroom` command against this server."""
        return subprocess.run(
            [sys.executable, "-m", "stillroom", *arguments],
            env={**_clean_environment(), "STILLROOM_DATA": str(self.data)},
            capture_output=True,
            text=True,
            check=check,
            timeout=300,
        )

    def __enter__(self) -> Server:
        return self if self.process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def _await_answer(self) -> None:
        assert self.process is not None
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()}")
            file = self.data / "server.json"
            if file.exists():
                known = json.loads(file.read_text())
                self.url, self.tls_url, self.ca = known["url"], known["tls_url"], known["ca"]
                if _answers(self.url):
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the server did not answer:\n{self.log.read_text()}")


def free_port() -> int:
    """A port nobody listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def example_lines(count: int) -> bytes:
    """A well-formed training file of so many distinct, easy examples."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Answer with the colour."},
                {"role": "user", "content": f"thing {i}"},
                {"role": "assistant", "content": ["red", "green", "blue"][i % 3]},
            ]
        }
        for i in range(count)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def wait_for(condition: Any, seconds: float = 60.0, pause: float = 0.1) -> Any:
    """The first truthy value of `condition()`. Fails when there is none in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(pause)
    raise AssertionError(f"still not so after {seconds} seconds: {condition}")


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STILLROOM_")}
    return {**kept, "PYTHONWARNINGS": "default"}
