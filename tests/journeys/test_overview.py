"""What the portal's pages show: figures that are derived here another way, from what was stored, said and billed."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI

from stillroom import __version__
from stillroom.teachers.scripted import ScriptedTeacher
from tests.journeys.conftest import await_end, deployment_of
from tests.journeys.test_costs import ACCOUNT, send
from tests.support import Server, example_lines, wait_for

STUDENT_PRICE = {"training": 3.0, "input": 0.5, "output": 1.5, "hosting_hour": 1.7}
SECOND = "second"
FORMULA = '=cmd|"x"!A1, calc'  # a key's name may be this
TEACHERS = {
    "gpt-4o": {"price": {"input": 2.5, "output": 10}},
    "other": {"price": {"input": 0.15, "output": 0.6}},
}
CHATS, SAID = 24, 4


@dataclass(frozen=True, kw_only=True)
class World:
    """A server on which a student was quoted, made, deployed, called and compared."""

    server: Server
    job: str
    quote: dict[str, Any]
    told: dict[str, Any]
    """What was said of the hyperparameters before the job ran."""
    name: str
    comparison: str

    def get(self, path: str, status: int = 200) -> Any:
        found, _, body = send(self.server, "GET", f"/v1/stillroom/{path}")
        assert found == status, body
        return body

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.server.data / "stillroom.db")) as database:
            return database.execute(query).fetchall()


@pytest.fixture(scope="module")
def world(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    teachers = {name: {"base_url": teacher.url, **more} for name, more in TEACHERS.items()}
    students = json.dumps({"scratch-small": {"price": STUDENT_PRICE}})
    data = tmp_path_factory.mktemp("world") / "data"
    with Server(data, teachers=teachers, students=students) as server:
        yield _made(server)


def _made(server: Server) -> World:
    sdk = OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)

    def post(path: str, body: dict[str, Any]) -> Any:
        status, _, made = send(server, "POST", f"/v1/stillroom/{path}", body)
        assert status in (200, 201), made
        return made

    for number in range(CHATS):
        _say(sdk, "gpt-4o", f"thing {number}")
    _say(sdk, "other", "hello")
    selected = post("selections", {"filter": {"model": "gpt-4o"}, "validation_fraction": 0.25})
    files = {name: selected[name]["id"] for name in ("training_file", "validation_file")}
    asked = {"model": "scratch-small", **files, "hyperparameters": {"n_epochs": 3}}
    quoted: dict[str, Any] = sdk.post("/stillroom/quotes", body=asked, cast_to=dict[str, Any])
    query = f"hyperparameters?model=scratch-small&training_file={files['training_file']}&n_epochs=3"
    told = send(server, "GET", f"/v1/stillroom/{query}")[2]
    job = await_end(sdk, sdk.fine_tuning.jobs.create(**asked).id)
    assert job.status == "succeeded", job.error
    for name in ("student", SECOND):
        put = send(server, "PUT", _arm(name), deployment_of(str(job.fine_tuned_model)))
        assert put[0] in (200, 201), put
    for number in range(SAID):
        _say(sdk, "student", f"thing {number}")
    _say(sdk.with_options(api_key=post("keys", {"name": FORMULA})["key"]), SECOND, "thing")
    compared = post("comparisons", {"jobs": [job.id], "judge": None})["eval_id"]
    wait_for(lambda: sdk.evals.runs.list(compared).data[0].status == "completed")
    return World(
        server=server, job=job.id, quote=quoted, told=told, name=str(job.fine_tuned_model), comparison=compared
    )


def _say(sdk: OpenAI, model: str, text: str) -> None:
    sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=8, store=True, metadata={"of": "world"}
    )


def _arm(name: str) -> str:
    return f"{ACCOUNT}/{quote(name, safe='')}?api-version=2024-10-01"


# --- jobs -----------------------------------------------------------------------------------------------


def test_a_jobs_price_and_quote_stand_beside_it(world: World) -> None:
    (shown,) = world.get("jobs")["data"]
    assert shown == world.get(f"jobs/{world.job}")
    assert shown["job"] == send(world.server, "GET", f"/v1/fine_tuning/jobs/{world.job}")[2]
    assert (shown["quote"], shown["examples"]) == (world.quote["id"], world.quote["examples"])
    (billed,) = [row for row in world.get("usage?group_by=kind")["data"] if row["kind"] == "training"]
    assert shown["cost_microusd"] == billed["cost_microusd"] == shown["job"]["trained_tokens"] * 3


def test_a_jobs_progress_is_what_its_events_say(world: World) -> None:
    events = _metrics_events(world)
    last = events[-1]
    assert world.get(f"jobs/{world.job}")["progress"] == {
        "step": last["total_steps"],
        "steps": world.quote["steps"],
        "epoch": 3,
        "train_loss": last["train_loss"],
        "valid_loss": next(each["valid_loss"] for each in reversed(events) if "valid_loss" in each),
        "rewards_margin": None,
        "seconds_left": None,
    }


@pytest.mark.parametrize("after", [0, 1, 7, 10**6])
def test_a_curve_is_the_events_after_a_step(world: World, after: int) -> None:
    events = _metrics_events(world)
    later = [each for each in events if each["step"] > after]
    query = f"?after_step={after}" if after else ""
    valid = ("step", "valid_loss", "valid_mean_token_accuracy")
    assert world.get(f"jobs/{world.job}/metrics{query}") == {
        "object": "stillroom.metrics",
        "job": world.job,
        "steps": [each["step"] for each in later],
        "train_loss": [each["train_loss"] for each in later],
        "train_mean_token_accuracy": [each["train_mean_token_accuracy"] for each in later],
        "valid": [{name: each[name] for name in valid} for each in later if "valid_loss" in each],
        "total_steps": world.quote["steps"],
        "last_step": world.quote["steps"],
    }


def test_jobs_are_paged_newest_first(world: World) -> None:
    with OpenAI(base_url=f"{world.server.url}/v1", api_key=world.server.key) as sdk:
        few = sdk.files.create(file=("nine.jsonl", example_lines(9)), purpose="fine-tune").id
        failed = await_end(sdk, sdk.fine_tuning.jobs.create(model="scratch-small", training_file=few).id)
    page = world.get("jobs?limit=1")
    assert ([each["job"]["id"] for each in page["data"]], page["has_more"]) == ([failed.id], True)
    (shown,) = page["data"]
    progress = shown["progress"]
    assert (progress.pop("step"), progress.pop("epoch")) == (0, 0)
    assert set(progress) == {"steps", "train_loss", "valid_loss", "rewards_margin", "seconds_left"}
    assert set(progress.values()) == {None}
    assert (shown["cost_microusd"], shown["quote"]) == (None, None)
    rest = world.get(f"jobs?limit=1&after={failed.id}")
    assert ([each["job"]["id"] for each in rest["data"]], rest["has_more"]) == ([world.job], False)


def test_a_running_job_tells_its_steps_before_and_while_it_takes_them(world: World) -> None:
    with OpenAI(base_url=f"{world.server.url}/v1", api_key=world.server.key) as sdk:
        file = sdk.files.create(file=("long.jsonl", example_lines(500)), purpose="fine-tune").id
        long: Any = {"n_epochs": 50, "batch_size": 1}
        job = sdk.fine_tuning.jobs.create(model="scratch-small", training_file=file, hyperparameters=long).id
        running = wait_for(lambda: (shown := world.get(f"jobs/{job}"))["progress"]["seconds_left"] and shown)
        seen = world.get(f"jobs/{job}/metrics")
        more = wait_for(
            lambda: (new := world.get(f"jobs/{job}/metrics?after_step={seen['last_step']}"))["steps"] and new
        )
        assert world.get("overview")["jobs_running"] == 1
        sdk.fine_tuning.jobs.cancel(job)
    assert (running["progress"]["steps"], seen["total_steps"]) == (25_000, 25_000)
    assert 0 < running["progress"]["step"] <= seen["last_step"] < more["steps"][0]
    assert world.get(f"jobs/{job}")["progress"]["seconds_left"] is None
    assert world.get("overview")["jobs_running"] == 0


def _metrics_events(world: World) -> list[dict[str, Any]]:
    """Oldest first."""
    with OpenAI(base_url=f"{world.server.url}/v1", api_key=world.server.key) as sdk:
        events = list(sdk.fine_tuning.jobs.list_events(world.job, limit=100))
    return [dict(each.data) for each in reversed(events) if each.type == "metrics"]  # type: ignore[call-overload]


# --- hyperparameters ------------------------------------------------------------------------------------


def test_what_is_told_before_a_job_is_what_its_trainer_chose(world: World) -> None:
    job = world.get(f"jobs/{world.job}")["job"]
    assert world.told["values"] == job["hyperparameters"]
    assert world.told["total_steps"] == world.quote["steps"]
    assert (world.told["training"], world.told["examples"]) == ("full", world.quote["examples"])


def test_auto_is_what_a_quote_measures(world: World) -> None:
    file = world.get(f"jobs/{world.job}")["job"]["training_file"]
    with OpenAI(base_url=f"{world.server.url}/v1", api_key=world.server.key) as sdk:  # which waits for long
        body = {"model": "scratch-small", "training_file": file}
        quoted = sdk.post("/stillroom/quotes", body=body, cast_to=dict[str, Any])
    by_file = world.get(f"hyperparameters?model=scratch-small&training_file={file}")
    assert by_file["values"] == {name: quoted[name] for name in by_file["values"]}
    assert by_file["total_steps"] == quoted["steps"]
    by_count = world.get(f"hyperparameters?model=scratch-small&examples={by_file['examples']}")
    assert by_count == by_file
    assert by_file["why"]["n_epochs"].startswith(f"{quoted['n_epochs']} passes")
    assert by_file["why"]["batch_size"].startswith(str(quoted["batch_size"]))


def test_a_fine_tune_of_ours_is_trained_on_as_it_began(world: World) -> None:
    of_base, of_tuned = (
        world.get(f"hyperparameters?model={quote(model)}&examples=1000") for model in ("scratch-small", world.name)
    )
    why = {**of_base["why"], "training": "full: the model goes on as it began."}
    assert of_tuned == {**of_base, "model": world.name, "why": why}
    assert of_tuned["training"] == of_tuned["values"]["training"] == "full"


# --- deployments ----------------------------------------------------------------------------------------


def test_a_deployments_traffic_speed_and_price(world: World) -> None:
    listed = world.get("deployments")
    by_name = {each["name"]: each for each in listed["data"]}
    assert sorted(by_name) == sorted(["student", SECOND])
    student = by_name["student"]
    rows = world.rows(
        "SELECT prompt_tokens, completion_tokens, latency_ms, first_token_ms FROM completions WHERE model = 'student'"
    )
    assert student["calls"] == student["latency_ms"]["calls"] == len(rows) == SAID
    prompt, said = sum(row[0] for row in rows), sum(row[1] for row in rows)
    assert (student["prompt_tokens"], student["completion_tokens"]) == (prompt, said)
    assert student["cost_microusd"] == (prompt * 500_000 + said * 1_500_000 + 500_000) // 10**6
    slowest = sorted(row[2] for row in rows)
    assert (student["latency_ms"]["p50"], student["latency_ms"]["p95"]) == (slowest[1], slowest[3])
    assert student["first_token_ms"]["p50"] in {row[3] for row in rows}
    assert student["first_token_ms"]["p50"] <= median(sorted(row[3] for row in rows))
    assert student["calls_per_day"] == _by_day(world, "student")
    assert (student["model"], student["base"], student["job"]) == (world.name, "scratch-small", world.job)
    assert (student["state"], student["error"], student["loaded"]) == ("Succeeded", None, True)
    assert (student["price"], student["usd_per_hosting_hour"]) == ({"input": 0.5, "output": 1.5}, 1.7)
    assert listed["window"]["since"] % 86_400 == 0
    assert listed["window"]["since"] <= student["created_at"] <= listed["window"]["until"]


def test_calls_before_the_window_are_not_a_deployments_traffic(world: World) -> None:
    for each in world.get(f"deployments?since={int(time.time()) + 60}")["data"]:
        assert (each["calls"], each["calls_per_day"], each["latency_ms"]) == (0, [], None)


def test_a_new_answer_is_in_the_speed_at_once(world: World) -> None:
    with OpenAI(base_url=f"{world.server.url}/v1", api_key=world.server.key) as sdk:
        before = _deployment(world, SECOND)
        _say(sdk, SECOND, "once more")
    after = _deployment(world, SECOND)
    assert after["latency_ms"]["calls"] == before["latency_ms"]["calls"] + 1
    assert after["calls"] == before["calls"] + 1


def test_a_deployment_of_a_teacher_and_one_that_failed(world: World) -> None:
    send(world.server, "PUT", _arm("taught"), deployment_of("gpt-4o"))
    with closing(sqlite3.connect(world.server.data / "stillroom.db", timeout=10)) as database:
        database.execute(
            "INSERT INTO deployments (project, name, model, state, error, extra, created_at, updated_at) "
            "VALUES (1, 'broken', 'ft:gone', 'Failed', 'There is no memory left.', '{}', 0, 0)"
        )
        database.commit()
    try:
        taught, broken = _deployment(world, "taught"), _deployment(world, "broken")
    finally:
        for name in ("taught", "broken"):
            send(world.server, "DELETE", _arm(name))
    assert (taught["model"], taught["base"], taught["job"], taught["loaded"]) == ("gpt-4o", None, None, True)
    assert taught["price"] == {"input": 2.5, "output": 10}
    assert broken["error"] == {"code": "DeploymentFailed", "message": "There is no memory left."}
    assert (broken["state"], broken["loaded"], broken["calls"]) == ("Failed", False, 0)


def _deployment(world: World, name: str) -> dict[str, Any]:
    (found,) = [each for each in world.get("deployments")["data"] if each["name"] == name]
    return dict(found)


def _by_day(world: World, deployment: str) -> list[dict[str, Any]]:
    rows = world.get("usage?group_by=day,deployment,kind")["data"]
    kept = [row for row in rows if (row["deployment"], row["kind"]) == (deployment, "answer")]
    return [{"day": row["day"], "calls": row["events"]} for row in kept]


# --- models ---------------------------------------------------------------------------------------------


def test_models_say_what_they_weigh_and_what_can_be_done_with_them(world: World) -> None:
    listed = world.get("models")["data"]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for each in listed:
        by_kind.setdefault(each["kind"], []).append(each)
    assert [each["name"] for each in by_kind["teacher"]] == ["gpt-4o", "other"]
    assert by_kind["teacher"][0]["can"] == {"fine_tune": False, "deploy": True, "chat": True}
    (scratch,) = by_kind["student_base"]
    assert (scratch["name"], scratch["bytes"]) == ("scratch-small", None)
    assert scratch["can"] == {"fine_tune": True, "deploy": False, "chat": False}
    (tuned,) = by_kind["fine_tuned"]
    assert (tuned["name"], tuned["base"], tuned["job"]) == (world.name, "scratch-small", world.job)
    assert sorted(tuned["deployments"]) == sorted(["student", SECOND])
    assert tuned["can"] == {"fine_tune": True, "deploy": True, "chat": True}
    assert tuned["price"] == {"input": 0.5, "output": 1.5, "training": 3.0, "usd_per_hosting_hour": 1.7}
    folders = {path.name: path for path in (world.server.data / "blobs" / "models").iterdir()}
    sizes = {name: sum(file.stat().st_size for file in path.iterdir()) for name, path in folders.items()}
    assert tuned["bytes"] == sizes[world.job]
    assert sorted(each["bytes"] for each in by_kind["checkpoint"]) == sorted(
        size for name, size in sizes.items() if name.startswith(f"{world.job}-step-")
    )
    assert all(each["deployments"] == [] for each in by_kind["checkpoint"])


# --- overview -------------------------------------------------------------------------------------------


def test_an_overview_adds_up_to_the_usage(world: World) -> None:
    shown = world.get("overview")
    by_model = {(row["kind"], row["model"]): row for row in world.get("usage")["data"]}
    assert [each["name"] for each in shown["teachers"]] == ["gpt-4o", "other"]
    for each in shown["teachers"]:
        row = by_model["answer", each["name"]]
        assert each == {"name": each["name"], "calls": row["events"], **{name: row[name] for name in list(each)[2:]}}
    student = by_model["answer", world.name]
    assert sum(each["calls"] for each in shown["students"]) == student["events"]
    assert {each["model"] for each in shown["students"]} == {world.name}
    assert abs(sum(each["cost_microusd"] for each in shown["students"]) - student["cost_microusd"]) <= 1
    teachers = sum(each["cost_microusd"] for each in shown["teachers"])
    assert abs(sum(day["teacher_microusd"] for day in shown["per_day"]) - teachers) <= 1
    assert sum(day["teacher_calls"] for day in shown["per_day"]) == CHATS + 1
    assert sum(day["student_calls"] for day in shown["per_day"]) == student["events"]
    assert shown["training_microusd"] == by_model["training", "scratch-small"]["cost_microusd"]
    assert abs(shown["spent_microusd"] - sum(row["cost_microusd"] for row in by_model.values())) <= len(by_model)
    assert shown["evaluation_microusd"] == by_model["evaluation", world.name]["cost_microusd"]
    assert (shown["stored"], shown["stored_at_least"]) == (world.rows("SELECT count(*) FROM completions")[0][0], False)
    assert shown["version"] == __version__


def test_an_overview_has_every_day_of_its_window(world: World) -> None:
    shown = world.get("overview")
    days = [day["day"] for day in shown["per_day"]]
    assert len(days) == len(set(days)) == 30
    assert days == sorted(days)
    assert datetime.fromtimestamp(shown["window"]["since"], UTC).date().isoformat() == days[0]
    assert datetime.fromtimestamp(shown["window"]["until"], UTC).date().isoformat() == days[-1]


def test_what_a_student_would_have_cost_is_its_price_for_the_same_tokens_and_a_day_of_hosting(world: World) -> None:
    shown = world.get("overview")
    would, teacher = shown["would_have"], shown["teachers"][0]
    assert (would["teacher"], would["student"]) == ("gpt-4o", "student")
    assert would["teacher_microusd"] == teacher["cost_microusd"]
    # Since the first call's day began, and a day at least.
    hours = max(86_400, shown["window"]["until"] - would["since"]) / 3600
    tokens = teacher["prompt_tokens"] * 0.5 + teacher["completion_tokens"] * 1.5
    assert would["student_microusd"] == pytest.approx(tokens + hours * 1_700_000, abs=1)
    assert would["saved_microusd"] == pytest.approx(would["teacher_microusd"] - would["student_microusd"], abs=1)


def test_an_overviews_agreement_is_its_reports(world: World) -> None:
    shown = world.get("overview")["agreement"]
    (side,) = world.get(f"evals/{world.comparison}/report")["sides"]
    agreement = side["agreement"]
    assert [shown[name] for name in ("rate", "low", "high", "items")] == [
        agreement[name] for name in ("share", "low", "high", "total")
    ]
    assert (shown["eval"], shown["run"], shown["model"]) == (world.comparison, side["run_id"], side["model"])
    assert shown["teacher"] in TEACHERS
    status, headers, _ = _bytes(world, shown["report"].removeprefix("/v1/stillroom/"))
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_an_overview_has_the_budget(world: World) -> None:
    assert world.get("overview")["budget"] is None
    send(world.server, "PUT", "/v1/stillroom/budget", {"usd": 1000, "period": "total"})
    try:
        assert world.get("overview")["budget"] == world.get("budget")
    finally:
        send(world.server, "DELETE", "/v1/stillroom/budget")


# --- usage as a file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["", "?group_by=day,deployment,model,key,kind", "?group_by=deployment"])
def test_usage_as_csv_is_usage_as_json(world: World, by: str) -> None:
    shown = world.get(f"usage{by}")["data"]
    status, headers, data = _bytes(world, f"usage{by}{'&' if by else '?'}format=csv")
    assert (status, headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert headers["content-disposition"] == 'attachment; filename="usage.csv"'
    rows = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    expected = [{name: _cell(value) for name, value in row.items() if name != "object"} for row in shown]
    assert rows == expected
    if "key" in by:
        assert f"'{FORMULA}" in {row["key"] for row in rows}


def _cell(value: Any) -> str:
    """As a spreadsheet is to take it: as text, whatever it begins with."""
    return "" if value is None else f"'{value}" if value == FORMULA else str(value)


def _bytes(world: World, path: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"authorization": f"Bearer {world.server.key}"}
    with urlopen(Request(f"{world.server.url}/v1/stillroom/{path}", headers=headers), timeout=60) as answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "param", "words"),
    [
        ("usage?format=xls", "format", "'json' or 'csv'"),
        ("deployments?since=yesterday", "since", "seconds since the epoch"),
        ("jobs?limit=101", "limit", "from 1 to 100"),
        ("jobs/JOB/metrics?after_step=-1", "after_step", "number of a step"),
        ("hyperparameters", "model", "'model'"),
        ("hyperparameters?model=scratch-small", "training_file", "either"),
        ("hyperparameters?model=scratch-small&examples=5&training_file=f", "training_file", "either"),
        ("hyperparameters?model=scratch-small&examples=0", "examples", "from 1 to"),
        ("hyperparameters?model=scratch-small&examples=many", "examples", "from 1 to"),
        ("hyperparameters?model=gpt-4o&examples=10", "model", "It is a teacher"),
        ("hyperparameters?model=scratch-small&training_file=file-gone", "training_file", "no such file"),
        ("hyperparameters?model=scratch-small&examples=10&n_epochs=51", "hyperparameters.n_epochs", "from 1 to 50"),
        ("hyperparameters?model=scratch-small&examples=10&batch_size=x", "hyperparameters.batch_size", "from 1 to 256"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(world: World, path: str, param: str, words: str) -> None:
    body = world.get(path.replace("JOB", world.job), status=400)
    assert body["error"]["param"] == param
    assert words in body["error"]["message"]


@pytest.mark.parametrize("path", ["jobs/ftjob-none", "jobs/ftjob-none/metrics", "jobs?after=ftjob-none"])
def test_an_unknown_job_is_not_found(world: World, path: str) -> None:
    assert "ftjob-none" in world.get(path, status=404)["error"]["message"]
