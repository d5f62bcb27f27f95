"""Training that is interrupted, by whatever, goes on and ends once; students that die come back."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stillroom.teachers.scripted import ScriptedTeacher
from tests.faults.test_bad_input import upload
from tests.faults.wire import alive, chat, children, send
from tests.support import Server, example_lines, wait_for

pytestmark = pytest.mark.slow

EPOCHS = 6
STUDENTS = {"scratch-small": {"price": {"training": 3.0}}}


def started(folder: Path, teacher: ScriptedTeacher) -> Server:
    teachers = {"gpt-4o": {"base_url": teacher.url}}
    fast = {"training_checkpoint_seconds": 0.2, "students": json.dumps(STUDENTS)}
    return Server(folder / "data", teachers=teachers, **fast).start()


@pytest.fixture
def server(teacher: ScriptedTeacher, tmp_path: Path) -> Iterator[Server]:
    with started(tmp_path, teacher) as running:
        yield running


def submit(server: Server, *, epochs: int = EPOCHS, examples: int = 60) -> str:
    file = upload(server, example_lines(examples)).json["id"]
    body = {"model": "scratch-small", "training_file": file, "seed": 1}
    body["hyperparameters"] = {"n_epochs": epochs, "batch_size": 4}
    made = send(server, "POST", "/v1/fine_tuning/jobs", body)
    assert made.status == 200, made.body
    return str(made.json["id"])


def job_of(server: Server, job: str) -> dict[str, Any]:
    return dict(send(server, "GET", f"/v1/fine_tuning/jobs/{job}").json)


def events(server: Server, job: str) -> list[dict[str, Any]]:
    return list(send(server, "GET", f"/v1/fine_tuning/jobs/{job}/events?limit=100").json["data"])


def await_status(server: Server, job: str, *statuses: str, seconds: float = 90) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        now = job_of(server, job)
        assert now["status"] in statuses or now["status"] not in ("failed", "cancelled"), now["error"]
        return now if now["status"] in statuses else None

    return dict(wait_for(there, seconds=seconds))


def await_steps(server: Server, job: str, step: int) -> None:
    """Until the job has trained so many steps and has saved a state."""
    wait_for(lambda: any((e["data"] or {}).get("step", 0) >= step for e in events(server, job)), seconds=90)


def trainers(server: Server) -> list[int]:
    return [
        pid
        for pid in children(server.pid)
        if b"stillroom.student.training.launch" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def check_ended_once(server: Server, job: str, *, went_on: bool = True) -> None:
    """One final model, one bill for the whole training, and one end; resumed, not begun anew."""
    done = await_status(server, job, "succeeded", seconds=150)
    messages = [event["message"] for event in events(server, job)]
    assert messages.count("The job has successfully completed") == 1
    models = [m["id"] for m in send(server, "GET", "/v1/models").json["data"]]
    assert models.count(done["fine_tuned_model"]) == 1
    with closing(sqlite3.connect(f"file:{server.data}/stillroom.db?mode=ro", uri=True)) as connection:
        bills = list(connection.execute("SELECT trained_tokens, cost_picousd FROM ledger WHERE subject = ?", (job,)))
    assert bills == [(done["trained_tokens"], done["trained_tokens"] * 3_000_000)]
    resumed = [message for message in messages if "goes on from step" in message]
    assert bool(resumed) is went_on, messages
    if went_on:
        assert int(resumed[0].rsplit(" ", 1)[1]) > 0


def test_a_job_goes_on_after_kill_9_of_the_server_which_leaves_no_orphan(server: Server) -> None:
    job = submit(server)
    await_steps(server, job, 12)
    left = children(server.pid)
    assert left
    server.kill()
    wait_for(lambda: not any(alive(pid) for pid in left), seconds=10)
    server.start()
    check_ended_once(server, job)


def test_a_job_goes_on_after_kill_9_of_its_process(server: Server) -> None:
    job = submit(server)
    await_steps(server, job, 12)
    (trainer,) = trainers(server)
    os.kill(trainer, signal.SIGKILL)
    check_ended_once(server, job)
    assert any("training process died" in event["message"] for event in events(server, job))


def test_a_job_goes_on_after_sigterm_of_the_server_which_exits_0(server: Server) -> None:
    job = submit(server)
    await_steps(server, job, 12)
    left, began = children(server.pid), time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 30
    assert not any(alive(pid) for pid in left)
    server.start()
    check_ended_once(server, job)


def test_an_undisturbed_job_does_not_say_that_it_went_on(server: Server) -> None:
    """The control: without an interruption nothing is resumed."""
    job = submit(server, epochs=2)
    check_ended_once(server, job, went_on=False)


def test_a_process_that_dies_again_and_again_fails_its_job_and_the_next_one_runs(server: Server) -> None:
    job = submit(server, epochs=50, examples=300)
    for _ in range(3):
        (trainer,) = wait_for(lambda: trainers(server), seconds=60)
        os.kill(trainer, signal.SIGKILL)
        wait_for(lambda dead=trainer: dead not in trainers(server), seconds=10)
    failed = await_status(server, job, "failed", seconds=30)
    assert failed["error"]["code"] == "out_of_memory"
    assert failed["fine_tuned_model"] is None
    check_ended_once(server, submit(server, epochs=1), went_on=False)


def test_pause_resume_and_cancel(server: Server) -> None:
    job = submit(server, epochs=50, examples=300)
    await_steps(server, job, 5)
    assert send(server, "POST", f"/v1/fine_tuning/jobs/{job}/pause").status == 200
    await_status(server, job, "paused", seconds=20)
    wait_for(lambda: not trainers(server), seconds=5)
    assert send(server, "POST", f"/v1/fine_tuning/jobs/{job}/pause").status == 409
    assert send(server, "POST", f"/v1/fine_tuning/jobs/{job}/resume").status == 200
    wait_for(lambda: any("goes on from step" in event["message"] for event in events(server, job)), seconds=60)
    (trainer,) = trainers(server)
    began = time.monotonic()
    cancelled = send(server, "POST", f"/v1/fine_tuning/jobs/{job}/cancel")
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    wait_for(lambda: not alive(trainer), seconds=5)
    assert time.monotonic() - began < 5
    again = send(server, "POST", f"/v1/fine_tuning/jobs/{job}/cancel")
    assert again.status == 409
    assert again.headers["x-should-retry"] == "false"
    assert job_of(server, job)["status"] == "cancelled"


def test_a_job_paused_before_its_process_can_listen_is_paused_and_has_not_crashed(server: Server) -> None:
    job = submit(server, epochs=1)
    wait_for(lambda: trainers(server), seconds=60, pause=0.01)
    assert send(server, "POST", f"/v1/fine_tuning/jobs/{job}/pause").status == 200
    # The control: it is still importing what it needs, and dies of the signal.
    await_status(server, job, "paused", seconds=20)
    assert not any("Fine-tuning job started" in event["message"] for event in events(server, job))
    with closing(sqlite3.connect(f"file:{server.data}/stillroom.db?mode=ro", uri=True)) as connection:
        assert list(connection.execute("SELECT crashes FROM jobs WHERE subject = ?", (job,))) == [(0,)]
    assert send(server, "POST", f"/v1/fine_tuning/jobs/{job}/resume").status == 200
    check_ended_once(server, job, went_on=False)


def test_a_student_comes_back_after_kill_9_of_its_host(server: Server) -> None:
    job = submit(server, epochs=1)
    model = await_status(server, job, "succeeded")["fine_tuned_model"]
    assert chat(server, "thing 1", model=model, max_tokens=3).status == 200
    (host,) = [
        pid for pid in children(server.pid) if b"student.serving.host" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(host, signal.SIGKILL)
    answers = [chat(server, "thing 1", model=model, max_tokens=3) for _ in range(2)]
    assert answers[-1].status == 200, [answer.body for answer in answers]
    assert answers[0].status == 200, answers[0].body
    left = children(server.pid)
    server.kill()
    wait_for(lambda: not any(alive(pid) for pid in left), seconds=10)
