"""A quote before a fine-tuning job, and what the job then comes to; break-even from the traffic seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI

from stillroom.teachers.scripted import ScriptedTeacher
from tests.journeys.conftest import await_end
from tests.support import Server, example_lines

METHOD: dict[str, Any] = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}}


@pytest.fixture(scope="module")
def priced(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose teacher and student have prices, with a dozen stored answers of the teacher."""
    teachers = {"gpt-4o": {"base_url": teacher.url, "price": {"input": 250.0, "output": 1000.0}}}
    price = {"input": 0.1, "output": 0.4, "training": 25.0, "hosting_hour": 0.001}
    students = json.dumps({"scratch-small": {"price": price}})
    with Server(tmp_path_factory.mktemp("priced") / "data", teachers=teachers, students=students) as running:
        with OpenAI(base_url=f"{running.url}/v1", api_key=running.key) as client:
            for number in range(12):
                asked: Any = [{"role": "user", "content": f"thing {number}"}]
                client.chat.completions.create(model="gpt-4o", messages=asked, store=True, metadata={"for": "quotes"})
        yield running


@pytest.fixture
def sdk(priced: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{priced.url}/v1", api_key=priced.key, max_retries=0) as opened:
        yield opened


def call(server: Server, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(f"{server.url}/v1/{path}", data=data, method=method, headers=headers)) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["error"]


def quoted(server: Server, **body: Any) -> dict[str, Any]:
    status, quote = call(server, "POST", "stillroom/quotes", {"model": "scratch-small", "method": METHOD, **body})
    assert status == 200, quote
    return dict(quote)


@pytest.mark.slow
def test_a_job_comes_to_the_tokens_steps_and_cost_that_were_quoted(priced: Server, sdk: OpenAI) -> None:
    file = sdk.files.create(file=("training.jsonl", example_lines(20)), purpose="fine-tune").id
    quote = quoted(priced, training_file=file, validation_file=file, replaces="gpt-4o")
    assert (quote["object"], quote["examples"], quote["n_epochs"], quote["batch_size"]) == ("stillroom.quote", 20, 4, 4)
    assert quote["trained_tokens"] == 4 * quote["tokens_per_epoch"]
    assert 0 < quote["minutes"]["low"] <= quote["minutes"]["expected"] <= quote["minutes"]["high"]
    assert quote["hosting_usd_per_month"] == pytest.approx(0.73)
    assert call(priced, "GET", f"stillroom/quotes/{quote['id']}")[1] == quote

    method: Any = METHOD
    job = sdk.fine_tuning.jobs.create(model="scratch-small", training_file=file, validation_file=file, method=method)
    before = call(priced, "GET", f"stillroom/jobs/{job.id}/quote")[1]
    assert (before["quote"], before["actual"]) == (quote["id"], None)
    job = await_end(sdk, job.id)
    assert job.status == "succeeded", job.error
    steps = [e.data for e in sdk.fine_tuning.jobs.list_events(job.id, limit=100) if e.type == "metrics"]
    assert {step["total_steps"] for step in steps} == {quote["steps"]}  # type: ignore[index]

    after = call(priced, "GET", f"stillroom/jobs/{job.id}/quote")[1]
    assert after["quote"] == quote["id"]
    assert after["actual"]["trained_tokens"] == job.trained_tokens == quote["trained_tokens"]
    assert after["actual"]["cost_microusd"] == quote["cost_microusd"] == quote["trained_tokens"] * 25
    predicted, took = after["predicted"]["minutes"]["expected"], after["actual"]["minutes"]
    assert took > 0
    assert after["relative_error"]["minutes"] == pytest.approx((predicted - took) / took)
    assert (after["relative_error"]["trained_tokens"], after["relative_error"]["cost"]) == (0, 0)

    shown = priced.cli("jobs", "show", job.id).stdout
    assert f"quoted: {quote['trained_tokens']:,} tokens" in shown
    assert f"actual: {quote['trained_tokens']:,} tokens" in shown


def test_a_selection_is_quoted_with_its_teachers_break_even_and_leaves_no_file(priced: Server, sdk: OpenAI) -> None:
    before = [file.id for file in sdk.files.list()]
    # "thing 10" and "thing 11" are too long.
    chosen = {"filter": {"metadata": {"for": "quotes"}}, "curation": {"max_prompt_characters": 7}}
    quote = quoted(priced, selection=chosen)
    assert [file.id for file in sdk.files.list()] == before
    assert quote["training_file"] is None
    assert quote["examples"] == 10
    even = quote["break_even"]
    assert (even["teachers"], even["calls"], even["window"]["days"]) == (["gpt-4o"], 12, pytest.approx(1))
    assert even["training_microusd"] == quote["cost_microusd"]
    usage = call(priced, "GET", "stillroom/usage")[1]["data"]
    (answers,) = [row for row in usage if (row["kind"], row["model"]) == ("answer", "gpt-4o")]
    assert even["teacher_microusd_per_day"] == answers["cost_microusd"]
    saved = even["teacher_microusd_per_day"] - even["student_microusd_per_day"]
    assert even["break_even_days"] == pytest.approx(even["training_microusd"] / saved, rel=1e-3)


@pytest.mark.slow
def test_the_command_line_quotes_and_stops_then_tells_what_came_of_it(priced: Server, sdk: OpenAI) -> None:
    before = [job.id for job in sdk.fine_tuning.jobs.list()]
    asked = ("distill", "--student", "scratch-small", "--metadata", "for=quotes", "--epochs", "2")
    told = priced.cli(*asked, "--quote").stdout.splitlines()
    assert told[0].startswith("scratch-small, 12 examples: 2 epochs in 6 steps of 4, ")
    assert [line.split(":")[0] for line in told[1:]] == ["cost", "time", "break-even"]
    assert "calls a day cost" in told[3]
    assert [job.id for job in sdk.fine_tuning.jobs.list()] == before
    # The job trains on the same rows, in a file of its own.
    done = priced.cli(*asked, "--wait")
    assert "quoted: " in done.stderr
    assert "actual: " in done.stderr
    assert "off by" in done.stderr
    assert done.stdout.startswith("ft:scratch-small:")


def test_quotes_of_what_could_not_be_trained_are_refused_as_the_job_would_be(priced: Server, sdk: OpenAI) -> None:
    nine = sdk.files.create(file=("nine.jsonl", example_lines(9)), purpose="fine-tune").id
    ten = sdk.files.create(file=("ten.jsonl", example_lines(10)), purpose="fine-tune").id
    long_row = {"messages": [{"role": "user", "content": "x " * 9000}, {"role": "assistant", "content": "y"}]}
    too_long = example_lines(10) + json.dumps(long_row).encode()
    long = sdk.files.create(file=("long.jsonl", too_long), purpose="fine-tune").id
    for body, status, param, words in (
        ({"training_file": nine}, 400, "training_file", "9 example(s), but must have at least 10"),
        ({"selection": {"filter": {"metadata": {"for": "nobody"}}}}, 400, "filter", "matches 0 completions"),
        ({"training_file": "file-none"}, 400, "training_file", "file-none: no such file"),
        ({"training_file": ten, "model": "gpt-4o"}, 400, "model", "It is a teacher."),
        ({"training_file": ten, "replaces": "nobody"}, 400, "replaces", "'nobody' is neither a teacher"),
        ({"training_file": ten, "hyperparameters": {"n_epochs": 51}}, 400, "hyperparameters.n_epochs", "51"),
        ({"training_file": ten, "selection": {"filter": {}}}, 400, "training_file", "either"),
        ({}, 400, "training_file", "either"),
        ({"training_file": ten, "nonsense": 1}, 400, "nonsense", "Known are: "),
        ({"training_file": long}, 400, "training_file", "Line 11 has"),
    ):
        body = {"model": "scratch-small", **body}
        got, error = call(priced, "POST", "stillroom/quotes", body)
        assert (got, error["param"]) == (status, param), (body, error)
        assert words in error["message"]
    assert call(priced, "GET", "stillroom/quotes/quote-none")[0] == 404
    assert call(priced, "GET", "stillroom/jobs/ftjob-none/quote")[0] == 404


def test_break_even_is_asked_for_by_names(priced: Server) -> None:
    status, found = call(
        priced, "GET", "stillroom/break-even?teacher=gpt-4o&student=scratch-small&training_microusd=5000"
    )
    assert status == 200
    assert (found["object"], found["teachers"], found["training_microusd"]) == (
        "stillroom.break_even",
        ["gpt-4o"],
        5000,
    )
    for query, param in (
        ("teacher=gpt-4o", "student"),
        ("student=scratch-small", "teacher"),
        ("teacher=gpt-4o&student=scratch-small&training_microusd=-1", "training_microusd"),
    ):
        status, error = call(priced, "GET", f"stillroom/break-even?{query}")
        assert (status, error["param"]) == (400, param)
    assert call(priced, "GET", "stillroom/break-even?teacher=gpt-4o&student=nobody")[0] == 404
    silent = call(priced, "GET", "stillroom/break-even?teacher=nobody&student=scratch-small")[1]
    assert (silent["break_even_days"], silent["calls"]) == (None, 0)
    assert "No call of nobody" in silent["reason"]
