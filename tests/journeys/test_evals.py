"""Evals through the official SDK: defined, run over every kind of items, graded, read, ended.

The strict client checks evals and lists of runs' output. Runs and output items are read by the plain
one: the SDK's types say that `error` is never null, though the API's own examples have null there,
and that `max_completion_tokens` is a number also where nobody asked for one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from openai import AzureOpenAI, BadRequestError, ConflictError, NotFoundError, OpenAI, RateLimitError

from stillroom.teachers.scripted import Hang, JsonObject, Reply, ScriptedTeacher, Status, echo
from tests.journeys.conftest import await_end
from tests.support import Server, wait_for

ENDED = ("completed", "failed", "canceled")
PRICE = {"input": 2.5, "output": 10.0}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
CUSTOM: dict[str, Any] = {
    "type": "custom",
    "item_schema": {
        "type": "object",
        "properties": {"question": {"type": "string"}, "right": {"type": "string"}},
        "required": ["question", "right"],
    },
    "include_sample_schema": True,
}
SAYS_SO: dict[str, Any] = {
    "type": "string_check",
    "name": "says so",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.right }}",
    "operation": "eq",
}
AS_STORED: dict[str, Any] = {**SAYS_SO, "name": "as the teacher", "reference": "{{ item.output_text }}"}
FROM_ITEM: dict[str, Any] = {"type": "item_reference", "item_reference": "item.input"}
QUESTION: dict[str, Any] = {"type": "template", "template": [{"role": "user", "content": "{{ item.question }}"}]}


def answer(body: JsonObject) -> str | JsonObject:
    """The last question's text; asked with tools, a call of the first."""
    if body.get("tools"):
        call = {"id": "call-1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1, "b": 2}'}}
        return {"content": None, "tool_calls": [call]}
    return echo(body)


def differently(body: JsonObject) -> str | JsonObject:
    """As `answer`, but for questions with a 1 in them; a call's arguments are spelled otherwise."""
    if body.get("tools"):
        call = {"id": "call-2", "type": "function", "function": {"name": "look_up", "arguments": '{"b":2,"a":1}'}}
        return {"content": None, "tool_calls": [call]}
    return echo(body).replace("1", "one")


def judgement(body: JsonObject) -> str:
    """What a judge says who likes texts with a 1 in them: by the form asked for, or by the words of it."""
    likes = "1" in re.sub(r"Answer with one JSON object.*", "", echo(body), flags=re.DOTALL)
    asked = json.dumps(body)
    result: Any = ("good" if likes else "bad") if "enum" in asked else (0.9 if likes else 0.1)
    return json.dumps({"steps": [], "result": result})


class RefuseFormat:
    """A fault of the scripted teacher: 400 to whoever asks for an answer's form."""

    async def send(self, reply: Reply) -> Any:
        if "response_format" not in reply.question:
            return await reply.send()
        error = {"message": "response_format is not supported", "type": "x", "param": "response_format", "code": None}
        return await Status(code=400, body=json.dumps({"error": error})).send(reply)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A server with the teachers `gpt-4o`, `other`, `judge` and `plain` (a judge that knows no schemas)."""

    server: Server
    teacher: ScriptedTeacher
    other: ScriptedTeacher
    judge: ScriptedTeacher
    plain: ScriptedTeacher

    def get(self, path: str) -> Any:
        with OpenAI(base_url=f"{self.server.url}/v1", api_key=self.server.key, max_retries=0) as client:
            return client.get(path, cast_to=object)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with (
        ScriptedTeacher(answer) as teacher,
        ScriptedTeacher(differently) as other,
        ScriptedTeacher(judgement) as judge,
        ScriptedTeacher(judgement) as plain,
    ):
        plain.script_lasting(RefuseFormat())
        named = {"gpt-4o": teacher, "other": other, "judge": judge, "plain": plain}
        teachers = {name: {"base_url": scripted.url, "price": PRICE} for name, scripted in named.items()}
        with Server(tmp_path_factory.mktemp("evals") / "data", teachers=teachers).start() as server:
            yield Place(server=server, teacher=teacher, other=other, judge=judge, plain=plain)


@pytest.fixture
def client(place: Place) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{place.server.url}/v1", api_key=place.server.key, max_retries=0) as opened:
        yield opened


@pytest.fixture
def strict(place: Place) -> Iterator[OpenAI]:
    url = f"{place.server.url}/v1"
    with OpenAI(base_url=url, api_key=place.server.key, max_retries=0, _strict_response_validation=True) as opened:
        yield opened


@pytest.fixture(params=["v1", "azure v1", "azure endpoint"])
def dialect(place: Place, request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    """One of the three ways in which the SDKs are pointed at a server."""
    url, key = place.server.url, place.server.key
    opened: OpenAI
    if request.param == "v1":
        opened = OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    elif request.param == "azure v1":
        opened = AzureOpenAI(base_url=f"{url}/openai/v1/", api_key=key, api_version="preview", max_retries=0)
    else:
        opened = AzureOpenAI(azure_endpoint=url, api_key=key, api_version="2025-04-01-preview", max_retries=0)
    with opened:
        yield opened


def store(client: OpenAI, label: dict[str, str], *texts: str, model: str = "gpt-4o", **more: Any) -> list[str]:
    """Stores an answer to each text; gives their ids."""
    return [
        client.chat.completions.create(
            model=model,
            messages=[{"role": "system", "content": "Repeat."}, {"role": "user", "content": text}],
            store=True,
            metadata=label,
            **more,
        ).id
        for text in texts
    ]


def of_stored(label: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"type": "stored_completions", "metadata": label, **more}


def of_content(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"type": "file_content", "content": list(rows)}


def logs(client: OpenAI, *criteria: dict[str, Any]) -> str:
    """The id of an eval of stored completions."""
    config: Any = {"type": "logs", "metadata": {}}
    return client.evals.create(data_source_config=config, testing_criteria=list(criteria or (AS_STORED,))).id  # type: ignore[arg-type]


def custom(client: OpenAI, *criteria: dict[str, Any], config: dict[str, Any] | None = None) -> str:
    """The id of an eval of questions with right answers."""
    chosen: Any = config or CUSTOM
    return client.evals.create(data_source_config=chosen, testing_criteria=list(criteria or (SAYS_SO,))).id  # type: ignore[arg-type]


def run(client: OpenAI, eval_id: str, **data_source: Any) -> Any:
    """The run of this data source once it has completed."""
    return ended(client, client.evals.runs.create(eval_id, data_source=data_source))  # type: ignore[arg-type]


def ended(client: OpenAI, started: Any, status: str = "completed") -> Any:
    def look() -> Any:
        now = client.evals.runs.retrieve(started.id, eval_id=started.eval_id)
        return now if now.status in ENDED else None

    found = wait_for(look, seconds=60, pause=0.05)
    assert found.status == status, found.error
    return found


def items(client: OpenAI, done: Any, **options: Any) -> list[Any]:
    """The run's output items by the number of their item."""
    found = client.evals.runs.output_items.list(done.id, eval_id=done.eval_id, **options)
    return sorted(found, key=lambda item: item.datasource_item_id)


def counts(done: Any) -> tuple[int, int, int]:
    """Passed, failed, errored; together they are all."""
    told = done.result_counts
    assert told.total == told.passed + told.failed + told.errored
    return told.passed, told.failed, told.errored


def body_of(teacher: ScriptedTeacher) -> dict[str, Any]:
    """The last request a scripted teacher got."""
    return dict(teacher.requests[-1]["body"])


# --- the flows --------------------------------------------------------------------------------------------


def test_p18_a_model_is_compared_with_what_was_stored(dialect: OpenAI, label: dict[str, str]) -> None:
    store(dialect, label, *(f"text {n}" for n in range(8)))
    config: Any = {"type": "stored_completions", "metadata": label}
    made = dialect.evals.create(
        name="like the teacher",
        data_source_config=config,
        testing_criteria=[AS_STORED],  # type: ignore[list-item]
    )
    assert made.data_source_config.type == "stored_completions"
    source: Any = {
        "type": "completions",
        "source": {"type": "stored_completions", "metadata": label},
        "input_messages": FROM_ITEM,
        "model": "other",
    }
    done = ended(dialect, dialect.evals.runs.create(made.id, name="first", data_source=source))
    assert counts(done) == (7, 1, 0)
    assert (done.name, done.model, done.error) == ("first", "other", None)
    assert done.data_source.to_dict() == source
    (result,) = done.per_testing_criteria_results
    assert (result.testing_criteria, result.passed, result.failed) == ("as the teacher", 7, 1)


def test_p19_failed_items_are_paged_a_run_is_cancelled_and_the_eval_deleted(
    place: Place, dialect: OpenAI, label: dict[str, str]
) -> None:
    store(dialect, label, *(f"text {n}" for n in range(10, 20)))
    eval_id = logs(dialect)
    done = run(dialect, eval_id, type="completions", source=of_stored(label), input_messages=FROM_ITEM, model="other")
    assert counts(done) == (0, 10, 0)
    page = dialect.evals.runs.output_items.list(done.id, eval_id=eval_id, status="fail", limit=3)
    assert (len(page.data), page.has_more) == (3, True)
    assert len({item.id for item in page}) == 10
    assert list(dialect.evals.runs.output_items.list(done.id, eval_id=eval_id, status="pass")) == []
    place.other.script_lasting(Hang(seconds=20))
    try:
        source: Any = {
            "type": "completions",
            "source": of_stored(label),
            "input_messages": FROM_ITEM,
            "model": "other",
        }
        started = dialect.evals.runs.create(eval_id, data_source=source)
        cancelled = dialect.evals.runs.cancel(started.id, eval_id=eval_id)
        assert cancelled.status == "canceled"
    finally:
        place.other.script_lasting(None)
    assert dialect.evals.delete(eval_id).to_dict() == {"object": "eval.deleted", "deleted": True, "eval_id": eval_id}
    with pytest.raises(NotFoundError):
        dialect.evals.retrieve(eval_id)


# --- definitions ------------------------------------------------------------------------------------------


def test_an_eval_is_defined_read_changed_listed_and_deleted(strict: OpenAI, label: dict[str, str]) -> None:
    made = strict.evals.create(
        name="n",
        metadata=label,
        data_source_config=CUSTOM,  # type: ignore[arg-type]
        testing_criteria=[SAYS_SO],  # type: ignore[list-item]
    )
    assert made.id.startswith("eval_")
    assert made.metadata == label
    shown = made.data_source_config.to_dict()
    assert shown["type"] == "custom"
    assert shown["schema"]["properties"]["item"] == CUSTOM["item_schema"]  # type: ignore[index]
    assert shown["schema"]["required"] == ["item", "sample"]  # type: ignore[index]
    assert strict.evals.retrieve(made.id).to_dict() == made.to_dict()
    changed = strict.evals.update(made.id, name="m", metadata={"a": "b"})
    assert (changed.name, changed.metadata) == ("m", {"a": "b"})
    assert strict.evals.update(made.id, name="o").metadata == {"a": "b"}
    assert made.id in [each.id for each in strict.evals.list(limit=2)]
    strict.evals.delete(made.id)
    assert made.id not in [each.id for each in strict.evals.list()]


def test_evals_are_listed_by_creation_or_by_their_last_change(strict: OpenAI) -> None:
    made = [custom(strict) for _ in range(4)]
    listed = [each.id for each in strict.evals.list(order="desc", limit=2)]
    assert listed[:4] == made[::-1]
    wait_for(lambda: strict.evals.update(made[1], name="newest") and _newest(strict) == made[1], seconds=5)
    ascending = [each.id for each in strict.evals.list(order="asc", order_by="updated_at", limit=2)]
    assert ascending[-1] == made[1]
    assert len(ascending) == len(set(ascending))
    assert sorted(ascending) == sorted(each.id for each in strict.evals.list())
    for eval_id in made:
        strict.evals.delete(eval_id)


def _newest(client: OpenAI) -> str:
    return client.evals.list(order="desc", order_by="updated_at", limit=1).data[0].id


def test_a_logs_config_shows_its_metadata_and_narrows_every_run(strict: OpenAI, client: OpenAI, label: Any) -> None:
    store(client, {**label, "part": "in"}, "a", "b")
    store(client, {**label, "part": "out"}, "c")
    made = strict.evals.create(
        data_source_config={"type": "logs", "metadata": {"part": "in"}},
        testing_criteria=[AS_STORED],  # type: ignore[list-item]
    )
    assert made.data_source_config.to_dict()["metadata"] == {"part": "in"}
    assert counts(run(client, made.id, type="completions", source=of_stored(label))) == (2, 0, 0)


def test_a_multi_grader_is_no_testing_criterion(client: OpenAI) -> None:
    multi = {"type": "multi", "name": "m", "graders": {"a": SAYS_SO}, "calculate_output": "a"}
    with pytest.raises(BadRequestError, match="multi"):
        custom(client, multi)


# --- where items come from ------------------------------------------------------------------------------


def test_given_answers_are_graded_as_they_are(place: Place, client: OpenAI) -> None:
    rows = [
        {"item": {"question": f"{n}", "right": "yes"}, "sample": {"output_text": "yes" if n % 2 else "no"}}
        for n in range(5)
    ]
    asked = place.teacher.calls
    done = run(client, custom(client), type="jsonl", source=of_content(*rows))
    assert counts(done) == (2, 3, 0)
    assert place.teacher.calls == asked
    assert done.per_model_usage == []
    found = items(client, done)
    assert [item.datasource_item for item in found] == [row["item"] for row in rows]
    assert [item.status for item in found] == ["fail", "pass", "fail", "pass", "fail"]
    assert found[1].sample.output[0].content == "yes"
    (result,) = found[1].results
    assert (result.name, result.type, result.score, result.passed) == ("says so", "string-check-grader", 1.0, True)


@pytest.mark.parametrize(
    ("before", "between"), [(b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n"), (b"", b"\n\n")], ids=["plain", "BOM", "gaps"]
)
def test_items_come_from_an_uploaded_file(client: OpenAI, before: bytes, between: bytes) -> None:
    rows = [json.dumps({"item": {"question": f"{n}", "right": f"{n}"}}).encode() for n in range(3)]
    # Strict would refuse this file: the SDK's types know no purpose "evals".
    file = client.files.create(file=("items.jsonl", before + between.join(rows)), purpose="evals")
    source = {"type": "file_id", "id": file.id}
    done = run(client, custom(client), type="completions", source=source, input_messages=QUESTION, model="other")
    assert counts(done) == (2, 1, 0)
    lacking = run(client, custom(client), type="jsonl", source=source)
    assert counts(lacking) == (0, 0, 3)
    assert "there is none" in items(client, lacking)[0].results[0].model_extra["error"]["message"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b'{"item": {}}\nnonsense', "Line 2"), (b'{"question": "a"}', "Line 1"), (b"\n\n", "no items")],
)
def test_a_file_that_holds_no_items_is_refused_at_once(client: OpenAI, content: bytes, words: str) -> None:
    file = client.files.create(file=("items.jsonl", content), purpose="evals")
    with pytest.raises(BadRequestError, match=words) as refused:
        run(client, custom(client), type="jsonl", source={"type": "file_id", "id": file.id})
    assert refused.value.param == "data_source.source.id"


def test_a_file_that_is_not_there_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="file-none") as refused:
        run(client, custom(client), type="jsonl", source={"type": "file_id", "id": "file-none"})
    assert refused.value.code == "file_not_found"


