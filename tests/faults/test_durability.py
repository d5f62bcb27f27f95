"""Stored means stored: through kill -9, a second server, a full disk, a locked or damaged database."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.faults.wire import chat, connect, payloads, question, send, stored, text_of
from tests.support import Server, wait_for

CALLERS = 16
READY_SECONDS = 10.0


@pytest.fixture(scope="module")
def quick() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(echo, token_seconds=0.002, record=False) as teacher:
        yield teacher


def teachers(teacher: ScriptedTeacher) -> dict[str, Any]:
    return {"gpt-4o": {"base_url": teacher.url, "price": {"input": 1, "output": 1}}}


def rows(server: Server, query: str) -> list[tuple[Any, ...]]:
    """What the database says, read beside the server."""
    with closing(sqlite3.connect(f"file:{server.data}/stillroom.db?mode=ro", uri=True)) as connection:
        return list(connection.execute(query))


class Caller(threading.Thread):
    """Asks one stored question after another, every second one streamed, until the server is gone."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(name=name)
        self.acknowledged: dict[str, bool] = {}
        """By the question's text, whether its answer was streamed."""
        self.begun: set[str] = set()
        self._server = server

    def run(self) -> None:
        headers = {"authorization": f"Bearer {self._server.key}", "content-type": "application/json"}
        with closing(connect(self._server)) as connection:
            for number in range(10_000):
                text, stream = f"{self.name} asks {number}", number % 2 == 1
                body = json.dumps(question(text, stream=stream, store=True, metadata={"of": "kill"}))
                self.begun.add(text)
                try:
                    connection.request("POST", "/v1/chat/completions", body, headers)
                    answer = connection.getresponse()
                    data = answer.read()
                except (OSError, ConnectionError, ValueError) as error:
                    assert error is not None
                    return
                except Exception:  # http.client has many words for a connection that broke
                    return
                if answer.status == 200 and (not stream or payloads(data)[-1] == "[DONE]"):
                    assert (text_of(data) if stream else json.loads(data)["choices"][0]["message"]["content"]) == text
                    self.acknowledged[text] = stream


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(quick: ScriptedTeacher, tmp_path: Path) -> None:
    began = time.monotonic()
    server = Server(tmp_path / "data", teachers=teachers(quick)).start()
    first_start = time.monotonic() - began
    acknowledged: set[str] = set()
    begun: set[str] = set()
    ready: list[float] = []
    for round_ in range(4):
        callers = [Caller(server, f"{round_} {n}") for n in range(CALLERS)]
        for caller in callers:
            caller.start()
        wait_for(lambda callers=callers: sum(len(c.acknowledged) for c in callers) >= 40, seconds=20, pause=0.005)
        time.sleep(0.07 * round_)
        server.kill()
        for caller in callers:
            caller.join(timeout=30)
            acknowledged |= set(caller.acknowledged)
            begun |= caller.begun
        began = time.monotonic()
        server.start()
        ready.append(time.monotonic() - began)
    kept = stored(server, of="kill")
    texts = {c["id"]: send(server, "GET", f"/v1/chat/completions/{c['id']}/messages").json for c in kept[:3]}
    assert all(listing["data"][0]["content"].split(" asks ")[0] for listing in texts.values())
    completed = [c["choices"][0]["message"]["content"] for c in kept if "status" not in c]
    assert acknowledged <= set(completed), "an acknowledged completion is lost"
    assert len(completed) == len(set(completed)), "a completion is there twice"
    assert set(completed) <= begun
    assert len({c["id"] for c in kept}) == len(kept)
    for c in kept:
        if c.get("status") == "incomplete":
            assert c["choices"] == [] or c["choices"][0]["finish_reason"] is None
    assert rows(server, "PRAGMA integrity_check") == [("ok",)]
    billed = rows(server, "SELECT subject, prompt_tokens, completion_tokens, estimated FROM ledger ORDER BY subject")
    assert len(billed) == len(kept)
    of_row = {subject: (prompt, completion) for subject, prompt, completion, _ in billed}
    assert set(of_row) == {c["id"] for c in kept}
    for c in kept:
        if "status" not in c:
            assert of_row[c["id"]] == (c["usage"]["prompt_tokens"], c["usage"]["completion_tokens"])
    # A loaded machine starts everything late; recovering must not add to that.
    assert max(ready) < max(READY_SECONDS, 3 * first_start), (first_start, ready)
    assert len(acknowledged) >= 160
    server.stop()
    print(f"{len(acknowledged)} acknowledged, {len(kept)} kept, ready again after {max(ready):.1f} s at most")


