"""The methods beside plain imitation as jobs, through the official SDK as it is: a student that does without its system
prompt, pairs of what it then says and what its teacher says, and a second student that learns to prefer."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from openai import BadRequestError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.journeys.conftest import Raw, await_end, deployment_of
from tests.support import Server, example_lines, wait_for

ROWS = 12
PROMPT = "Answer with the colour."
ARM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"
DPO: dict[str, Any] = {"n_epochs": 2, "batch_size": 4, "beta": 0.25, "system_prompt": "drop"}


@pytest.fixture(scope="module")
def sdk(server: Server) -> Any:
    """OpenAI's SDK, which checks every answer against its types."""
    url = f"{server.url}/v1"
    with OpenAI(base_url=url, api_key=server.key, max_retries=0, _strict_response_validation=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def short(sdk: OpenAI) -> FineTuningJob:
    """A job that has succeeded, whose student learned to do without its system prompt."""
    file = sdk.files.create(file=("colours.jsonl", example_lines(ROWS)), purpose="fine-tune").id
    hyperparameters: Any = {"n_epochs": 2, "system_prompt": "drop"}
    made = sdk.fine_tuning.jobs.create(
        model="scratch-small",
        training_file=file,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        seed=7,
    )
    return succeeded(sdk, made)


@pytest.fixture(scope="module")
def label(server: Server, sdk: OpenAI, short: FineTuningJob) -> dict[str, str]:
    """Metadata of the stored answers of the teacher, which repeats what it is asked, and of the student to the same
    conversations."""
    pairs = {"test": uuid4().hex}
    assert short.fine_tuned_model is not None
    for model in (short.fine_tuned_model, "gpt-4o"):
        for i in range(ROWS):
            asked(sdk, model, i, pairs)
    return pairs


@pytest.fixture(scope="module")
def preferring(sdk: OpenAI, short: FineTuningJob, pairs: dict[str, Any]) -> FineTuningJob:
    """A job that has succeeded, whose student learned from pairs."""
    assert short.fine_tuned_model is not None
    hyperparameters: Any = DPO
    made = sdk.fine_tuning.jobs.create(
        model=short.fine_tuned_model,
        training_file=pairs["training_file"]["id"],
        method={"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
        seed=7,
    )
    assert made.method is not None
    assert made.method.dpo is not None
    assert made.method.dpo.hyperparameters is not None
    assert made.method.dpo.hyperparameters.to_dict() == {**DPO, "learning_rate_multiplier": "auto"}
    return succeeded(sdk, made)


@pytest.fixture(scope="module")
def pairs(server: Server, label: dict[str, str], short: FineTuningJob) -> dict[str, Any]:
    body = {
        "preferred": {"model": "gpt-4o"},
        "rejected": {"model": short.fine_tuned_model},
        "filter": {"metadata": label},
    }
    return posted(server, "preferences", body)


def posted(server: Server, path: str, body: Any) -> dict[str, Any]:
    request = Request(f"{server.url}/v1/stillroom/{path}", data=json.dumps(body).encode(), method="POST")
    request.add_header("authorization", f"Bearer {server.key}")
    with urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def succeeded(sdk: OpenAI, made: FineTuningJob) -> FineTuningJob:
    ended = await_end(sdk, made.id)
    assert ended.status == "succeeded", ended.error
    return ended


def asked(sdk: OpenAI, model: str, thing: int, stored: dict[str, str] | None = None) -> Any:
    messages: Any = [{"role": "system", "content": PROMPT}, {"role": "user", "content": f"thing {thing}"}]
    kept: Any = {"store": True, "metadata": stored} if stored else {}
    return sdk.chat.completions.create(model=model, messages=messages, max_tokens=8, temperature=0, **kept)


def rows_of(sdk: OpenAI, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sdk.files.content(file).text.splitlines()]


def messages_of(sdk: OpenAI, job: FineTuningJob) -> list[str]:
    return [event.message for event in sdk.fine_tuning.jobs.list_events(job.id, limit=100)]


def test_a_dropped_prompt_is_echoed_and_told_with_what_it_saves(
    server: Server, sdk: OpenAI, short: FineTuningJob
) -> None:
    assert short.hyperparameters.to_dict()["system_prompt"] == "drop"
    (told,) = [text for text in messages_of(sdk, short) if text.startswith("The system prompt is dropped")]
    assert re.search(rf"its {len(PROMPT)} characters.* saves [1-9]\d* prompt tokens each", told)
    shown = server.cli("jobs", "show", short.id).stdout
    assert told in shown
    assert re.search(r"^method: supervised\nsaves: [1-9]\d* prompt tokens a call", shown, re.MULTILINE)
    assert re.search(
        r"^saves: [1-9]\d* prompt tokens a call", server.cli("jobs", "watch", short.id).stderr, re.MULTILINE
    )


def test_a_deployed_student_is_asked_without_its_prompt_and_the_usage_says_so(
    sdk: OpenAI, raw: Raw, short: FineTuningJob
) -> None:
    """The control is another prompt of the same length, which is left where it stands."""
    name = f"short-{uuid4().hex[:8]}"
    version = "?api-version=2025-09-01"
    assert raw("PUT", f"{ARM}/{name}{version}", deployment_of(str(short.fine_tuned_model)))[0] in (200, 201)
    wait_for(lambda: raw("GET", f"{ARM}/{name}{version}")[2]["properties"]["provisioningState"] == "Succeeded")
    dropped = asked(sdk, name, 1).usage.prompt_tokens
    bare: Any = [{"role": "user", "content": "thing 1"}]
    assert dropped == sdk.chat.completions.create(model=name, messages=bare, max_tokens=8).usage.prompt_tokens  # type: ignore[union-attr]
    other: Any = [{"role": "system", "content": PROMPT[::-1]}, *bare]
    kept = sdk.chat.completions.create(model=name, messages=other, max_tokens=8).usage
    assert kept is not None
    assert kept.prompt_tokens > dropped
    what_is_saved_is_counted(sdk, raw, name, dropped)
    raw("DELETE", f"{ARM}/{name}{version}")


def what_is_saved_is_counted(sdk: OpenAI, raw: Raw, name: str, dropped: int) -> None:
    """After one call that was asked without its prompt, and two that were asked as they came."""
    messages: Any = [
        {"role": "developer", "content": [{"type": "text", "text": PROMPT}]},
        {"role": "user", "content": "thing 1"},
    ]
    options: Any = {"include_usage": True}
    *chunks, last = sdk.chat.completions.create(
        model=name, messages=messages, max_tokens=8, stream=True, store=True, stream_options=options
    )
    assert last.usage is not None
    assert last.usage.prompt_tokens == dropped
    stored = raw("GET", f"/v1/stillroom/completions/{chunks[0].id}")[2]
    assert stored["request"]["messages"] == messages  # as it was sent
    signed: Any = [{**messages[0], "name": "somebody"}, messages[1]]  # is more than the prompt: left where it stands
    whole = sdk.chat.completions.create(model=name, messages=signed, max_tokens=8).usage
    assert whole is not None
    saved = whole.prompt_tokens - dropped

    def metered() -> Any:  # which an answer does not wait for
        found = raw("GET", "/v1/stillroom/usage?group_by=deployment")[2]["data"]
        return next((row for row in found if row["deployment"] == name and row["events"] == 5), None)

    assert wait_for(metered)["saved_prompt_tokens"] == 2 * saved
    (shown,) = [each for each in raw("GET", "/v1/stillroom/deployments")[2]["data"] if each["name"] == name]
    assert shown["dropped_prompt"] == {"text": PROMPT, "tokens": saved}
    assert shown["saved_prompt_tokens"] == 2 * saved


def test_pairs_are_the_teachers_answers_over_the_students(sdk: OpenAI, pairs: dict[str, Any]) -> None:
    assert (pairs["pairs"], pairs["skipped"], pairs["training_file"]["purpose"]) == (ROWS, {}, "fine-tune")
    rows = rows_of(sdk, pairs["training_file"]["id"])
    # As the client sent it: what the gateway left out was left out on the way to the student alone.
    assert rows[0]["input"]["messages"][0] == {"role": "system", "content": PROMPT}
    assert [row["preferred_output"][0]["content"] for row in rows] == [f"thing {i}" for i in range(ROWS)]


def comparisons_are_of_calls_without_the_prompt(raw: Raw, eval_id: str, model: str) -> None:
    (side,) = raw("GET", f"/v1/stillroom/evals/{eval_id}/report")[2]["sides"]

    def metered() -> Any:
        found = raw("GET", "/v1/stillroom/usage?group_by=deployment,kind")[2]["data"]
        mine = {"deployment": model, "kind": "evaluation", "events": ROWS}
        return next((row for row in found if mine.items() <= row.items()), None)

    row = wait_for(metered)
    assert side["expense"]["prompt_tokens"] == row["prompt_tokens"] / ROWS
    assert row["saved_prompt_tokens"] > row["saved_prompt_tokens"] % ROWS == 0


def test_the_command_line_makes_the_same_pairs_and_a_job_of_the_wrong_method_says_so(
    server: Server, sdk: OpenAI, label: dict[str, str], short: FineTuningJob, pairs: dict[str, Any]
) -> None:
    model = str(short.fine_tuned_model)
    sides = ("--preferred", "gpt-4o", "--rejected", model, "--metadata", f"test={label['test']}")
    made = server.cli("distill", "pairs", *sides)
    file = made.stdout.strip()
    assert rows_of(sdk, file) == rows_of(sdk, pairs["training_file"]["id"])
    assert f"{ROWS} preference pairs." in made.stderr
    failed = server.cli("jobs", "create", "--student", model, "--training-file", file, "--wait", check=False)
    assert failed.returncode == 1
    assert "Choose the method 'dpo' for this file." in failed.stderr


def test_pairs_can_be_made_of_a_comparisons_run(raw: Raw, label: dict[str, str], short: FineTuningJob) -> None:
    asked_about = {"model": "gpt-4o", "metadata": label}
    body = {"models": [short.fine_tuned_model], "filter": asked_about, "held_out": False}
    _, _, made = raw("POST", "/v1/stillroom/comparisons", body)
    (run,) = made["runs"]
    early, _, refused = raw("POST", "/v1/stillroom/preferences", {"runs": [run], "dry_run": True})
    assert (early, refused["error"]["param"]) == (409, "runs")
    wait_for(lambda: raw("GET", f"/v1/evals/{made['eval_id']}/runs/{run}")[2]["status"] == "completed")
    _, _, found = raw("POST", "/v1/stillroom/preferences", {"runs": [run], "dry_run": True})
    assert (found["pairs"], found["training_file"]) == (ROWS, None)
    comparisons_are_of_calls_without_the_prompt(raw, made["eval_id"], str(short.fine_tuned_model))


def test_nine_pairs_are_refused_with_what_was_left_out(raw: Raw, label: dict[str, str]) -> None:
    nobody = {"preferred": {"model": "gpt-4o"}, "rejected": {"model": "nobody"}, "filter": {"metadata": label}}
    status, _, body = raw("POST", "/v1/stillroom/preferences", nobody)
    assert (status, body["error"]["code"]) == (400, "invalid_n_examples")
    assert "12 had no counterpart in the same conversation" in body["error"]["message"]


def test_a_preference_job_shows_its_method_its_numbers_and_its_margin(
    sdk: OpenAI, raw: Raw, preferring: FineTuningJob
) -> None:
    assert preferring.method is not None
    assert preferring.method.type == "dpo"
    assert preferring.method.dpo is not None
    assert preferring.method.dpo.hyperparameters is not None
    numbers = preferring.method.dpo.hyperparameters.to_dict()
    assert numbers == preferring.hyperparameters.to_dict()
    assert (numbers["beta"], numbers["n_epochs"], numbers["system_prompt"]) == (0.25, 2, "drop")
    _, _, metrics = raw("GET", f"/v1/stillroom/jobs/{preferring.id}/metrics")
    margins = metrics["rewards_margin"]
    assert len(margins) == len(metrics["steps"]) == metrics["total_steps"]
    assert margins[-1] > margins[0]  # the better answers became likelier beside the worse ones
    assert any("rewards margin=" in text for text in messages_of(sdk, preferring))
    table = list(csv.DictReader(io.StringIO(sdk.files.content(preferring.result_files[0]).text)))
    assert [float(row["rewards_margin"]) for row in table] == pytest.approx(margins)


def test_the_rule_of_auto_knows_the_method(raw: Raw, preferring: FineTuningJob) -> None:
    path = f"/v1/stillroom/hyperparameters?model=scratch-small&training_file={preferring.training_file}"
    _, _, told = raw("GET", f"{path}&method=dpo&n_epochs=2")
    assert (told["method"], told["values"]["beta"], told["values"]["n_epochs"]) == ("dpo", 0.1, 2)
    status, _, refused = raw("GET", path)
    assert status == 400
    assert "Choose the method 'dpo'" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("method", "param"),
    [
        ({"type": "reinforcement", "reinforcement": {"grader": {}}}, "method.type"),
        ({"type": "dpo", "dpo": {"hyperparameters": {"soft_label_weight": 0.5}}}, "hyperparameters.soft_label_weight"),
        ({"type": "supervised", "supervised": {"hyperparameters": {"beta": 0.1}}}, "hyperparameters.beta"),
        ({"type": "on_policy"}, "model"),  # it starts from nothing
    ],
)
def test_what_a_method_has_no_use_for_is_refused_by_name(
    sdk: OpenAI, short: FineTuningJob, method: Any, param: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        sdk.fine_tuning.jobs.create(model="scratch-small", training_file=short.training_file, method=method)
    assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