def test_stored_answers_are_graded_without_a_model(place: Place, client: OpenAI, label: dict[str, str]) -> None:
    store(client, label, "a 1", "b")
    asked = place.teacher.calls
    likes: dict[str, Any] = {**SAYS_SO, "reference": "1", "operation": "like"}
    done = run(client, logs(client, likes), type="completions", source=of_stored(label))
    assert counts(done) == (1, 1, 0)
    assert place.teacher.calls == asked
    assert done.per_model_usage == []
    first, _ = items(client, done)
    assert first.datasource_item["output_text"] == "a 1"
    assert first.datasource_item["input"][1]["content"] == "a 1"
    assert [said.content for said in first.sample.input] == ["Repeat.", "a 1"]
    assert first.sample.usage.total_tokens > 0


def test_stored_completions_are_chosen_by_every_filter(client: OpenAI, label: dict[str, str]) -> None:
    ids = store(client, label, "a", "b", "c") + store(client, label, "d", model="other")
    eval_id = logs(client)
    at = client.chat.completions.retrieve(ids[0]).created

    def drawn(**filters: Any) -> list[Any]:
        done = run(client, eval_id, type="completions", source=of_stored(label, **filters))
        return [item.datasource_item["output_text"] for item in items(client, done)]

    assert drawn() == ["a", "b", "c", "d"]
    assert drawn(model="gpt-4o") == ["a", "b", "c"]
    assert sorted(drawn(limit=2)) == ["c", "d"]
    assert len(drawn(created_after=at - 1)) == 4
    assert drawn(up_to=ids[1]) == ["a", "b"]
    source: Any = {"type": "completions", "source": of_stored(label, created_before=at - 60)}
    nothing = client.evals.runs.create(eval_id, data_source=source)
    failed = ended(client, nothing, "failed")
    assert failed.error.code == "no_items"
    assert "No stored completion matches" in failed.error.message