def test_the_check_for_lost_completions_finds_one(quick: ScriptedTeacher, tmp_path: Path) -> None:
    """The control: an answer that was never committed, because it was not to be stored, is missing."""
    with Server(tmp_path / "data", teachers=teachers(quick)).start() as server:
        assert chat(server, "kept", store=True).status == 200
        assert chat(server, "not kept").status == 200
        server.kill()
        server.start()
        assert [c["choices"][0]["message"]["content"] for c in stored(server)] == ["kept"]


def test_sigterm_lets_streams_end_and_exits_0(quick: ScriptedTeacher, tmp_path: Path) -> None:
    with ScriptedTeacher(echo, token_seconds=0.05) as slow:
        server = Server(tmp_path / "data", teachers=teachers(slow)).start()
        bodies: list[bytes] = []
        asked = threading.Thread(target=lambda: bodies.append(chat(server, "word " * 30, stream=True, store=True).body))
        asked.start()
        wait_for(lambda: slow.calls == 1, seconds=10, pause=0.01)
        assert server.stop() == 0
        asked.join(timeout=10)
        assert payloads(bodies[0])[-1] == "[DONE]"
    server.start()
    (kept,) = stored(server)
    assert "status" not in kept
    server.stop()


# --- one server to a folder, and a sound one ------------------------------------------------------------


def refused(data: Path) -> str:
    """What a server that must not start says."""
    command = [sys.executable, "-m", "stillroom", "serve", "--data", str(data), "--port", "0"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment, check=False, cwd=data.parent
    )
    assert ended.returncode not in (0, None)
    assert "Traceback" not in ended.stderr, ended.stderr
    return " ".join(ended.stderr.split())


def test_a_second_server_on_the_same_folder_is_refused(quick: ScriptedTeacher, tmp_path: Path) -> None:
    with Server(tmp_path / "data", teachers=teachers(quick)).start() as server:
        message = refused(server.data)
        assert "Another stillroom server is running on the data folder" in message
        assert "--data" in message
        assert chat(server).status == 200
        assert json.loads((server.data / "server.json").read_text())["pid"] == server.pid
    with server.start():
        assert chat(server).status == 200


@pytest.fixture
def stopped(quick: ScriptedTeacher, tmp_path: Path) -> Server:
    """A server that has stored something and was stopped."""
    server = Server(tmp_path / "data", teachers=teachers(quick)).start()
    for number in range(20):
        chat(server, f"{number}", store=True)
    server.stop()
    return server


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_newer_schema_is_refused_and_not_written_to(stopped: Server) -> None:
    database = stopped.data / "stillroom.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = digest(database)
    message = refused(stopped.data)
    assert "made by a newer stillroom (schema 9999)" in message
    assert digest(database) == before


@pytest.mark.parametrize("damage", ["header", "schema", "cut"])
def test_a_damaged_database_is_refused_and_not_written_to(stopped: Server, damage: str) -> None:
    database = stopped.data / "stillroom.db"
    data = bytearray(database.read_bytes())
    if damage == "header":
        data[:100] = b"\x5a" * 100
    elif damage == "schema":
        data[100:4096] = b"\x5a" * 3996
    else:
        del data[5000:]
    database.write_bytes(data)
    before = digest(database)
    message = refused(stopped.data)
    assert f"The database {database} cannot be opened" in message
    assert digest(database) == before


def test_the_same_folder_undamaged_starts(stopped: Server) -> None:
    with stopped.start():
        assert len(stored(stopped)) == 20


# --- somebody else's lock -----------------------------------------------------------------------------


