"""Every body of ours against OpenAI's own OpenAPI document.

The document is not part of this repository: STILLROOM_OPENAPI_SPECS names the folder that holds
`openai-openapi.yaml`. Each operation's schema is looked up by method and path, so that an operation
that is renamed there is noticed here.

Where the document is known to be wrong about the live service, it is corrected below before it is used:
each correction names what official clients and the document's own examples show instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from stillroom.teachers.scripted import Hang, ScriptedTeacher, StreamError
from tests.journeys.conftest import Raw, await_end
from tests.support import example_lines, wait_for

ENVIRONMENT = "STILLROOM_OPENAPI_SPECS"
DOCUMENT = "openai-openapi.yaml"
ROOT = "urn:openai"
ALPHA = "/v1/fine_tuning/alpha/graders"
NULL = {"type": "null"}


def correct(schemas: dict[str, Any]) -> None:
    """Puts right what the document has wrong."""
    for schema in schemas.values():
        modernise(schema)
    # An empty page has no first and no last object. The document wants a string; the SDK's type and the service
    # have null.
    for name in ("ChatCompletionList", "ChatCompletionMessageList", "ListFilesResponse"):
        for end in ("first_id", "last_id"):
            schemas[name]["properties"][end] = {"anyOf": [{"type": "string"}, NULL]}
    # Stored messages are those that were sent: system, user, tool. The document gives them the type of answers,
    # whose role is always "assistant" and whose refusal is required; its example shows a user's message without.
    own = schemas["ChatCompletionMessageList"]["properties"]["data"]["items"]["allOf"][1]
    sent = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"type": "string"}, "content": {"anyOf": [{"type": "string"}, NULL]}},
    }
    schemas["ChatCompletionMessageList"]["properties"]["data"]["items"]["allOf"] = [sent, own]
    # The document's own examples of runs and output items have null for what has not happened, and for errors.
    run, item = schemas["EvalRun"]["properties"], schemas["EvalRunOutputItem"]["properties"]["sample"]["properties"]
    for properties, name in (
        (run, "error"),
        (run, "per_model_usage"),
        (run, "per_testing_criteria_results"),
        (item, "error"),
        (item, "max_completion_tokens"),  # nobody asked for one
    ):
        properties[name] = {"anyOf": [properties[name], NULL]}
    # A plain message of a template is of both types that it may be exactly one of.
    template = schemas["CreateEvalCompletionsRunDataSource"]["properties"]["input_messages"]["oneOf"][0]
    messages = template["properties"]["template"]["items"]
    messages["anyOf"] = messages.pop("oneOf")
    for name in ("EvalList", "EvalRunList", "EvalRunOutputItemList"):
        for end in ("first_id", "last_id"):
            schemas[name]["properties"][end] = {"anyOf": [{"type": "string"}, NULL]}
    # Its example of a multi grader, and the guides, have many graders in it; its type has one.
    one = schemas["GraderMulti"]["properties"]["graders"]
    schemas["GraderMulti"]["properties"]["graders"] = {
        "anyOf": [one, {"type": "array", "items": one}, {"type": "object", "additionalProperties": one}]
    }
    # Wherever a grader may stand a label grader may stand too, but in one list it was forgotten.
    graders = schemas["ValidateGraderResponse"]["properties"]["grader"]["oneOf"]
    graders.append({"$ref": "#/components/schemas/GraderLabelModel"})


def modernise(schema: Any) -> None:
    """The document says it is OpenAPI 3.1, but still has two words of 3.0, which 3.1 does not know:
    `nullable: true`, and `exclusiveMinimum: true` beside a `minimum`."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        modernise(part)
    if not isinstance(schema, dict):
        return
    if schema.get("nullable") is True:
        bare = {name: schema.pop(name) for name in list(schema)}
        del bare["nullable"]
        schema["anyOf"] = [bare, NULL]
    if schema.get("exclusiveMinimum") is True:
        schema["exclusiveMinimum"] = schema.pop("minimum")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    folder = os.environ.get(ENVIRONMENT)
    if not folder or not (Path(folder) / DOCUMENT).exists():
        pytest.skip(f"{ENVIRONMENT} names no folder with {DOCUMENT}")
    with (Path(folder) / DOCUMENT).open(encoding="utf-8") as file:
        # The C loader reads the three megabytes in seconds instead of a minute.
        found: dict[str, Any] = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    correct(found["components"]["schemas"])
    return found