def test_the_responses_data_source_takes_given_items_through_chat(place: Place, client: OpenAI) -> None:
    row = {"item": {"question": "q 1", "right": "q 1"}}
    form = {"type": "json_schema", "name": "s", "schema": {"type": "object"}}
    done = run(
        client,
        custom(client),
        type="responses",
        source=of_content(row),
        input_messages=QUESTION,
        model="gpt-4o",
        sampling_params={"text": {"format": form}},
    )
    assert counts(done) == (1, 0, 0)
    asked = body_of(place.teacher)["response_format"]
    assert asked == {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}


def test_stored_responses_are_refused_with_what_to_use_instead(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="stored_completions") as refused:
        run(client, logs(client), type="responses", source={"type": "responses", "model": "gpt-4o"})
    assert refused.value.param == "data_source.source.type"


def test_an_item_that_does_not_fit_the_schema_is_in_error_and_the_others_are_graded(client: OpenAI) -> None:
    rows: list[dict[str, Any]] = [
        {"item": {"question": "a", "right": "a"}},
        {"item": {"question": 5, "right": "a"}},
        {"item": {}},
    ]
    done = run(
        client, custom(client), type="completions", source=of_content(*rows), input_messages=QUESTION, model="gpt-4o"
    )
    assert counts(done) == (1, 0, 2)
    _, wrong, empty = items(client, done)
    assert (wrong.status, wrong.sample.error.code) == ("error", "invalid_item")
    assert "item.question" in wrong.sample.error.message
    assert "'question' is a required property" in empty.sample.error.message
    assert [item.id for item in items(client, done, status="fail")] == []


