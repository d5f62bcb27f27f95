"""Runs of evals that are interrupted, refused or overloaded: every item is graded once, every call billed once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stillroom.teachers.scripted import Hang, JsonObject, ScriptedTeacher, Status, echo
from tests.faults.test_bad_input import upload
from tests.faults.test_durability import locked
from tests.faults.wire import Answer, alive, children, send
from tests.journeys.test_evals import RefuseFormat
from tests.support import Server, wait_for

CALLS_AT_ONCE = 4
PRICE = {"input": 1, "output": 1}
ENDED = ("completed", "failed", "canceled")
JUDGE: dict[str, Any] = {
    "type": "label_model",
    "name": "judged",
    "model": "judge",
    "input": [{"role": "user", "content": "{{ sample.output_text }}"}],
    "labels": ["even", "odd"],
    "passing_labels": ["even"],
}
SAME: dict[str, Any] = {
    "type": "string_check",
    "name": "same",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.question }}",
    "operation": "eq",
}


def judgement(body: JsonObject) -> str:
    found = re.search(r"question (\d+)", echo(body))
    assert found is not None
    label = "even" if int(found[1]) % 2 == 0 else "odd"
    return json.dumps({"steps": [], "result": label})


@pytest.fixture
def teacher() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(echo) as scripted:
        yield scripted


@pytest.fixture
def judge() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(judgement) as scripted:
        yield scripted


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with the teachers `gpt-4o` and `judge`; what a failed test leaves running is stopped."""
    made: list[Server] = []

    def started(teacher: ScriptedTeacher, judge: ScriptedTeacher, **settings: Any) -> Server:
        named = {"gpt-4o": teacher, "judge": judge}
        teachers = {name: {"base_url": scripted.url, "price": PRICE} for name, scripted in named.items()}
        made.append(Server(tmp_path / "data", teachers=teachers, **settings).start())
        return made[-1]

    yield started
    for server in made:
        with server:
            pass


@pytest.fixture
def server(start: Start, teacher: ScriptedTeacher, judge: ScriptedTeacher) -> Server:
    return start(teacher, judge)


def begin(
    server: Server,
    count: int,
    *,
    criteria: tuple[dict[str, Any], ...] = (SAME,),
    model: str | None = "gpt-4o",
) -> str:
    """Starts a run of so many questions, which bring their answers along where no model is asked; gives its path."""
    config = {"type": "custom", "item_schema": {"type": "object"}}
    made = post(server, "/v1/evals", {"data_source_config": config, "testing_criteria": list(criteria)})
    texts = [f"question {n}" for n in range(count)]
    rows = [{"item": {"question": text}, "sample": None if model else {"output_text": text}} for text in texts]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    source: dict[str, Any] = {
        "type": "completions",
        "source": {"type": "file_id", "id": upload(server, lines, purpose="evals").json["id"]},
    }
    if model:
        messages = {"type": "template", "template": [{"role": "user", "content": "{{ item.question }}"}]}
        source |= {"model": model, "input_messages": messages}
    run = post(server, f"/v1/evals/{made['id']}/runs", {"data_source": source})
    return f"/v1/evals/{made['id']}/runs/{run['id']}"


def post(server: Server, path: str, body: Any) -> dict[str, Any]:
    answer = send(server, "POST", path, body)
    assert answer.status < 300, answer.body
    return dict(answer.json)


def look(server: Server, run: str) -> dict[str, Any]:
    answer: Answer = send(server, "GET", run)
    assert answer.status == 200, answer.body
    return dict(answer.json)


def await_end(server: Server, run: str, status: str = "completed", seconds: float = 90) -> dict[str, Any]:
    wait_for(lambda: look(server, run)["status"] in ENDED, seconds=seconds, pause=0.05)
    done = look(server, run)
    assert done["status"] == status, (done["error"], server.log.read_text()[-3000:])
    return done


def recorded(server: Server, run: str) -> int:
    counts = look(server, run)["result_counts"]
    return int(counts["passed"] + counts["failed"] + counts["errored"])


