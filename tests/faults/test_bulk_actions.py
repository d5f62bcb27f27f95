"""Bulk actions that are interrupted go on where they were; what others store meanwhile does not wait."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stillroom import auth, ids
from stillroom.assembly import open_platform
from stillroom.completions import table
from stillroom.completions.schema import Status
from stillroom.completions.table import NewCompletion
from stillroom.config import Settings
from stillroom.teachers.scripted import Hang, ScriptedTeacher, echo
from tests.faults.wire import chat, send
from tests.support import Server, wait_for

BULK = "/v1/stillroom/completions/bulk"
ACTIONS = "/v1/stillroom/bulk_actions"
STORED = 6000
CHOSEN = 2 * STORED // 3


def fill(data: Path) -> None:
    """Stores completions as a server would have; two of three have `batch` chosen."""
    platform = open_platform(Settings(data=str(data)))
    numbers = ids.OrderedNumbers()

    def write(connection: Any) -> None:
        for index in range(STORED):
            new = NewCompletion(
                number=numbers.mint(),
                project=auth.DEFAULT_PROJECT,
                created_at=1,
                model="gpt-4o",
                status=Status.COMPLETED,
                request={"messages": [{"role": "user", "content": f"question {index} " + "word " * 100}]},
                response={"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]},
                metadata={"batch": "other" if index % 3 == 0 else "chosen", "case": str(index % 100)},
                prompt_tokens=1,
                completion_tokens=1,
                first_token_ms=1,
                latency_ms=1,
            )
            table.add(connection, new, table.pack(new.request, new.response))

    platform.writer.write(write)
    platform.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("filled") / "data"
    fill(data)
    return data


@pytest.fixture
def server(teacher: ScriptedTeacher, filled: Path, tmp_path: Path) -> Iterator[Server]:
    shutil.copytree(filled, tmp_path / "data")
    with Server(tmp_path / "data", teachers={"gpt-4o": {"base_url": teacher.url}}).start() as running:
        yield running


def query(server: Server, statement: str) -> list[Any]:
    with closing(sqlite3.connect(server.data / "stillroom.db")) as database:
        return database.execute(statement).fetchall()


def batches(server: Server) -> dict[str, int]:
    """How many completions there are by `batch`, in what is shown and what is found by."""
    shown = dict(query(server, "SELECT json_extract(metadata, '$.batch'), count(*) FROM completions GROUP BY 1"))
    found = dict(query(server, "SELECT value, count FROM metadata_pairs WHERE key = 'batch'"))
    assert shown == found
    return shown


def ask(server: Server, action: str, **more: Any) -> str:
    made = send(server, "POST", BULK, {"action": action, "filter": {"metadata": {"batch": "chosen"}}, **more})
    assert made.status == 200, made.body
    return str(made.json["id"])


def look(server: Server, action: str) -> dict[str, Any]:
    return dict(send(server, "GET", f"{ACTIONS}/{action}").json)


def await_status(server: Server, action: str, status: str) -> dict[str, Any]:
    return dict(wait_for(lambda: (now := look(server, action))["status"] == status and now, pause=0.02))


def kill_in_the_middle(server: Server, action: str) -> int:
    """Ends the server when the action has begun; gives how many completions were done by then."""
    wait_for(lambda: look(server, action)["done"] > 0, pause=0.005)
    server.kill()
    ((done,),) = query(server, "SELECT done FROM bulk_actions")
    assert 0 < done < CHOSEN
    return int(done)


def test_a_deletion_killed_in_the_middle_deletes_each_match_once_and_nothing_else(server: Server) -> None:
    assert batches(server) == {"chosen": CHOSEN, "other": STORED - CHOSEN}
    action = ask(server, "delete")
    done = kill_in_the_middle(server, action)
    assert batches(server) == {"chosen": CHOSEN - done, "other": STORED - CHOSEN}
    server.start()
    end = await_status(server, action, "succeeded")
    assert (end["matched"], end["done"], end["skipped"]) == (CHOSEN, CHOSEN, 0)
    assert batches(server) == {"other": STORED - CHOSEN}
    assert query(server, "PRAGMA foreign_key_check") == []


def test_a_tag_killed_in_the_middle_reaches_each_match_once(server: Server) -> None:
    action = ask(server, "tag", metadata={"case": None, "reviewed": "yes"})
    kill_in_the_middle(server, action)
    server.start()
    end = await_status(server, action, "succeeded")
    assert (end["matched"], end["done"], end["skipped"]) == (CHOSEN, CHOSEN, 0)
    assert query(server, "SELECT count FROM metadata_pairs WHERE key = 'reviewed'") == [(CHOSEN,)]
    assert query(server, "SELECT sum(count) FROM metadata_pairs WHERE key = 'case'") == [(STORED - CHOSEN,)]
    assert batches(server) == {"chosen": CHOSEN, "other": STORED - CHOSEN}


def test_a_window_to_undo_outlives_a_killed_server(server: Server) -> None:
    action = ask(server, "delete", undo_seconds=60)
    kept = ask(server, "delete", undo_seconds=2)
    server.kill()
    server.start()
    assert look(server, action)["status"] == "waiting"
    assert send(server, "POST", f"{ACTIONS}/{action}/cancel").json["status"] == "cancelled"
    # The control: the one that nobody cancels is carried out when its time has come.
    end = await_status(server, kept, "succeeded")
    assert end["finished_at"] >= end["starts_at"]
    assert batches(server) == {"other": STORED - CHOSEN}


def test_a_cancelled_deletion_stops_where_it_is(server: Server) -> None:
    action = ask(server, "delete")
    wait_for(lambda: look(server, action)["done"] > 0, pause=0.005)
    stopped = send(server, "POST", f"{ACTIONS}/{action}/cancel")
    assert (stopped.status, stopped.json["status"]) == (200, "cancelled")
    done = stopped.json["done"]
    assert 0 < done < CHOSEN
    tag = ask(server, "tag", metadata={"left": "yes"})  # runs after it, so it has stopped when this has ended
    assert await_status(server, tag, "succeeded")["done"] == CHOSEN - done
    assert look(server, action)["done"] == done
    assert batches(server) == {"chosen": CHOSEN - done, "other": STORED - CHOSEN}


def test_answers_are_stored_while_a_deletion_runs(server: Server) -> None:
    action = ask(server, "delete")
    stored = []
    while look(server, action)["status"] != "succeeded":
        answer = chat(server, "meanwhile", store=True, metadata={"batch": "chosen"})
        assert answer.status == 200
        stored.append(answer.json["id"])
    assert len(stored) >= 5
    assert look(server, action)["done"] == CHOSEN
    assert batches(server)["chosen"] == len(stored)


def test_an_answer_being_made_at_the_asking_is_not_deleted_when_it_is_stored(tmp_path: Path) -> None:
    with (
        ScriptedTeacher(echo) as teacher,
        Server(tmp_path / "data", teachers={"gpt-4o": {"base_url": teacher.url}}).start() as server,
        ThreadPoolExecutor() as threads,
    ):
        teacher.script(Hang(seconds=1.0))
        slow = threads.submit(chat, server, "slow", store=True)
        wait_for(lambda: teacher.calls == 1, pause=0.01)
        assert chat(server, "quick", store=True).status == 200  # stored first, though it was begun later
        action = send(server, "POST", BULK, {"action": "delete", "filter": {}, "undo_seconds": 2}).json["id"]
        assert slow.result().status == 200
        end = await_status(server, action, "succeeded")
        assert (end["matched"], end["done"]) == (1, 1)
        kept = send(server, "GET", "/v1/chat/completions").json["data"]
        assert [item["choices"][0]["message"]["content"] for item in kept] == ["slow"]


@pytest.mark.slow
def test_a_database_that_others_hold_is_waited_for(server: Server) -> None:
    action = ask(server, "delete")
    wait_for(lambda: look(server, action)["done"] > 0, pause=0.005)
    with closing(sqlite3.connect(server.data / "stillroom.db", isolation_level=None, timeout=30)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        wait_for(lambda: f"{action} waits" in server.log.read_text())
        assert 0 < look(server, action)["done"] < CHOSEN
        holder.execute("ROLLBACK")
    assert await_status(server, action, "succeeded")["done"] == CHOSEN
    assert batches(server) == {"other": STORED - CHOSEN}