def test_references_in_an_items_schema_begin_at_the_item_and_are_never_fetched(place: Place, client: OpenAI) -> None:
    words = {"type": "object", "properties": {"right": {"$ref": "#/$defs/word"}}, "$defs": {"word": {"minLength": 2}}}
    rows = [{"item": {"right": text}, "sample": {"output_text": "aa"}} for text in ("aa", "a")]
    for schema, told in (
        (words, (1, 0, 1)),
        ({"properties": {"right": {"$ref": "#/$defs/none"}}}, (0, 0, 2)),
        ({"properties": {"right": {"$ref": f"{place.teacher.url}/models"}}}, (0, 0, 2)),
        ({"$ref": "#"}, (0, 0, 2)),
    ):
        config = {"type": "custom", "item_schema": schema}
        done = run(client, custom(client, config=config), type="jsonl", source=of_content(*rows))
        assert counts(done) == told
    assert items(client, done)[0].sample.error.code == "invalid_schema"


@pytest.mark.parametrize(
    "sample",
    [
        {"choices": [{}]},
        {"choices": "x", "usage": "x"},
        {"choices": [5], "model": 5, "finish_reason": []},
        {"output_text": 5, "usage": {"prompt_tokens": "x", "prompt_tokens_details": 5}},
        {"choices": [{"message": {"content": [5, {"text": 5}], "tool_calls": "x"}}]},
        {},
    ],
)
def test_an_answer_of_any_shape_is_no_crash(client: OpenAI, sample: dict[str, Any]) -> None:
    row = {"item": {"question": "a", "right": "a", "n": 2**70}, "sample": sample}
    done = run(client, custom(client), type="jsonl", source=of_content(row))
    assert done.result_counts.total == 1
    (item,) = items(client, done)
    assert item.datasource_item["n"] == 2**70


# --- how they are put to the model -----------------------------------------------------------------------


def test_templates_have_texts_and_parts(place: Place, client: OpenAI) -> None:
    template = [
        {"role": "developer", "content": "Answer {{ item.right }}."},
        {"role": "user", "content": [{"type": "input_text", "text": "A: {{ item.question }}"}, "B"]},
        {"role": "assistant", "content": {"type": "output_text", "text": "so far"}, "type": "message"},
        {"role": "user", "content": "{{ item.question }} again"},
    ]
    messages = {"type": "template", "template": template}
    row = {"item": {"question": "{{ item.right }}", "right": "r"}}
    run(client, custom(client), type="completions", source=of_content(row), input_messages=messages, model="gpt-4o")
    asked = body_of(place.teacher)["messages"]
    assert [message["role"] for message in asked] == ["developer", "user", "assistant", "user"]
    assert asked[0]["content"] == "Answer r."
    # What an item says is never read as a template again.
    assert asked[1]["content"] == [
        {"type": "text", "text": "A: {{ item.right }}"},
        {"type": "text", "text": "B"},
    ]
    assert asked[3]["content"] == "{{ item.right }} again"


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_completions_tokens", "max_tokens"])
def test_sampling_parameters_reach_the_model(place: Place, client: OpenAI, name: str) -> None:
    row = {"item": {"question": "a", "right": "a"}}
    given = {"temperature": 0.5, "top_p": 0.25, "seed": 7, "response_format": {"type": "text"}, name: 9}
    done = run(
        client,
        custom(client),
        type="completions",
        source=of_content(row),
        input_messages=QUESTION,
        model="gpt-4o",
        sampling_params=given,
    )
    asked = body_of(place.teacher)
    most = "max_tokens" if name == "max_tokens" else "max_completion_tokens"
    assert {key: asked[key] for key in asked if key != "messages"} == {
        "model": asked["model"],
        "temperature": 0.5,
        "top_p": 0.25,
        "seed": 7,
        "response_format": {"type": "text"},
        most: 9,
    }
    sample = items(client, done)[0].sample
    told = (sample.temperature, sample.top_p, sample.seed, sample.max_completion_tokens)
    assert told == (0.5, 0.25, 7, 9)