def items(server: Server, run: str) -> list[dict[str, Any]]:
    """Every output item, by the number of its item."""
    found: list[dict[str, Any]] = []
    while True:
        after = f"&after={found[-1]['id']}" if found else ""
        page = send(server, "GET", f"{run}/output_items?limit=100{after}").json
        found += page["data"]
        if not page["has_more"]:
            return sorted(found, key=lambda item: item["datasource_item_id"])


def query(server: Server, text: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{server.data}/stillroom.db?mode=ro", uri=True)) as connection:
        return list(connection.execute(text, values))


def runners(server: Server) -> list[int]:
    """The processes of runs."""
    found = []
    for pid in children(server.pid):
        try:
            if b"stillroom.evals.running.run" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def lent_keys(server: Server) -> int:
    return int(query(server, "SELECT COUNT(*) FROM api_keys WHERE acts_for IS NOT NULL")[0][0])


def billed(server: Server) -> Counter[str]:
    """How many answers of each model the ledger has."""
    return Counter(model for (model,) in query(server, "SELECT model FROM ledger"))


def check_each_once(server: Server, run: str, count: int, *, calls: int = 1) -> dict[str, Any]:
    """Each item is recorded once, the run's sums are those of its items, each call is in the ledger once."""
    done = look(server, run)
    found = items(server, run)
    assert [item["datasource_item_id"] for item in found] == list(range(count))
    assert [item["datasource_item"]["question"] for item in found] == [f"question {n}" for n in range(count)]
    assert {item["sample"]["output"][0]["content"] for item in found} == {f"question {n}" for n in range(count)}
    statuses = Counter(item["status"] for item in found)
    told = done["result_counts"]
    assert told["total"] == count
    assert (told["passed"], told["failed"], told["errored"]) == (statuses["pass"], statuses["fail"], 0)
    for criterion in done["per_testing_criteria_results"]:
        assert criterion["passed"] + criterion["failed"] == count
    used = {each["model_name"]: each for each in done["per_model_usage"]}
    sums = query(
        server, "SELECT model, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens) FROM ledger GROUP BY model"
    )
    assert len(used) == calls
    assert {model: each["invocation_count"] for model, each in used.items()} == dict.fromkeys(used, count)
    assert sorted(sums) == sorted(
        (model, count, each["prompt_tokens"], each["completion_tokens"]) for model, each in used.items()
    )
    wait_for(lambda: lent_keys(server) == 0, seconds=5)
    wait_for(lambda: not any((server.data / "runs").iterdir()), seconds=15)
    wait_for(lambda: query(server, "SELECT COUNT(*) FROM kept_answers") == [(0,)], seconds=15)
    return done


# --- crashes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_goes_on_through_twenty_kills_and_nothing_is_done_or_billed_twice(start: Start) -> None:
    count, chance = 300, random.Random(7)
    with ScriptedTeacher(echo, first_token_seconds=0.1) as teacher, ScriptedTeacher(judgement) as judge:
        server = start(teacher, judge, evals_concurrent_calls=CALLS_AT_ONCE)
        run = begin(server, count, criteria=(SAME, JUDGE))
        killed_servers = 0
        for round_ in range(20):
            wait_for(lambda: runners(server), seconds=60, pause=0.02)
            before = recorded(server, run)
            wait_for(lambda n=before: recorded(server, run) > n, seconds=60, pause=0.02)
            time.sleep(chance.uniform(0, 0.3))
            assert look(server, run)["status"] == "in_progress", "the run ended before it was killed often enough"
            if round_ % 4 == 3:
                left = children(server.pid)
                server.kill()
                killed_servers += 1
                wait_for(lambda pids=left: not any(alive(pid) for pid in pids), seconds=10, pause=0.02)
                server.start()
            else:
                (runner,) = runners(server)
                os.kill(runner, signal.SIGKILL)
                wait_for(lambda dead=runner: not alive(dead), seconds=5, pause=0.01)
        await_end(server, run)
        done = check_each_once(server, run, count, calls=2)
        assert done["result_counts"]["passed"] == count // 2
        # An answer was asked for again only when a server died before it had written it down.
        for scripted in (teacher, judge):
            asked = Counter(echo(sent["body"]) for sent in scripted.requests)
            assert len(asked) == count
            again = sum(times - 1 for times in asked.values())
            assert again <= killed_servers * CALLS_AT_ONCE, asked.most_common(5)
        server.stop()
        print(f"{killed_servers} servers and {20 - killed_servers} runs killed; {teacher.calls} calls for {count}")


def test_only_a_runs_process_dying_asks_no_teacher_twice(start: Start) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.3) as teacher, ScriptedTeacher(judgement) as judge:
        server = start(teacher, judge)
        run = begin(server, 40)
        for _ in range(2):
            before = recorded(server, run)
            wait_for(lambda n=before: recorded(server, run) > n, seconds=30, pause=0.02)
            (runner,) = wait_for(lambda: runners(server), seconds=30, pause=0.02)
            os.kill(runner, signal.SIGKILL)
        await_end(server, run)
        check_each_once(server, run, 40)
        assert teacher.calls == 40


