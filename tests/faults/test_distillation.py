"""Distillations that are interrupted, overloaded, short of money, or answered badly: no row is lost, none is paid twice."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stillroom.config import DistillationSettings, Price, Settings, Teacher
from stillroom.distillation import DistillationFailed, InvalidJobFile, Progress, distill, prompts
from stillroom.distillation.journal import Journal, Label
from stillroom.distillation.rows import Row
from stillroom.teachers.scripted import Reply, ScriptedTeacher, Status, echo, in_form
from tests.journeys.test_distill_run import Enough, until_the_job
from tests.support import wait_for

PRICE = Price(input=2.0, output=8.0)
COUNT = 40


@dataclass(frozen=True)
class Unlucky:
    """Goes wrong by the row's number: always 400, or 500 at first; `healed` ends all that."""

    refused: frozenset[int] = frozenset()
    at_first: frozenset[int] = frozenset()
    seen: Counter[int] = field(default_factory=Counter)
    healed: list[bool] = field(default_factory=list)

    async def send(self, reply: Reply) -> web.StreamResponse:
        number = number_of(reply.question)
        self.seen[number] += 1
        if self.healed:
            return await reply.send()
        if number in self.refused:
            return await Status(code=400).send(reply)
        if number in self.at_first and self.seen[number] == 1:
            return await Status(code=500).send(reply)
        return await reply.send()


@pytest.fixture
def teacher() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(in_form(echo)) as scripted:
        yield scripted


def settings_of(folder: Path, teacher: ScriptedTeacher) -> Settings:
    return Settings(
        data=str(folder / "data"),
        teachers={"t": Teacher(base_url=teacher.url, price=PRICE)},
        distillation=DistillationSettings(retry_seconds=0.01),
    )


def spec_of(folder: Path, count: int = COUNT, at_once: int = 10, text: str = "row", **more: Any) -> dict[str, Any]:
    rows = [{"messages": [{"role": "user", "content": f"{text} {number}"}]} for number in range(count)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "name": "run",
        "teacher": "t",
        "student": "scratch-small",
        "source": str(folder / "rows.jsonl"),
        "teacher_model_settings": {
            "endpoint_request_settings": {"request_batch_size": at_once, "min_endpoint_success_ratio": 0.9}
        },
        **more,
    }


def number_of(body: dict[str, Any]) -> int:
    return int(body["messages"][-1]["content"].split()[-1])


def times_asked(teacher: ScriptedTeacher) -> Counter[int]:
    return Counter(number_of(request["body"]) for request in teacher.requests)


def labels(folder: Path) -> Path:
    return folder / "data" / "distillations" / "run" / "labels.jsonl"


def in_ledger(folder: Path) -> tuple[int, int]:
    """How many answers are in the ledger, and what they cost, in pico-USD."""
    with closing(sqlite3.connect(folder / "data" / "stillroom.db")) as database:
        return tuple(database.execute("SELECT count(*), coalesce(sum(cost_picousd), 0) FROM ledger").fetchone())


def test_a_run_that_is_killed_goes_on_and_pays_for_no_row_twice(tmp_path: Path) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.15) as teacher:
        spec = spec_of(tmp_path, at_once=4)
        (tmp_path / "run.yaml").write_text(json.dumps(spec))  # JSON is YAML
        (tmp_path / "stillroom.toml").write_text(f'[teachers."t"]\nbase_url = "{teacher.url}"\n')
        process = started(tmp_path)
        wait_for(
            lambda: labels(tmp_path).exists() and labels(tmp_path).read_bytes().count(b"\n") > COUNT // 3, pause=0.01
        )
        process.kill()
        process.communicate()
        journalled = [
            json.loads(line)["row"] for line in labels(tmp_path).read_bytes().splitlines() if line.endswith(b"}")
        ]
        assert COUNT // 3 < len(journalled) < COUNT
        until_the_job(tmp_path / "run.yaml", settings_of(tmp_path, teacher))
        asked = times_asked(teacher)
        assert {asked[int(name.partition("-")[2]) - 1] for name in journalled} == {1}
        assert sum(asked.values()) <= COUNT + 4, "only what was under way when it was killed may be asked again"
        assert in_ledger(tmp_path)[0] == COUNT