@pytest.mark.parametrize("tool", [TOOL, {"type": "function", **TOOL["function"]}], ids=["chat", "responses"])  # type: ignore[dict-item]
def test_tools_reach_the_model_and_calls_the_grader(place: Place, client: OpenAI, tool: dict[str, Any]) -> None:
    calls: dict[str, Any] = {**SAYS_SO, "input": "{{ sample.output_tools[0].function.name }}", "reference": "look_up"}
    row = {"item": {"question": "a", "right": "a"}}
    done = run(
        client,
        custom(client, calls),
        type="completions",
        source=of_content(row),
        input_messages=QUESTION,
        model="gpt-4o",
        sampling_params={"tools": [tool]},
    )
    assert counts(done) == (1, 0, 0)
    assert body_of(place.teacher)["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"model": "gpt-99"}, "data_source.model"),
        ({"input_messages": None}, "data_source.input_messages"),
        ({"sampling_params": {"heat": 1}}, "data_source.sampling_params.heat"),
        ({"sampling_params": {"tools": 5}}, "data_source.sampling_params.tools"),
        ({"sampling_params": {"tools": [{"type": "web_search"}]}}, "data_source.sampling_params.tools"),
        ({"type": "jsonl"}, "data_source.type"),
        ({"type": "csv"}, "data_source.type"),
        ({"source": {"type": "stored_completions"}}, "data_source.source.type"),
        ({"source": {"type": "file_content", "content": []}}, "data_source.source.content"),
        ({"source": {"type": "file_content", "content": [{"sample": {}}]}}, "data_source.source.content[0].item"),
        ({"input_messages": {"type": "template", "template": []}}, "data_source.input_messages.template"),
    ],
)
def test_a_run_asked_for_wrongly_names_the_field(client: OpenAI, wrong: dict[str, Any], param: str) -> None:
    right = {
        "type": "completions",
        "source": of_content({"item": {"question": "a", "right": "a"}}),
        "input_messages": QUESTION,
        "model": "gpt-4o",
    }
    source = {name: value for name, value in {**right, **wrong}.items() if value is not None}
    with pytest.raises(BadRequestError) as refused:
        client.evals.runs.create(custom(client), data_source=source)  # type: ignore[arg-type]
    assert refused.value.param == param, refused.value


def test_what_the_stored_request_brought_along_is_asked_again(
    place: Place, client: OpenAI, label: dict[str, str]
) -> None:
    store(client, label, "a", tools=[TOOL], response_format={"type": "json_object"})
    done = run(
        client, logs(client), type="completions", source=of_stored(label), input_messages=FROM_ITEM, model="other"
    )
    asked = body_of(place.other)
    assert asked["tools"] == [TOOL]
    assert asked["response_format"] == {"type": "json_object"}
    assert "metadata" not in asked
    assert counts(done) == (1, 0, 0)


def test_a_model_that_knows_no_response_format_is_asked_without(
    place: Place, client: OpenAI, label: dict[str, str]
) -> None:
    store(client, label, "a", "b", response_format={"type": "json_object"})
    done = run(
        client, logs(client), type="completions", source=of_stored(label), input_messages=FROM_ITEM, model="plain"
    )
    assert counts(done)[2] == 0
    assert "response_format" not in body_of(place.plain)


# --- graders ----------------------------------------------------------------------------------------------

LABEL: dict[str, Any] = {
    "type": "label_model",
    "name": "label",
    "model": "judge",
    "input": [{"role": "user", "content": "{{ sample.output_text }}"}],
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "score",
    "model": "judge",
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "{{ sample.output_text }}"}]}],
    "range": [0, 1],
    "pass_threshold": 0.5,
    "sampling_params": {"max_completions_tokens": 500, "temperature": 0},
}
ALIKE: dict[str, Any] = {
    "type": "text_similarity",
    "name": "alike",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.right }}",
    "evaluation_metric": "fuzzy_match",
    "pass_threshold": 0.9,
}
CODE: dict[str, Any] = {
    "type": "python",
    "name": "code",
    "source": "def grade(sample, item):\n    return 1.0 if sample['output_text'] == item['right'] else 0.25\n",
    "pass_threshold": 0.5,
}
CRASHES: dict[str, Any] = {**CODE, "name": "crash", "source": "def grade(sample, item):\n    return 1 / 0\n"}
EVERY = {each["type"]: each for each in (SAYS_SO, ALIKE, LABEL, SCORE, CODE)}


def test_every_grader_grades_in_an_eval(place: Place, client: OpenAI) -> None:
    rows = [{"item": {"question": f"text {n}", "right": f"text {n}"}} for n in range(1, 4)]
    done = run(
        client,
        custom(client, *EVERY.values()),
        type="completions",
        source=of_content(*rows),
        input_messages=QUESTION,
        model="gpt-4o",
    )
    assert counts(done) == (1, 2, 0)  # the judge likes a 1 in the text
    told = {each.testing_criteria: (each.passed, each.failed) for each in done.per_testing_criteria_results}
    assert told == {"says so": (3, 0), "alike": (3, 0), "label": (1, 2), "score": (1, 2), "code": (3, 0)}
    liked = {result.name: result for result in items(client, done)[0].results}
    assert [liked[name].type for name in ("label", "score", "code")] == [
        "label-model-grader",
        "score-model-grader",
        "python-grader",
    ]
    assert liked["score"].score == 0.9
    assert liked["label"].sample["label"] == "good"
    usage = {each.model_name: each for each in done.per_model_usage}
    assert usage["judge"].invocation_count == 6
    assert usage["gpt-4o"].invocation_count == 3
    scored = [sent["body"] for sent in place.judge.requests if "number" in json.dumps(sent["body"])]
    assert scored[-1]["max_completion_tokens"] == 500


def test_a_judge_that_knows_no_schemas_is_told_in_words(place: Place, client: OpenAI) -> None:
    row = {"item": {"question": "a", "right": "a"}, "sample": {"output_text": "text 1"}}
    criteria = [{**LABEL, "model": "plain"}, {**SCORE, "model": "plain"}]
    done = run(client, custom(client, *criteria), type="jsonl", source=of_content(row))
    assert counts(done) == (1, 0, 0)
    assert "JSON schema" in echo(body_of(place.plain))