def test_the_same_calls_without_a_name_are_billed_twice(server: Server, teacher: ScriptedTeacher) -> None:
    """The control: what makes the counts above hold is the calls' idempotency keys."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "question 1"}]}
    for headers, calls in (({"idempotency_key": "a/1"}, 1), ({}, 2)):
        before, asked = billed(server)["gpt-4o"], teacher.calls
        for _ in range(2):
            assert send(server, "POST", "/v1/chat/completions", body, **headers).status == 200
        wait_for(lambda n=before + calls: billed(server)["gpt-4o"] == n, seconds=5)
        assert teacher.calls == asked + calls


def test_a_run_whose_process_dies_again_and_again_without_progress_fails(
    server: Server, teacher: ScriptedTeacher
) -> None:
    teacher.script_lasting(Hang(seconds=60))
    run = begin(server, 3)
    for _ in range(3):
        (runner,) = wait_for(lambda: runners(server), seconds=30, pause=0.02)
        os.kill(runner, signal.SIGKILL)
        wait_for(lambda dead=runner: dead not in runners(server), seconds=10, pause=0.02)
    failed = await_end(server, run, "failed", seconds=20)
    assert failed["error"]["code"] == "run_failed"
    assert lent_keys(server) == 0


def test_a_run_goes_on_with_a_judge_that_has_to_be_asked_without_a_form(server: Server, judge: ScriptedTeacher) -> None:
    """Its kept answers are those to other requests than a new process begins with."""
    judge.script_lasting(RefuseFormat())
    slow = "import time\ndef grade(sample, item):\n    time.sleep(0.2)\n    return 1.0\n"
    run = begin(server, 20, criteria=(SAME, JUDGE, {"type": "python", "name": "slow", "source": slow}))
    wait_for(lambda: recorded(server, run) > 1, seconds=30, pause=0.02)
    (runner,) = runners(server)
    os.kill(runner, signal.SIGKILL)
    await_end(server, run)
    check_each_once(server, run, 20, calls=2)


def test_progress_forgives_earlier_crashes(start: Start) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.3) as teacher, ScriptedTeacher(judgement) as judge:
        server = start(teacher, judge)
        teacher.script_lasting(Hang(seconds=8))
        run = begin(server, 40)
        for _ in range(2):
            (runner,) = wait_for(lambda: runners(server), seconds=30, pause=0.02)
            os.kill(runner, signal.SIGKILL)
            wait_for(lambda dead=runner: dead not in runners(server), seconds=10, pause=0.02)
        teacher.script_lasting(None)
        (runner,) = wait_for(lambda: recorded(server, run) and runners(server), seconds=30, pause=0.02)
        os.kill(runner, signal.SIGKILL)
        await_end(server, run)


def test_a_run_goes_on_after_sigterm_and_a_restart(start: Start) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.2) as teacher, ScriptedTeacher(judgement) as judge:
        server = start(teacher, judge)
        run = begin(server, 60)
        wait_for(lambda: recorded(server, run) > 10, seconds=30, pause=0.02)
        left, began = children(server.pid), time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15
        assert not any(alive(pid) for pid in left)
        assert lent_keys(server) == 0
        server.start()
        await_end(server, run)
        check_each_once(server, run, 60)
        assert teacher.calls == 60


def test_a_service_manager_that_ends_every_process_at_once_fails_no_run(start: Start) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.2) as teacher, ScriptedTeacher(judgement) as judge:
        server = start(teacher, judge)
        run = begin(server, 40)
        (runner,) = wait_for(lambda: recorded(server, run) > 5 and runners(server), seconds=30, pause=0.02)
        os.kill(runner, signal.SIGTERM)
        time.sleep(0.2)
        assert server.stop() == 0
        server.start()
        await_end(server, run)
        check_each_once(server, run, 40)


def test_what_was_laid_out_but_not_yet_written_down_is_laid_out_again(start: Start) -> None:
    """A server killed between the two: the items lie there, and the run does not know how many."""
    with ScriptedTeacher(echo, first_token_seconds=0.3) as teacher, ScriptedTeacher(judgement) as judge:
        server = start(teacher, judge)
        run = begin(server, 5)
        wait_for(lambda: look(server, run)["result_counts"]["total"], seconds=20, pause=0.01)
        server.kill()
        with closing(sqlite3.connect(server.data / "stillroom.db")) as connection:
            connection.execute("UPDATE eval_runs SET total = 0, lineage = NULL, started_at = NULL")
            connection.execute("DELETE FROM eval_output_items")
            connection.execute("UPDATE eval_runs SET passed = 0, failed = 0, per_model_usage = '{}'")
            connection.commit()
        server.start()
        done = await_end(server, run)
        assert done["result_counts"] == {"total": 5, "passed": 5, "failed": 0, "errored": 0}
        assert done["lineage"]["total"] == 5


# --- models that fail ------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"retry-after-ms": "1500"}, {"retry-after": "2"}], ids=["ms", "seconds"])
def test_an_overloaded_model_is_waited_for_by_the_whole_run(
    teacher: ScriptedTeacher, judge: ScriptedTeacher, start: Start, headers: dict[str, str]
) -> None:
    # One attempt, so that it is the run that waits and not the gateway.
    server = start(teacher, judge, gateway_attempts=1)
    teacher.script(*[None] * 10, *[Status(code=429, headers=headers)] * 8)
    began = time.monotonic()
    run = begin(server, 60)
    done = await_end(server, run)
    assert done["result_counts"] == {"total": 60, "passed": 60, "failed": 0, "errored": 0}
    assert time.monotonic() - began > 1.5
    assert 61 <= teacher.calls <= 68, "nobody else is asked while the model is overloaded"
    check_each_once(server, run, 60)


def test_a_model_that_stays_broken_puts_items_in_error_with_its_reason(
    teacher: ScriptedTeacher, judge: ScriptedTeacher, start: Start
) -> None:
    server = start(teacher, judge, gateway_attempts=1, evals_patience_seconds=1.0)
    error = {"error": {"message": "the model is on fire", "type": "server_error", "param": None, "code": "fire"}}
    teacher.script_lasting(Status(code=500, body=json.dumps(error)))
    run = begin(server, 10)
    done = await_end(server, run)
    assert done["result_counts"] == {"total": 10, "passed": 0, "failed": 0, "errored": 10}
    (item, *_) = items(server, run)
    assert item["status"] == "error"
    assert item["sample"]["error"] == {"code": "fire", "message": "the model is on fire"}
    assert len(send(server, "GET", f"{run}/output_items?status=error").json["data"]) == 10


def test_a_model_that_answers_nothing_any_more_ends_the_run_with_its_own_words(
    teacher: ScriptedTeacher, judge: ScriptedTeacher, start: Start
) -> None:
    """A run over thousands of items must not hold its place for hours when the model is down."""
    server = start(teacher, judge, gateway_attempts=1, evals_patience_seconds=0.5)
    error = {"error": {"message": "the model is on fire", "type": "server_error", "param": None, "code": "fire"}}
    run = begin(server, 5)
    assert await_end(server, run)["result_counts"]["passed"] == 5
    teacher.script_lasting(Status(code=500, body=json.dumps(error)))
    failed = await_end(server, begin(server, 300), "failed", seconds=60)
    assert failed["error"]["code"] == "model_unavailable"
    assert "'gpt-4o'" in failed["error"]["message"]
    assert "the model is on fire" in failed["error"]["message"]
    assert 20 <= failed["result_counts"]["errored"] < 40


def test_now_and_then_an_answer_keeps_a_run_going(
    teacher: ScriptedTeacher, judge: ScriptedTeacher, start: Start
) -> None:
    server = start(teacher, judge, gateway_attempts=1, evals_patience_seconds=30.0)
    teacher.script(*[fault for _ in range(12) for fault in (Status(code=503), Status(code=500), None)])
    done = await_end(server, begin(server, 30))
    assert done["result_counts"] == {"total": 30, "passed": 30, "failed": 0, "errored": 0}


def test_an_item_that_takes_its_schema_for_ever_is_errored_and_the_others_are_graded(server: Server) -> None:
    schema = {"type": "object", "properties": {"question": {"type": "string", "pattern": "^(a+)+$"}}}
    config = {"type": "custom", "item_schema": schema}
    made = post(server, "/v1/evals", {"data_source_config": config, "testing_criteria": [SAME]})
    texts = ["a", "a" * 40 + "!", "aa"]
    rows = [{"item": {"question": text}, "sample": {"output_text": text}} for text in texts]
    source = {"type": "jsonl", "source": {"type": "file_content", "content": rows}}
    begun = post(server, f"/v1/evals/{made['id']}/runs", {"data_source": source})
    run = f"/v1/evals/{made['id']}/runs/{begun['id']}"
    await_end(server, run, seconds=30)
    errors = [item["sample"]["error"] for item in items(server, run)]
    assert errors[0] is errors[2] is None
    assert errors[1]["code"] == "invalid_schema"
    assert "more than 2 seconds" in errors[1]["message"]


def test_a_python_grader_that_never_ends_is_given_up_after_three_items(
    teacher: ScriptedTeacher, judge: ScriptedTeacher, start: Start
) -> None:
    server = start(teacher, judge, evals_python_seconds=0.5)
    loop = {"type": "python", "name": "loops", "source": "def grade(sample, item):\n    while True: pass\n"}
    began = time.monotonic()
    run = begin(server, 40, model=None, criteria=(SAME, loop))
    done = await_end(server, run, seconds=60)
    assert done["result_counts"]["errored"] == 40
    reasons = Counter("took longer" in item["results"][1]["error"]["message"] for item in items(server, run))
    assert reasons[True] == 3
    assert reasons[False] == 37
    assert time.monotonic() - began < 20


def test_a_model_that_refuses_one_item_puts_that_one_in_error(server: Server, teacher: ScriptedTeacher) -> None:
    error = {"error": {"message": "not this one", "type": "invalid_request_error", "param": None, "code": "content"}}
    teacher.script(None, None, Status(code=400, body=json.dumps(error)))
    run = begin(server, 10)
    done = await_end(server, run)
    assert (done["result_counts"]["passed"], done["result_counts"]["errored"]) == (9, 1)
    assert teacher.calls == 10
    (item,) = [item for item in items(server, run) if item["status"] == "error"]
    assert item["sample"]["error"]["message"] == "not this one"


def test_a_judge_that_stays_broken_puts_items_in_error_and_says_so(
    teacher: ScriptedTeacher, judge: ScriptedTeacher, start: Start
) -> None:
    server = start(teacher, judge, gateway_attempts=1, evals_patience_seconds=0.5)
    judge.script_lasting(Status(code=503))
    run = begin(server, 4, criteria=(SAME, JUDGE))
    done = await_end(server, run)
    assert done["result_counts"]["errored"] == 4
    (item, *_) = items(server, run)
    assert [result["passed"] for result in item["results"]] == [True, False]
    assert item["results"][1]["error"]["code"] == "model_grader_server_error"


def test_a_model_that_is_gone_fails_the_run_clearly(start: Start, judge: ScriptedTeacher) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.2) as teacher:
        server = start(teacher, judge)
        arm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"
        path = f"{arm}/in-use?api-version=2025-09-01"
        assert send(server, "PUT", path, {"properties": {"model": {"name": "gpt-4o"}}}).status in (200, 201)
        wait_for(lambda: send(server, "GET", path).json["properties"]["provisioningState"] == "Succeeded", seconds=10)
        run = begin(server, 200, model="in-use")
        wait_for(lambda: recorded(server, run) > 3, seconds=30, pause=0.02)
        assert send(server, "DELETE", path).status < 300
        failed = await_end(server, run, "failed", seconds=20)
        assert failed["error"]["code"] == "model_not_found"
        assert "in-use" in failed["error"]["message"]
        kept = recorded(server, run)
        assert 3 < kept < 200
        assert len(items(server, run)) == kept
        assert lent_keys(server) == 0


# --- ended by its owner -----------------------------------------------------------------------------------


def test_cancelling_stops_the_calls_at_once_and_keeps_what_was_found(start: Start, judge: ScriptedTeacher) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.1) as teacher:
        server = start(teacher, judge)
        run = begin(server, 2000)
        (runner,) = wait_for(lambda: recorded(server, run) > 10 and runners(server), seconds=30, pause=0.02)
        assert post(server, f"{run}/cancel", {})["status"] == "canceled"
        wait_for(lambda: not alive(runner), seconds=2, pause=0.02)
        time.sleep(0.2)  # answers that were on their way
        asked, kept = teacher.calls, recorded(server, run)
        time.sleep(0.5)
        assert (teacher.calls, recorded(server, run)) == (asked, kept)
        assert len(items(server, run)) == kept
        assert look(server, run)["status"] == "canceled"
        assert not (again := send(server, "POST", f"{run}/cancel", {})).status < 300
        assert (again.status, again.headers["x-should-retry"]) == (409, "false")
        wait_for(lambda: lent_keys(server) == 0, seconds=5)
        wait_for(lambda: not any((server.data / "runs").iterdir()), seconds=15)


def test_a_lent_key_is_not_listed_and_ends_with_its_run(start: Start, judge: ScriptedTeacher) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.2) as teacher:
        server = start(teacher, judge)
        own = [key["id"] for key in send(server, "GET", "/v1/stillroom/keys").json["data"]]
        run = begin(server, 30)
        (runner,) = wait_for(lambda: recorded(server, run) and runners(server), seconds=30, pause=0.02)
        assert lent_keys(server) == 1
        assert [key["id"] for key in send(server, "GET", "/v1/stillroom/keys").json["data"]] == own
        spec = next((server.data / "runs").glob("*/spec.json")).read_text()
        assert "sk-stillroom" not in spec
        environment = dict(
            line.split("=", 1) for line in Path(f"/proc/{runner}/environ").read_text().split("\0") if "=" in line
        )
        key = environment["STILLROOM_RUN_KEY"]
        refused = send(server, "GET", "/v1/models", key=key)
        assert refused.status == 401
        assert "chat completions and nothing else" in refused.json["error"]["message"]
        await_end(server, run)
        wait_for(lambda: send(server, "GET", "/v1/models", key=key).status == 401, seconds=10)
        assert lent_keys(server) == 0
        counted = {key_id for (key_id,) in query(server, "SELECT DISTINCT key_id FROM ledger")}
        assert counted == set(own), "what a run asks for is counted by its owner's key"


def test_a_grader_that_never_ends_goes_with_its_run(server: Server) -> None:
    loops = "import time\ndef grade(sample, item):\n    time.sleep(1000)\n"
    for end in ("cancel", "kill its process", "kill"):
        run = begin(server, 4, criteria=({"type": "python", "name": "loops", "source": loops},))
        grown = wait_for(lambda: len(found := children(server.pid)) > 1 and found, seconds=30, pause=0.02)
        if end == "cancel":
            post(server, f"{run}/cancel", {})
        elif end == "kill its process":
            os.kill(runners(server)[0], signal.SIGKILL)
        else:
            server.kill()
        wait_for(lambda pids=grown: not any(alive(pid) for pid in pids), seconds=10)
        if end == "kill its process":
            post(server, f"{run}/cancel", {})
            wait_for(lambda: not runners(server), seconds=10)
    server.start()
    post(server, f"{run}/cancel", {})


# --- two at once ------------------------------------------------------------------------------------------


def test_a_worker_that_was_taken_over_from_records_nothing_more(server: Server, teacher: ScriptedTeacher) -> None:
    """Somebody else's claim, as another worker makes it: a higher fence. What the first still finds is not kept."""
    teacher.script_lasting(Hang(seconds=1.0))
    run = begin(server, 30)
    (runner,) = wait_for(lambda: runners(server), seconds=30, pause=0.02)
    with closing(sqlite3.connect(server.data / "stillroom.db", timeout=10)) as connection:
        connection.execute("UPDATE jobs SET fence = fence + 1, worker = 'another' WHERE kind = 'eval_run'")
        connection.commit()
    wait_for(lambda: not alive(runner), seconds=10)
    time.sleep(1.0)
    assert recorded(server, run) == 0
    assert look(server, run)["status"] == "in_progress"
    with closing(sqlite3.connect(server.data / "stillroom.db", timeout=10)) as connection:
        connection.execute("UPDATE jobs SET state = 'queued', worker = NULL WHERE kind = 'eval_run'")
        connection.commit()
    teacher.script_lasting(None)
    await_end(server, run)
    check_each_once(server, run, 30)