@contextmanager
def locked(server: Server) -> Iterator[None]:
    """Another process' write transaction."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(server.data / "stillroom.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            process.stdin.close()


@pytest.fixture(scope="module")
def patient(quick: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("patient") / "data", teachers=teachers(quick)).start() as server:
        yield server


class Asked(threading.Thread):
    """One stored question and how long its answer took."""

    def __init__(self, server: Server, text: str, **more: Any) -> None:
        super().__init__()
        self._ask = lambda: chat(server, text, store=True, metadata={"of": "lock"}, **more)
        self.start()

    def run(self) -> None:
        began = time.monotonic()
        self.answer = self._ask()
        self.seconds = time.monotonic() - began


def test_a_write_waits_for_a_lock_of_two_seconds(patient: Server) -> None:
    with locked(patient):
        asked = Asked(patient, "waits")
        time.sleep(2)
        assert asked.is_alive()
    asked.join()
    assert asked.answer.status == 200
    assert asked.seconds >= 1.9


def test_a_lock_of_more_than_five_seconds_is_503_for_all_who_wait_and_reads_go_on(patient: Server) -> None:
    before = len(stored(patient))
    with locked(patient):
        asked = [Asked(patient, f"in vain {n}") for n in range(20)]
        streamed = Asked(patient, "in vain, streamed", stream=True)
        time.sleep(1)
        for path in ("/v1/chat/completions", "/v1/files", "/health"):
            began = time.monotonic()
            assert send(patient, "GET", path).status == 200
            assert time.monotonic() - began < 2
        assert chat(patient, "unstored").status == 200
        for one in [*asked, streamed]:
            one.join(timeout=25)
            assert not one.is_alive(), "each waits its five seconds, not all of them one after another"
    for one in asked:
        assert one.answer.status == 503
        assert one.answer.error["code"] == "store_unavailable"
        assert int(one.answer.headers["retry-after"]) > 0
        assert 4 < one.seconds < 20
    assert "[DONE]" not in payloads(streamed.answer.body)
    assert json.loads(payloads(streamed.answer.body)[-1])["error"]["code"] == "store_unavailable"
    assert chat(patient, "afterwards", store=True).status == 200
    assert len(stored(patient)) == before + 1


# --- a full disk --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes. Skips where mounting is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_507_loses_nothing_and_is_over_when_there_is_room(
    teacher: ScriptedTeacher, small_disk: Path
) -> None:
    with Server(small_disk / "data", teachers=teachers(teacher)).start() as server:
        made = [chat(server, f"{n}", store=True).json["id"] for n in range(20)]
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(os.urandom(4096))
        acknowledged, answers = [], []
        for number in range(60):
            answer = chat(server, f"{number} {os.urandom(3000).hex()}", store=True)
            answers.append(answer)
            if answer.status == 200:
                acknowledged.append(answer.json["id"])
        full = answers[-1]
        assert {a.status for a in answers} <= {200, 507}, [a.body for a in answers if a.status not in (200, 507)][:1]
        assert full.status == 507
        assert set(full.error) == {"message", "type", "param", "code"}
        assert full.error["code"] == "disk_full"
        assert full.headers["x-should-retry"] == "false"
        azure = send(server, "POST", "/openai/v1/chat/completions", question("x" * 9000, store=True))
        assert (azure.status, azure.headers["x-should-retry"]) == (507, "false")
        streamed = chat(server, os.urandom(3000).hex(), store=True, stream=True)
        assert json.loads(payloads(streamed.body)[-1])["error"]["code"] == "disk_full"
        upload = send(
            server,
            "POST",
            "/v1/files",
            b'--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            + b"x" * 9000
            + b"\r\n--B--\r\n",
            content_type="multipart/form-data; boundary=B",
        )
        assert upload.status == 507, upload.body
        assert chat(server, "unstored").status == 200
        assert payloads(chat(server, "unstored", stream=True).body)[-1] == "[DONE]"
        assert {c["id"] for c in stored(server)} == {*made, *acknowledged}
        ballast.unlink()
        again = wait_for(lambda: (a := chat(server, "room again", store=True)).status == 200 and a, seconds=10)
        assert {c["id"] for c in stored(server)} == {*made, *acknowledged, again.json["id"]}
        assert rows(server, "PRAGMA integrity_check") == [("ok",)]
        server.kill()
        server.start()
        assert {c["id"] for c in stored(server)} == {*made, *acknowledged, again.json["id"]}