def test_a_grader_that_crashes_puts_its_items_in_error(client: OpenAI) -> None:
    row = {"item": {"question": "a", "right": "a"}, "sample": {"output_text": "a"}}
    done = run(client, custom(client, SAYS_SO, CRASHES), type="jsonl", source=of_content(row))
    assert counts(done) == (0, 0, 1)
    (item,) = items(client, done)
    right, crashed = item.results
    assert (right.passed, crashed.passed) == (True, False)
    assert crashed.model_extra["error"]["code"] == "python_grader_runtime_error"
    assert "ZeroDivisionError" in crashed.model_extra["error"]["message"]
    told = {each.testing_criteria: (each.passed, each.failed) for each in done.per_testing_criteria_results}
    assert told == {"says so": (1, 0), "crash": (0, 0)}


@pytest.mark.parametrize("kind", [*EVERY, "multi"])
def test_every_grader_can_be_tried_alone(strict: OpenAI, client: OpenAI, kind: str) -> None:
    parts = {"same": SAYS_SO, "code": CODE}
    multi = {"type": "multi", "name": "both", "graders": parts, "calculate_output": "(same + 3 * code) / 4"}
    grader: Any = {**EVERY, "multi": multi}[kind]
    tried = strict.fine_tuning.alpha.graders.run(grader=grader, model_sample="text 1", item={"right": "text 1"})
    assert tried.reward == pytest.approx(0.9 if kind == "score_model" else 1.0)
    assert not any(value for value in tried.metadata.errors.to_dict().values())
    assert tried.metadata.type == kind
    assert tried.metadata.name == grader["name"]
    judged = kind in ("label_model", "score_model")
    assert tried.metadata.sampled_model_name == ("judge" if judged else None)
    assert (tried.metadata.token_usage is not None) is judged
    assert tried.sub_rewards == ({"same": 1.0, "code": 1.0} if kind == "multi" else {})
    # Strict would refuse two of them: the SDK's types know neither label graders here nor graders by name.
    checked = client.fine_tuning.alpha.graders.with_raw_response.validate(grader=grader)
    assert json.loads(checked.text) == {"grader": grader}


def test_a_python_grader_that_crashes_says_so_when_tried_alone(strict: OpenAI) -> None:
    tried = strict.fine_tuning.alpha.graders.run(grader=CRASHES, model_sample="a")  # type: ignore[arg-type]
    assert tried.reward == 0.0
    assert tried.metadata.errors.python_grader_runtime_error
    assert "ZeroDivisionError" in (tried.metadata.errors.python_grader_runtime_error_details or "")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({**CODE, "source": "def grade(sample, item:\n"}, "grader.source"),
        ({**CODE, "source": "x = 1"}, "grader.source"),
        ({**SAYS_SO, "operation": "almost"}, "grader.operation"),
        ({**SAYS_SO, "input": "{{ thing.x }}"}, "grader.input"),
        ({**ALIKE, "evaluation_metric": "guess"}, "grader.evaluation_metric"),
        ({**LABEL, "passing_labels": ["great"]}, "grader.passing_labels"),
        ({"type": "rumour"}, "grader.type"),
    ],
)
def test_a_wrong_grader_is_refused_by_validate_and_by_run(client: OpenAI, wrong: Any, param: str) -> None:
    for method in (
        lambda: client.fine_tuning.alpha.graders.validate(grader=wrong),
        lambda: client.fine_tuning.alpha.graders.run(grader=wrong, model_sample="a"),
    ):
        with pytest.raises(BadRequestError) as refused:
            method()
        assert refused.value.param == param