def test_an_answer_that_arrived_before_the_journal_knew_of_it_is_not_asked_for_again(
    tmp_path: Path, teacher: ScriptedTeacher
) -> None:
    spec, settings = spec_of(tmp_path), settings_of(tmp_path, teacher)
    until_the_job(spec, settings)
    assert teacher.calls == COUNT
    lines = labels(tmp_path).read_bytes().splitlines(keepends=True)
    labels(tmp_path).write_bytes(b"".join(lines[:-8]) + lines[-8][:20])  # killed in the middle of a line
    before = in_ledger(tmp_path)
    until_the_job(spec, settings)
    assert teacher.calls == COUNT
    assert in_ledger(tmp_path) == before
    assert sorted(labels(tmp_path).read_bytes().splitlines(keepends=True)) == sorted(lines)
    # The control: without what the gateway keeps, the same rows are asked for, and paid, again.
    labels(tmp_path).write_bytes(b"".join(lines[:-8]))
    with closing(sqlite3.connect(tmp_path / "data" / "stillroom.db")) as database:
        database.execute("DELETE FROM kept_answers")
        database.commit()
    until_the_job(spec, settings)
    assert teacher.calls == COUNT + 8
    assert in_ledger(tmp_path)[0] == COUNT + 8


def test_a_run_that_is_interrupted_says_how_to_go_on(tmp_path: Path) -> None:
    with ScriptedTeacher(echo, first_token_seconds=0.2) as teacher:
        (tmp_path / "run.yaml").write_text(json.dumps(spec_of(tmp_path, at_once=4)))
        (tmp_path / "stillroom.toml").write_text(f'[teachers."t"]\nbase_url = "{teacher.url}"\n')
        process = started(tmp_path)
        wait_for(lambda: teacher.calls > COUNT // 4, pause=0.01)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "run the same command to go on" in told
        assert "Traceback" not in told
        until_the_job(tmp_path / "run.yaml", settings_of(tmp_path, teacher))
        assert set(times_asked(teacher).values()) == {1}, "what was under way was waited for, and kept"


def test_hundreds_of_rows_with_faults_come_to_exact_sums(tmp_path: Path) -> None:
    count = 400
    unlucky = Unlucky(frozenset(range(0, count, 40)), frozenset(range(5, count, 40)))

    def answer(body: dict[str, Any]) -> str:
        return "no JSON" if number_of(body) % 40 == 9 else in_form(echo)(body)

    with ScriptedTeacher(answer) as teacher:
        teacher.script_lasting(unlucky)
        spec, settings = spec_of(tmp_path, count), settings_of(tmp_path, teacher)
        spec["prompt_settings"] = {"enable_chain_of_thought": True}
        seen = until_the_job(spec, settings)
        failed = {line["row"]: line["reason"] for line in json_lines(labels(tmp_path).with_name("failed.jsonl"))}
        assert len(failed) == 20
        assert failed["training-1"].startswith("status 400")
        assert failed["training-10"] == "the reply is no JSON object; it starts with 'no JSON'."
        assert times_asked(teacher) == Counter({n: 2 if n in unlucky.at_first else 1 for n in range(count)})
        answered = [request["body"] for request in teacher.requests]
        paid = [body for place, body in enumerate(answered) if number_of(body) not in unlucky.refused]
        events, cost = in_ledger(tmp_path)
        assert events == count - 10
        assert (seen[-1].done, seen[-1].failed, seen[-1].cost_picousd) == (count, 20, cost)
        assert cost == expected_cost(paid, unlucky, answer)
        assert len(json_lines(labels(tmp_path).with_name("training.jsonl"))) == count - 20
        # Only those that failed are asked again, the ones that were not understood too.
        unlucky.healed.append(True)
        until_the_job(spec, settings, retry_failed=True)
        assert teacher.calls == count + 10 + 20
        assert len(json_lines(labels(tmp_path).with_name("failed.jsonl"))) == 10
        # Ninety-five in a hundred are too few for whoever asks for more.
        spec["teacher_model_settings"]["endpoint_request_settings"]["min_endpoint_success_ratio"] = 0.99
        with pytest.raises(DistillationFailed, match=r"success ratio is 0.97 .* min_endpoint_success_ratio 0.99"):
            distill(spec, settings=settings)


def test_a_budget_is_never_exceeded_and_a_higher_one_goes_on(tmp_path: Path, teacher: ScriptedTeacher) -> None:
    settings = settings_of(tmp_path, teacher)
    limits = {"inference_parameters": {"max_tokens": 100}, "endpoint_request_settings": {"request_batch_size": 4}}
    spec = {**spec_of(tmp_path, text="a long row " * 20), "teacher_model_settings": limits}
    with pytest.raises(
        DistillationFailed, match=r"`budget_usd` is 0.01: .* raise `budget_usd` and run the same command"
    ):
        distill({**spec, "budget_usd": 0.01}, settings=settings)
    answers, cost = in_ledger(tmp_path)
    assert COUNT // 4 < answers < COUNT
    assert 0.8 < cost / 10_000_000_000 <= 1, "in pico-USD: not a cent is spent, but most of it"
    until_the_job({**spec, "budget_usd": 1}, settings)
    assert set(times_asked(teacher).values()) == {1}
    assert in_ledger(tmp_path)[0] == COUNT


def test_a_budget_without_a_limit_to_answers_sets_one(tmp_path: Path) -> None:
    told: list[object] = []
    with (
        ScriptedTeacher(lambda body: "word " * 20_000) as teacher,
        pytest.raises(DistillationFailed, match="budget_usd"),
    ):
        distill(spec_of(tmp_path, budget_usd=0.15), settings=settings_of(tmp_path, teacher), watch=told.append)
    assert 0.09 < in_ledger(tmp_path)[1] / 1e12 <= 0.15
    assert {request["body"]["max_tokens"] for request in teacher.requests} == {4096}
    assert any("with max_tokens 4096" in str(each) for each in told)


def test_a_reasoning_model_is_given_its_limit_by_the_name_that_it_knows(
    tmp_path: Path, teacher: ScriptedTeacher
) -> None:
    @dataclass(frozen=True)
    class Reasoning:
        async def send(self, reply: Reply) -> web.StreamResponse:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            refused = Status(code=400, body={"error": {"message": message}})
            return await (refused.send(reply) if "max_tokens" in reply.question else reply.send())

    teacher.script_lasting(Reasoning())
    seen = until_the_job(spec_of(tmp_path, budget_usd=5), settings_of(tmp_path, teacher))
    assert (seen[-1].done, seen[-1].failed) == (COUNT, 0)
    assert teacher.calls <= COUNT + 10
    assert teacher.requests[-1]["body"]["max_completion_tokens"] == 4096


def test_a_ratio_that_is_exactly_reached_is_enough(tmp_path: Path) -> None:
    rows = [Row(name=f"training-{number}", messages=[]) for number in range(100)]
    journal = Journal(tmp_path, "run")
    journal.rows = rows
    for failed, row in enumerate(rows[:-1], start=1):
        journal.labels[row.name] = Label(row=row.name, failed="so")
        assert journal.success_ratio("training") == float(f"{1 - failed / 100:.2f}")


def test_a_row_is_asked_again_only_for_what_was_not_answered(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": f"{turn} {n}"} for turn in ("one", "two")] for n in range(COUNT)]
    reply = {"role": "assistant", "content": "old"}
    asked: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> str:
        question = body["messages"][-1]["content"]
        asked[question] += 1
        return "" if question == "two 7" and asked[question] == 1 else "fine"

    @dataclass(frozen=True)
    class Second:
        """The second question of one row is refused."""

        async def send(self, reply: Reply) -> web.StreamResponse:
            question = reply.question["messages"][-1]["content"]
            return await (Status(code=400).send(reply) if question == "two 3" else reply.send())

    with ScriptedTeacher(answer) as teacher:
        teacher.script_lasting(Second())
        spec, settings = spec_of(tmp_path, task="conversation"), settings_of(tmp_path, teacher)
        (tmp_path / "rows.jsonl").write_text(
            "".join(json.dumps({"messages": [one, reply, two, reply]}) + "\n" for one, two in turns)
        )
        until_the_job(spec, settings)
        teacher.script_lasting(None)
        calls = teacher.calls
        until_the_job(spec, settings, retry_failed=True)
        assert teacher.calls == calls + 2
        assert len(json_lines(labels(tmp_path).with_name("training.jsonl"))) == COUNT


def test_answers_to_prompts_of_before_are_not_taken_for_those_to_ours(
    tmp_path: Path, teacher: ScriptedTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, settings = (
        spec_of(tmp_path, prompt_settings={"enable_chain_of_thought": True}),
        settings_of(tmp_path, teacher),
    )
    until_the_job(spec, settings)
    lines = labels(tmp_path).read_bytes().splitlines(keepends=True)
    labels(tmp_path).write_bytes(b"".join(lines[:-8]))
    newer = prompts.CHAIN_OF_THOUGHT[None].replace("think", "think hard")
    monkeypatch.setattr(prompts, "CHAIN_OF_THOUGHT", {None: newer})
    until_the_job(spec, settings)
    assert teacher.calls == COUNT + 8


def test_an_overloaded_teacher_is_asked_for_less_at_once_and_fails_no_row(
    tmp_path: Path, teacher: ScriptedTeacher
) -> None:
    teacher.script(*[Status(code=429, headers={"retry-after-ms": "20"})] * 12)
    seen = until_the_job(spec_of(tmp_path, 200), settings_of(tmp_path, teacher))
    assert min(each.at_once for each in seen) < 10
    assert seen[-1].at_once > min(each.at_once for each in seen)
    assert (seen[-1].done, seen[-1].failed) == (200, 0)
    assert teacher.calls == 212


def test_a_teacher_that_is_gone_ends_the_run_and_no_row_counts_as_failed(
    tmp_path: Path, teacher: ScriptedTeacher
) -> None:
    settings, spec = settings_of(tmp_path, teacher), spec_of(tmp_path)
    teacher.script_lasting(Status(code=500))
    with pytest.raises(DistillationFailed, match=r"20 rows in a row .* success ratio is 0.00"):
        distill(spec, settings=settings)
    teacher.script_lasting(Status(code=401))
    with pytest.raises(DistillationFailed, match="refuses to answer"):
        distill(spec, settings=settings)
    assert labels(tmp_path).read_bytes() == b""
    teacher.script_lasting(None)
    assert until_the_job(spec, settings)[-1].failed == 0


def test_a_teacher_that_cannot_be_reached_is_told_of_and_ends_the_run_soon(tmp_path: Path) -> None:
    told: list[object] = []
    settings = Settings(
        data=str(tmp_path / "data"),
        teachers={"t": Teacher(base_url="http://127.0.0.1:9/v1")},
        distillation=DistillationSettings(attempts=2, retry_seconds=1.3),
    )
    with pytest.raises(
        DistillationFailed, match=r"has not answered at all: The teacher 't' cannot be reached: [^:]*\."
    ):
        distill(spec_of(tmp_path), settings=settings, watch=told.append)
    assert any(re.search(r"does not answer: .*Asking again in [12] seconds", str(each)) for each in told)
    assert {each.failed for each in told if isinstance(each, Progress)} == {0}


def test_a_file_that_asks_for_something_else_begins_a_new_run_and_says_so(
    tmp_path: Path, teacher: ScriptedTeacher
) -> None:
    settings, spec, told = settings_of(tmp_path, teacher), spec_of(tmp_path), list[str]()
    until_the_job(spec, settings)
    changed = {**spec, "task": "math"}

    def watch(event: object) -> None:
        if isinstance(event, str):
            told.append(event)
        elif not isinstance(event, Progress):
            raise Enough

    with pytest.raises(Enough):
        distill(changed, settings=settings, watch=watch)
    assert "this is a new run" in told[0]
    assert len(json_lines(labels(tmp_path).parent.with_name("run.before-1") / "labels.jsonl")) == COUNT
    assert teacher.calls == 2 * COUNT
    # And back, twice, with a mistake in between: nothing is paid again.
    told.clear()
    until_the_job(spec, settings)
    rows = tmp_path / "rows.jsonl"
    right = rows.read_text()
    rows.write_text(right + "{broken\n")
    with pytest.raises(InvalidJobFile, match="line 41"):
        distill(spec, settings=settings)
    rows.write_text(right)
    until_the_job(spec, settings)
    with pytest.raises(Enough):
        distill(changed, settings=settings, watch=watch)
    assert "the run of before that was kept as run.before-" in told[0]
    assert teacher.calls == 2 * COUNT
    assert len(list(labels(tmp_path).parent.parent.glob("run*"))) == 2


def started(folder: Path) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STILLROOM_")}
    return subprocess.Popen(
        [sys.executable, "-m", "stillroom", "distill", "run", "run.yaml", "--data", "data"],
        cwd=folder,
        env=kept,
        text=True,
        stderr=subprocess.PIPE,
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def expected_cost(paid: list[dict[str, Any]], unlucky: Unlucky, answer: Any) -> int:
    """By the tokens that the scripted teacher counts, once for each row that it answered."""
    from stillroom.teachers.scripted import count_tokens

    rows = {number_of(body): body for body in paid}
    prompts = sum(count_tokens(message["content"]) for body in rows.values() for message in body["messages"])
    replies = sum(count_tokens(answer(body)) for body in rows.values())
    return (prompts * 2 + replies * 8) * 1_000_000