@pytest.mark.slow
def test_a_worker_that_fell_silent_and_comes_back_disturbs_nobody(start: Start) -> None:
    """Two workers: one stops for longer than its lease, the other takes over, the first wakes up again."""
    with ScriptedTeacher(echo, first_token_seconds=0.5) as teacher, ScriptedTeacher(judgement) as judge:
        server = start(teacher, judge, evals_running_runs=0, evals_concurrent_calls=CALLS_AT_ONCE)
        environment = {**os.environ, "STILLROOM_DATA": str(server.data), "STILLROOM_EVALS_CONCURRENT_CALLS": "4"}
        environment["STILLROOM_TEACHERS"] = json.dumps({"gpt-4o": {"base_url": teacher.url}})
        command = [sys.executable, "-m", "stillroom", "worker"]
        workers: list[subprocess.Popen[bytes]] = []
        try:
            run = begin(server, 150)
            workers.append(subprocess.Popen(command, env=environment))
            wait_for(lambda: recorded(server, run) > 5, seconds=30, pause=0.02)
            workers[0].send_signal(signal.SIGSTOP)
            silent = recorded(server, run)
            workers.append(subprocess.Popen(command, env=environment))
            wait_for(lambda: recorded(server, run) > silent + 5, seconds=60)
            workers[0].send_signal(signal.SIGCONT)
            await_end(server, run)
            check_each_once(server, run, 150)
            assert teacher.calls == 150
            assert workers[0].poll() is None, "the one that came back goes on working"
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGCONT)
                worker.terminate()
            assert [worker.wait(timeout=60) for worker in workers] == [0] * len(workers)


@pytest.mark.slow
def test_a_run_goes_on_after_the_database_was_locked_for_too_long(server: Server) -> None:
    slow = "import time\ndef grade(sample, item):\n    time.sleep(0.04)\n    return 1.0\n"
    criteria = (SAME, {"type": "python", "name": "slow", "source": slow})
    run = begin(server, 200, criteria=criteria, model=None)
    wait_for(lambda: recorded(server, run) > 5, seconds=30, pause=0.02)
    with locked(server):
        time.sleep(7)
    wait_for(lambda: "interrupted" in server.log.read_text(), seconds=5)
    await_end(server, run)  # its claim has to run out first
    check_each_once(server, run, 200, calls=0)