def test_a_judge_that_is_not_there_is_refused_before_anything_runs(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.fine_tuning.alpha.graders.run(grader={**LABEL, "model": "gpt-99"}, model_sample="a")  # type: ignore[arg-type]
    assert refused.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as also:
        custom(client, SAYS_SO, {**LABEL, "model": "gpt-99"})
    assert (also.value.code, also.value.param) == ("model_not_found", "testing_criteria[1].model")
    for error in (refused, also):
        assert "The model `gpt-99` does not exist or you do not have access to it." in error.value.message


# --- what runs leave --------------------------------------------------------------------------------------


def test_usage_is_what_the_items_and_the_ledger_say(place: Place, client: OpenAI) -> None:
    rows = [{"item": {"question": f"some text {n}", "right": "x"}} for n in range(6)]
    eval_id = custom(client, LABEL, SCORE)
    before = ledger(place)
    done = run(client, eval_id, type="completions", source=of_content(*rows), input_messages=QUESTION, model="gpt-4o")
    after = ledger(place)
    told = {each.model_name: each for each in done.per_model_usage}
    assert set(told) == {"gpt-4o", "judge"}
    for model, used in told.items():
        grown = {name: after[model][name] - before.get(model, {}).get(name, 0) for name in after[model]}
        assert grown["events"] == used.invocation_count
        assert grown["prompt_tokens"] == used.prompt_tokens
        assert grown["completion_tokens"] == used.completion_tokens
        assert grown["cost_microusd"] == pytest.approx(used.prompt_tokens * 2.5 + used.completion_tokens * 10, abs=1)
        assert used.total_tokens == used.prompt_tokens + used.completion_tokens > 0
    found = items(client, done)
    assert sum(item.sample.usage.total_tokens for item in found) == told["gpt-4o"].total_tokens
    judged = sum(result.sample["usage"]["total_tokens"] for item in found for result in item.results)
    assert judged == told["judge"].total_tokens


def ledger(place: Place) -> dict[str, dict[str, int]]:
    """What the ledger counts of answers, by model."""
    rows = place.get("/stillroom/usage?group_by=kind,model")["data"]
    names = ("events", "prompt_tokens", "completion_tokens", "cost_microusd")
    return {row["model"]: {name: row[name] for name in names} for row in rows if row["kind"] == "evaluation"}


def test_runs_are_listed_filtered_and_deleted(client: OpenAI) -> None:
    eval_id = custom(client)
    row = {"item": {"question": "a", "right": "a"}, "sample": {"output_text": "a"}}
    made = [run(client, eval_id, type="jsonl", source=of_content(row)).id for _ in range(3)]
    assert [each.id for each in client.evals.runs.list(eval_id, limit=2)] == made
    assert [each.id for each in client.evals.runs.list(eval_id, order="desc", limit=2)] == made[::-1]
    assert [each.id for each in client.evals.runs.list(eval_id, status="completed")] == made
    assert list(client.evals.runs.list(eval_id, status="queued")) == []
    with pytest.raises(BadRequestError, match="status"):
        client.evals.runs.list(eval_id, status="done")  # type: ignore[arg-type]
    client.evals.runs.delete(made[1], eval_id=eval_id)
    assert [each.id for each in client.evals.runs.list(eval_id)] == [made[0], made[2]]
    with pytest.raises(NotFoundError):
        client.evals.runs.output_items.list(made[1], eval_id=eval_id)
    with pytest.raises(NotFoundError):
        client.evals.runs.retrieve(made[0], eval_id=custom(client))


def test_output_items_are_paged_both_ways_and_read_one_by_one(client: OpenAI) -> None:
    eval_id = custom(client)
    rows = [
        {"item": {"question": f"{n}", "right": "a"}, "sample": {"output_text": "a" if n % 3 else "b"}}
        for n in range(25)
    ]
    done = run(client, eval_id, type="jsonl", source=of_content(*rows))
    listed = [item.id for item in client.evals.runs.output_items.list(done.id, eval_id=eval_id, limit=4)]
    assert len(set(listed)) == 25
    assert [item.datasource_item_id for item in items(client, done, limit=4)] == list(range(25))
    page = client.evals.runs.output_items.list(done.id, eval_id=eval_id, after=listed[9], limit=3)
    assert [item.id for item in page.data] == listed[10:13]
    descending = client.evals.runs.output_items.list(done.id, eval_id=eval_id, order="desc", limit=7)
    assert [item.id for item in descending] == listed[::-1]
    for status, number in (("pass", 16), ("fail", 9)):
        assert len(items(client, done, status=status, limit=4)) == number
    one = client.evals.runs.output_items.retrieve(listed[3], eval_id=eval_id, run_id=done.id)
    assert one.id == listed[3]
    with pytest.raises(NotFoundError):
        client.evals.runs.output_items.retrieve("outputitem_x", eval_id=eval_id, run_id=done.id)


@pytest.mark.parametrize("address", ["", "/cancel"], ids=["older SDKs", "newer SDKs"])
def test_a_run_is_cancelled_at_both_addresses(place: Place, client: OpenAI, address: str) -> None:
    eval_id, started = _hanging(place, client)
    path = f"/evals/{eval_id}/runs/{started.id}{address}"
    try:
        cancelled: Any = client.post(path, cast_to=object)
        assert cancelled["status"] == "canceled"
        with pytest.raises(ConflictError) as refused:
            client.post(path, cast_to=object)
        assert refused.value.response.headers["x-should-retry"] == "false"
    finally:
        place.other.script_lasting(None)


def test_a_run_under_way_is_not_deleted_but_its_eval_is(place: Place, client: OpenAI) -> None:
    eval_id, started = _hanging(place, client)
    try:
        with pytest.raises(ConflictError, match="cancel it first") as refused:
            client.evals.runs.delete(started.id, eval_id=eval_id)
        assert refused.value.response.headers["x-should-retry"] == "false"
        client.evals.delete(eval_id)
        with pytest.raises(NotFoundError):
            client.evals.runs.retrieve(started.id, eval_id=eval_id)
        folder = place.server.data / "runs" / started.id
        wait_for(lambda: not folder.exists(), seconds=10)
    finally:
        place.other.script_lasting(None)


def _hanging(place: Place, client: OpenAI) -> tuple[str, Any]:
    """An eval and a run of it that waits for its model."""
    place.other.script_lasting(Hang(seconds=30))
    eval_id, asked = custom(client), place.other.calls
    source: Any = {
        "type": "completions",
        "source": of_content({"item": {"question": "a", "right": "a"}}),
        "input_messages": QUESTION,
        "model": "other",
    }
    started = client.evals.runs.create(eval_id, data_source=source)
    wait_for(lambda: place.other.calls > asked, seconds=20)
    return eval_id, started


def test_a_spent_budget_begins_no_run(client: OpenAI) -> None:
    eval_id, row = custom(client), {"item": {"question": "a", "right": "a"}, "sample": {"output_text": "a"}}
    client.put("/stillroom/budget", body={"usd": 0}, cast_to=object)
    try:
        with pytest.raises(RateLimitError) as refused:
            run(client, eval_id, type="jsonl", source=of_content(row))
    finally:
        client.delete("/stillroom/budget", cast_to=object)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert list(client.evals.runs.list(eval_id)) == []
    assert counts(run(client, eval_id, type="jsonl", source=of_content(row))) == (1, 0, 0)


# --- a student and what it was trained on ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Student:
    """A fine-tuned model, its job, and what the answers it saw, and those it did not, are labelled with."""

    model: str
    job: str
    file: str
    seen: dict[str, str]
    unseen: dict[str, str]


def distilled(client: OpenAI, base: str, label: dict[str, str]) -> tuple[str, str, str]:
    """What is stored under the label, trained on: the model's name, its job and its training file."""
    selected: Any = client.post("/stillroom/selections", body={"filter": {"metadata": label}}, cast_to=object)
    file = selected["training_file"]["id"]
    made = client.fine_tuning.jobs.create(model=base, training_file=file, hyperparameters={"n_epochs": 1})
    done = await_end(client, made.id)
    assert done.fine_tuned_model, done.error
    return done.fine_tuned_model, done.id, file


@pytest.fixture(scope="module")
def student(place: Place) -> Iterator[Student]:
    with OpenAI(base_url=f"{place.server.url}/v1", api_key=place.server.key, max_retries=0) as client:
        seen, unseen = {"story": "seen"}, {"story": "unseen"}
        store(client, seen, *(f"word {n}" for n in range(12)))
        store(client, unseen, *(f"unheard {n}" for n in range(3)))
        model, job, file = distilled(client, "scratch-small", seen)
        yield Student(model=model, job=job, file=file, seen=seen, unseen=unseen)


@pytest.fixture(scope="module")
def later(place: Place, student: Student) -> Iterator[Student]:
    """A fine-tune of the student, which saw one of those questions that the student did not."""
    with OpenAI(base_url=f"{place.server.url}/v1", api_key=place.server.key, max_retries=0) as client:
        more = {"story": "more"}
        store(client, more, *(f"further {n}" for n in range(10)), "unheard 1")
        model, job, file = distilled(client, student.model, more)
        yield Student(model=model, job=job, file=file, seen=more, unseen=student.unseen)


@pytest.mark.slow
def test_the_teacher_and_two_students_are_compared_on_the_same_items(
    client: OpenAI, student: Student, later: Student
) -> None:
    eval_id = logs(client, AS_STORED, {**ALIKE, "reference": "{{ item.output_text }}", "pass_threshold": 0.0})
    done = {
        model: run(
            client,
            eval_id,
            type="completions",
            source=of_stored(student.unseen),
            input_messages=FROM_ITEM,
            model=model,
            sampling_params={"max_completion_tokens": 4, "temperature": 0},
        )
        for model in ("gpt-4o", student.model, later.model)
    }
    assert counts(done["gpt-4o"]) == (3, 0, 0)
    trained_on = {model: each.model_extra["lineage"]["trained_on"] for model, each in done.items()}
    assert trained_on == {"gpt-4o": 0, student.model: 0, later.model: 1}
    inputs = []
    for model, each in done.items():
        passed, failed, errored = counts(each)
        assert (passed + failed, errored) == (3, 0)
        same, alike = each.per_testing_criteria_results
        assert (same.passed, alike.passed) == (passed, 3)
        (used,) = each.per_model_usage
        assert (used.model_name, used.invocation_count) == (model, 3)
        assert 0 < used.completion_tokens <= 12
        inputs.append([item.datasource_item["input"] for item in items(client, each)])
    assert inputs[0] == inputs[1] == inputs[2]
    assert [each.id for each in client.evals.runs.list(eval_id)] == [each.id for each in done.values()]


@pytest.mark.slow
def test_a_run_tells_how_much_of_it_the_student_was_trained_on(client: OpenAI, student: Student) -> None:
    eval_id = logs(client)

    def lineage(model: str, label: dict[str, str]) -> dict[str, Any]:
        done = run(
            client,
            eval_id,
            type="completions",
            source=of_stored(label),
            input_messages=FROM_ITEM,
            model=model,
            sampling_params={"max_completion_tokens": 1},
        )
        return dict(done.model_extra["lineage"])

    assert lineage(student.model, student.seen)["trained_on"] == 12
    assert lineage("gpt-4o", student.seen)["trained_on"] == 0


@pytest.mark.slow
def test_exactly_what_was_trained_on_is_held_out_also_through_a_deployment_and_a_later_job(
    place: Place, client: OpenAI, student: Student, later: Student
) -> None:
    # The same question stored again was trained on all the same.
    store(client, student.unseen, "word 3")
    eval_id = logs(client)

    def held_out(job: str, model: str | None = None) -> tuple[list[str], dict[str, Any]]:
        more = {"input_messages": FROM_ITEM, "model": model, "sampling_params": {"max_completion_tokens": 1}}
        source = {"type": "stored_completions", "held_out_from": job}
        both = []
        for label in (student.seen, student.unseen):
            started: Any = client.evals.runs.create(
                eval_id,
                data_source={  # type: ignore[arg-type]
                    "type": "completions",
                    "source": {**source, "metadata": label},
                    **(more if model else {}),
                },
            )
            done = wait_for(lambda s=started: _over(client, s), seconds=60)
            both.append(done)
        seen, unseen = both
        assert seen.status == "failed"
        assert "All 12 stored completions that match were trained on" in seen.error.message
        assert unseen.status == "completed", unseen.error
        drawn = [item.datasource_item["output_text"] for item in items(client, unseen)]
        known = dict(unseen.model_extra["lineage"])
        assert known.pop("tuned") is (model is not None and model != "gpt-4o")
        return drawn, known

    unheard = ["unheard 0", "unheard 1", "unheard 2"]
    assert held_out(student.job) == (unheard, {"total": 3, "trained_on": 0, "left_out": 1, "unusable": 0})

    # Through a deployment's name, and when the training file is gone.
    deployed = {"properties": {"model": {"name": student.model}}}
    arm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"
    client.put(f"{place.server.url}{arm}/in-use?api-version=2025-09-01", body=deployed, cast_to=object)
    assert held_out(student.job, "in-use")[0] == unheard
    done = run(
        client,
        eval_id,
        type="completions",
        source=of_stored(student.seen),
        input_messages=FROM_ITEM,
        model="in-use",
        sampling_params={"max_completion_tokens": 1},
    )
    assert done.model_extra["lineage"]["trained_on"] == 12

    client.files.delete(student.file)
    assert held_out(student.job)[0] == unheard

    assert held_out(later.job)[0] == ["unheard 0", "unheard 2"]


def _over(client: OpenAI, started: Any) -> Any:
    now = client.evals.runs.retrieve(started.id, eval_id=started.eval_id)
    return now if now.status in ENDED else None


def test_holding_out_from_what_is_no_job_is_refused(client: OpenAI, label: dict[str, str]) -> None:
    with pytest.raises(BadRequestError, match="ftjob-none") as refused:
        run(client, logs(client), type="completions", source=of_stored(label, held_out_from="ftjob-none"))
    assert refused.value.param == "data_source.source.held_out_from"