class Specification:
    """The document as a judge of bodies."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths = document["paths"]
        resource = Resource(contents=document, specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(ROOT, resource)

    def check(self, method: str, path: str, body: Any, status: int = 200) -> None:
        """Fails unless the body is what the operation answers with the status."""
        content = self._paths[path][method.lower()]["responses"][str(status)]["content"]
        schema = content["application/json"]["schema"]
        if "$ref" in schema:
            self.check_schema(schema["$ref"], body)
        else:
            self._check(schema, body)

    def check_schema(self, reference: str, body: Any) -> None:
        self._check({"$ref": ROOT + reference}, body)

    def _check(self, schema: dict[str, Any], body: Any) -> None:
        validator = Draft202012Validator(schema, registry=self._registry)
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]
        assert problems == [], problems


@pytest.fixture(scope="module")
def specification(document: dict[str, Any]) -> Specification:
    return Specification(document)


@pytest.fixture
def completion(client: OpenAI, label: dict[str, str]) -> str:
    """The id of a stored completion."""
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    made = client.chat.completions.create(
        model="gpt-4o", messages=messages, store=True, metadata=label, temperature=0, logprobs=None, seed=1, user="u"
    )
    return made.id


def test_the_validator_refuses_what_is_wrong(specification: Specification) -> None:
    right = {"id": "a", "object": "model", "created": 1, "owned_by": "b"}
    specification.check("GET", "/models/{model}", right)
    for wrong in ({**right, "object": "file"}, {**right, "created": "now"}, {"id": "a"}):
        with pytest.raises(AssertionError):
            specification.check("GET", "/models/{model}", wrong)


def test_chat_completions(raw: Raw, specification: Specification, label: dict[str, str]) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    for more in ({}, {"store": True, "metadata": label}, {"n": 2}):
        specification.check("POST", "/chat/completions", raw("POST", "/v1/chat/completions", {**body, **more})[2])


def test_chunks_of_streams(client: OpenAI, specification: Specification, label: dict[str, str]) -> None:
    options = {"include_usage": True}
    chunks = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "one two"}],
        stream=True,
        stream_options=options,  # type: ignore[arg-type]
        store=True,
        metadata=label,
    )
    seen = [chunk.to_dict(mode="json") for chunk in chunks]
    assert len(seen) > 3
    for chunk in seen:
        specification.check_schema("#/components/schemas/CreateChatCompletionStreamResponse", chunk)


def test_stored_completions(raw: Raw, specification: Specification, completion: str, label: dict[str, str]) -> None:
    one = "/chat/completions/{completion_id}"
    here = f"/v1/chat/completions/{completion}"
    tagged = f"metadata%5Btest%5D={label['test']}"
    full, empty = (raw("GET", f"/v1/chat/completions?{tagged}{more}")[2] for more in ("", f"&after={completion}"))
    assert (len(full["data"]), len(empty["data"])) == (1, 0)
    specification.check("GET", "/chat/completions", full)
    specification.check("GET", "/chat/completions", empty)
    specification.check("GET", one, raw("GET", here)[2])
    specification.check("POST", one, raw("POST", here, {"metadata": {"a": "b"}})[2])
    specification.check("POST", one, raw("POST", here, {"metadata": None})[2])
    messages = raw("GET", f"{here}/messages")[2]
    assert len(messages["data"]) == 2
    specification.check("GET", f"{one}/messages", messages)
    specification.check("DELETE", one, raw("DELETE", here)[2])


def test_an_incomplete_completion_differs_only_in_its_missing_end(
    client: OpenAI, raw: Raw, specification: Specification, teacher: ScriptedTeacher, label: dict[str, str]
) -> None:
    teacher.script(StreamError(after_chunks=3))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one two three"}], "stream": True}
    raw("POST", "/v1/chat/completions", {**body, "store": True, "metadata": label})
    (kept,) = raw("GET", f"/v1/chat/completions?metadata%5Btest%5D={label['test']}")[2]["data"]
    assert kept["choices"][0]["finish_reason"] is None
    kept["choices"][0]["finish_reason"] = "stop"  # an answer that was cut has none, and the document no word for it
    assert kept.pop("usage") is None
    specification.check("GET", "/chat/completions/{completion_id}", kept)


def test_files(client: OpenAI, raw: Raw, specification: Specification) -> None:
    good = client.files.create(file=("a.jsonl", example_lines(1)), purpose="fine-tune").id
    bad = client.files.create(
        file=("b.jsonl", b"{"), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    ).id
    for file in (good, bad):
        specification.check("GET", "/files/{file_id}", raw("GET", f"/v1/files/{file}")[2])
    specification.check("GET", "/files", raw("GET", "/v1/files?purpose=fine-tune")[2])
    specification.check("GET", "/files", raw("GET", "/v1/files?purpose=batch")[2])
    for file in (good, bad):
        specification.check("DELETE", "/files/{file_id}", raw("DELETE", f"/v1/files/{file}")[2])


def test_fine_tuning_jobs(
    client: OpenAI, raw: Raw, specification: Specification, job: FineTuningJob, label: dict[str, str]
) -> None:
    one = "/fine_tuning/jobs/{fine_tuning_job_id}"
    file = client.files.create(file=("a.jsonl", example_lines(9)), purpose="fine-tune").id
    body = {"model": "scratch-small", "training_file": file, "metadata": label, "suffix": "a"}
    made = raw("POST", "/v1/fine_tuning/jobs", body)[2]
    specification.check("POST", "/fine_tuning/jobs", made)
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.2}}}
    learned = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    preferring = raw("POST", "/v1/fine_tuning/jobs", {**body, "model": learned, "method": method})[2]
    specification.check("POST", "/fine_tuning/jobs", preferring)
    for job_id in (made["id"], preferring["id"]):
        assert await_end(client, job_id).status == "failed"
    for job_id in (made["id"], preferring["id"], job.id):
        here = f"/v1/fine_tuning/jobs/{job_id}"
        specification.check("GET", one, raw("GET", here)[2])
        specification.check("GET", f"{one}/events", raw("GET", f"{here}/events?limit=100")[2])
        specification.check("GET", f"{one}/checkpoints", raw("GET", f"{here}/checkpoints")[2])
    specification.check("GET", "/fine_tuning/jobs", raw("GET", "/v1/fine_tuning/jobs")[2])


def test_a_cancelled_job(client: OpenAI, raw: Raw, specification: Specification) -> None:
    file = client.files.create(file=("a.jsonl", example_lines(500)), purpose="fine-tune").id
    made = client.fine_tuning.jobs.create(model="scratch-small", training_file=file, hyperparameters={"n_epochs": 50})
    cancelled = raw("POST", f"/v1/fine_tuning/jobs/{made.id}/cancel")[2]
    specification.check("POST", "/fine_tuning/jobs/{fine_tuning_job_id}/cancel", cancelled)


def test_models(client: OpenAI, raw: Raw, specification: Specification, job: FineTuningJob) -> None:
    specification.check("GET", "/models", raw("GET", "/v1/models")[2])
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    for model in ("gpt-4o", "scratch-small", name):
        specification.check("GET", "/models/{model}", raw("GET", f"/v1/models/{model}")[2])
    # Any checkpoint but the newest will do: the newest is the model itself under another name.
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[-1].fine_tuned_model_checkpoint
    specification.check("DELETE", "/models/{model}", raw("DELETE", f"/v1/models/{checkpoint}")[2])


ITEM = {"question": "a", "right": "a"}
CRITERIA: list[dict[str, Any]] = [
    {
        "type": "string_check",
        "name": "same",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.right }}",
        "operation": "eq",
    },
    {
        "type": "text_similarity",
        "name": "alike",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.right }}",
        "evaluation_metric": "fuzzy_match",
        "pass_threshold": 0.5,
    },
    {
        "type": "label_model",
        "name": "judged",
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "yes"}],
        "labels": ["yes", "no"],
        "passing_labels": ["yes"],
    },
    {
        "type": "score_model",
        "name": "scored",
        "model": "gpt-4o",
        "input": [{"role": "user", "content": "1"}],
        "range": [0, 1],
        "pass_threshold": 0.5,
    },
    {"type": "python", "name": "code", "source": "def grade(sample, item):\n    return 1\n", "pass_threshold": 0.5},
]
CONFIGS: list[dict[str, Any]] = [
    {"type": "custom", "item_schema": {"type": "object", "required": ["right"]}, "include_sample_schema": True},
    {"type": "logs", "metadata": {"a": "b"}},
    {"type": "stored_completions", "metadata": {"a": "b"}},
]


def source(**more: Any) -> dict[str, Any]:
    """A data source whose only item is answered by the teacher."""
    template = [{"role": "user", "content": "{{ item.question }}"}]
    return {
        "type": "completions",
        "source": {"type": "file_content", "content": [{"item": ITEM}]},
        "input_messages": {"type": "template", "template": template},
        "model": "gpt-4o",
        **more,
    }


def test_evals(raw: Raw, specification: Specification, label: dict[str, str]) -> None:
    for config in CONFIGS:
        body = {"name": "n", "metadata": label, "data_source_config": config, "testing_criteria": CRITERIA}
        status, _, made = raw("POST", "/v1/evals", body)
        assert status == 201
        specification.check("POST", "/evals", made, 201)
        here = f"/v1/evals/{made['id']}"
        specification.check("GET", "/evals/{eval_id}", raw("GET", here)[2])
        specification.check("POST", "/evals/{eval_id}", raw("POST", here, {"name": "m", "metadata": None})[2])
        specification.check("GET", "/evals", raw("GET", "/v1/evals?limit=1")[2])
        specification.check("DELETE", "/evals/{eval_id}", raw("DELETE", here)[2])


def test_eval_runs_and_what_they_find(raw: Raw, specification: Specification) -> None:
    one, here = "/evals/{eval_id}/runs/{run_id}", "/v1/evals"
    made = raw("POST", here, {"data_source_config": CONFIGS[0], "testing_criteria": CRITERIA})[2]
    runs = f"{here}/{made['id']}/runs"
    specification.check("GET", "/evals/{eval_id}/runs", raw("GET", runs)[2])
    wrong = {"type": "file_content", "content": [{"item": ITEM}, {"item": {}}]}
    given = {"type": "file_content", "content": [{"item": ITEM, "sample": {"output_text": "a"}}, {"item": ITEM}]}
    sampling = {"max_completion_tokens": 5, "temperature": 0.5, "top_p": 1.0, "seed": 1}
    for asked in (source(source=wrong), source(sampling_params=sampling), {"type": "jsonl", "source": given}):
        status, _, run = raw("POST", runs, {"name": "r", "data_source": asked})
        assert status == 201
        specification.check("POST", "/evals/{eval_id}/runs", run, 201)
        there = f"{runs}/{run['id']}"
        wait_for(lambda path=there: raw("GET", path)[2]["status"] == "completed", pause=0.05)
        specification.check("GET", one, raw("GET", there)[2])
        found = raw("GET", f"{there}/output_items")[2]
        assert found["data"]
        specification.check("GET", f"{one}/output_items", found)
        for item in found["data"]:
            path = f"{there}/output_items/{item['id']}"
            specification.check("GET", f"{one}/output_items/{{output_item_id}}", raw("GET", path)[2])
        specification.check("GET", f"{one}/output_items", raw("GET", f"{there}/output_items?after={item['id']}")[2])
    specification.check("GET", "/evals/{eval_id}/runs", raw("GET", f"{runs}?limit=2")[2])
    specification.check("DELETE", one, raw("DELETE", there)[2])
    failing = {"type": "completions", "source": {"type": "file_id", "id": "file-x"}}
    status, _, body = raw("POST", runs, {"data_source": failing})
    assert status == 400
    specification.check_schema("#/components/schemas/ErrorResponse", body)


def test_a_failed_and_a_cancelled_run(raw: Raw, specification: Specification, teacher: ScriptedTeacher) -> None:
    one = "/evals/{eval_id}/runs/{run_id}"
    made = raw("POST", "/v1/evals", {"data_source_config": CONFIGS[1], "testing_criteria": CRITERIA[:1]})[2]
    runs = f"/v1/evals/{made['id']}/runs"
    nothing = {"type": "stored_completions", "metadata": {"nobody": "has this"}}
    run = raw("POST", runs, {"data_source": {"type": "completions", "source": nothing}})[2]
    wait_for(lambda: raw("GET", f"{runs}/{run['id']}")[2]["status"] == "failed", pause=0.05)
    failed = raw("GET", f"{runs}/{run['id']}")[2]
    assert failed["error"]["code"] == "no_items"
    specification.check("GET", one, failed)
    teacher.script_lasting(Hang(seconds=20))
    try:
        run = raw("POST", runs, {"data_source": source()})[2]
        cancelled = raw("POST", f"{runs}/{run['id']}")[2]
        assert cancelled["status"] == "canceled"
        specification.check("POST", one, cancelled)
    finally:
        teacher.script_lasting(None)


def test_graders(raw: Raw, specification: Specification) -> None:
    parts = {criterion["name"]: criterion for criterion in CRITERIA[:2]}
    multi = {"type": "multi", "name": "m", "graders": parts, "calculate_output": "(same + alike) / 2"}
    for grader in (*CRITERIA, multi):
        asked = {"grader": grader, "model_sample": "a", "item": ITEM}
        specification.check("POST", "/fine_tuning/alpha/graders/run", raw("POST", f"{ALPHA}/run", asked)[2])
        checked = raw("POST", f"{ALPHA}/validate", {"grader": grader})[2]
        specification.check("POST", "/fine_tuning/alpha/graders/validate", checked)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/evals/eval_unknown", 404),
        ("GET", "/v1/evals?order_by=name", 400),
        ("POST", "/v1/evals", 400),
        ("GET", "/v1/chat/completions/chatcmpl-unknown", 404),
        ("GET", "/v1/chat/completions?limit=0", 400),
        ("GET", "/v1/files/file-unknown", 404),
        ("GET", "/v1/files?order=up", 400),
        ("POST", "/v1/files", 400),
        ("POST", "/v1/chat/completions", 400),
        ("GET", "/v1/fine_tuning/jobs/ftjob-unknown", 404),
        ("POST", "/v1/fine_tuning/jobs", 400),
        ("GET", "/v1/models/no-such", 404),
        ("DELETE", "/v1/models/no-such", 404),
        ("GET", "/v1/no/such", 404),
        ("PUT", "/v1/files", 405),
    ],
)
def test_errors(raw: Raw, specification: Specification, method: str, path: str, status: int) -> None:
    told, _, body = raw(method, path, {} if method == "POST" else None)
    assert told == status
    specification.check_schema("#/components/schemas/ErrorResponse", body)


def test_a_wrong_key(raw: Raw, specification: Specification) -> None:
    specification.check_schema(
        "#/components/schemas/ErrorResponse", raw("GET", "/v1/models", authorization="Bearer wrong")[2]
    )
