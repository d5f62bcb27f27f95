"""Stored completions as the portal looks at them: found by what was said, paged, counted, summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from openai import OpenAI

from stillroom.teachers.scripted import ScriptedTeacher, Status, echo
from tests.conftest import PRICE
from tests.journeys.conftest import Raw
from tests.support import Server, wait_for

SEARCH_SECONDS = 10  # a second when the machine has nothing else to do

Get = Callable[..., dict[str, Any]]


@pytest.fixture
def get(raw: Raw) -> Get:
    """A GET below `/v1/stillroom/completions`; metadata is given as a dict."""

    def ask(tail: str = "", *, metadata: dict[str, str] | None = None, **query: Any) -> dict[str, Any]:
        pairs = {**query, **{f"metadata[{key}]": value for key, value in (metadata or {}).items()}}
        status, _, body = raw("GET", f"/v1/stillroom/completions{tail}?{urlencode(pairs)}")
        assert status == 200, body
        return dict(body)

    return ask


def store(client: OpenAI, text: Any, metadata: dict[str, str], **options: Any) -> str:
    """Stores one completion, in which the teacher repeats the text; gives its id."""
    messages: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    return client.chat.completions.create(
        model="gpt-4o", messages=messages, store=True, metadata=metadata, **options
    ).id


def ids_of(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["data"]]


def test_what_was_just_said_is_soon_found_and_what_was_deleted_is_not(client: OpenAI, get: Get) -> None:
    word = uuid4().hex
    completion = store(client, f"お客様の注文 {word} を確認しました", {})
    for wanted in (word, word.upper(), f"注文 {word}", f'"{word} を確認"', f"認 {word}"):
        found = wait_for(lambda wanted=wanted: get(search=wanted)["data"], SEARCH_SECONDS)
        assert [item["id"] for item in found] == [completion]
    assert get(search=word)["search_pending"] == 0
    assert "search_pending" not in get(limit=1)
    assert get(search=f"返金 {word}")["data"] == []
    client.chat.completions.delete(completion)
    assert get(search=word)["data"] == []


def test_openais_own_list_can_be_searched_too(client: OpenAI) -> None:
    word = uuid4().hex
    completion = store(client, word, {})
    query = {"search": word}
    found = wait_for(lambda: client.chat.completions.list(extra_query=query).data, SEARCH_SECONDS)
    assert [each.id for each in found] == [completion]


def test_a_search_chooses_what_is_trained_on(client: OpenAI, raw: Raw, get: Get) -> None:
    word = uuid4().hex
    for n in range(10):
        store(client, f"{word} question {n}", {})
    store(client, "something else", {})
    wait_for(lambda: len(get(search=word)["data"]) == 10, SEARCH_SECONDS)
    status, _, made = raw("POST", "/v1/stillroom/selections", {"filter": {"search": word}})
    assert (status, made["training_examples"]) == (200, 10)
    status, _, refused = raw("POST", "/v1/stillroom/selections", {"filter": {"search": "x" * 2000}})
    assert (status, refused["error"]["param"]) == (400, "search")


def test_a_list_says_what_each_was_asked_answered_and_cost(client: OpenAI, get: Get, label: dict[str, str]) -> None:
    parts = [{"type": "text", "text": "long " * 100}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    completion = store(client, parts, label)
    (item,) = get(metadata=label)["data"]
    assert item["id"] == completion
    assert item["question"] == ("long " * 40) and len(item["answer"]) == 200
    assert (item["model"], item["status"], item["finish_reason"]) == ("gpt-4o", "completed", "stop")
    assert item["metadata"] == label and item["tool_calls"] == []
    cost = item["prompt_tokens"] * PRICE["input"] + item["completion_tokens"] * PRICE["output"]
    assert item["cost_microusd"] == pytest.approx(cost) and cost > 0
    whole = get(f"/{completion}")
    assert {name: whole[name] for name in item if name != "object"} == {
        name: value for name, value in item.items() if name != "object"
    }
    assert whole["object"] == "stillroom.completion.detail"
    assert [message["role"] for message in whole["request"]["messages"]] == ["system", "user"]
    assert whole["request"]["messages"][1]["content"] == parts
    assert whole["response"]["choices"][0]["message"]["role"] == "assistant"


def test_pages_go_back_in_time_and_before_shows_what_came_since(
    client: OpenAI, get: Get, label: dict[str, str]
) -> None:
    stored = [store(client, f"question {n}", label) for n in range(5)][::-1]
    first = get(metadata=label, limit=2)
    assert (ids_of(first), first["has_more"], first["last_id"]) == (stored[:2], True, stored[1])
    second = get(metadata=label, limit=3, after=first["last_id"])
    assert (ids_of(second), second["has_more"]) == (stored[2:], False)
    assert ids_of(get(metadata=label, before=stored[2])) == stored[:2]
    since = get(metadata=label, before=stored[-1], limit=2)
    assert (ids_of(since), since["has_more"]) == (stored[:2], True)
    assert get(metadata=label, before=stored[0])["data"] == []


def test_counts_and_facets_are_those_of_the_filter(client: OpenAI, get: Get, label: dict[str, str]) -> None:
    for n in range(6):
        store(client, f"question {n}", {**label, "colour": ["red", "blue"][n % 2], "n": str(n)})
    red = {**label, "colour": "red"}
    assert get("/count", metadata=red) == {"object": "stillroom.count", "count": 3, "at_least": False}
    assert get("/count", metadata=red, model="gpt-4o")["count"] == 3
    assert get("/count", metadata=red, model="other")["count"] == 0
    assert get("/count", metadata={**label, "colour": "green"})["count"] == 0
    facets = get("/facets", metadata=red)
    assert facets["models"] == [{"value": "gpt-4o", "count": 3}]
    assert facets["statuses"] == [{"value": "completed", "count": 3}]
    by_key = {facet["key"]: facet["values"] for facet in facets["metadata"]}
    assert by_key["colour"] == [{"value": "red", "count": 3}]
    assert sorted(value["value"] for value in by_key["n"]) == ["0", "2", "4"]
    assert not facets["sampled"]


def test_up_to_a_completion_none_is_listed_counted_or_trained_on_that_came_later(
    client: OpenAI, raw: Raw, get: Get, label: dict[str, str]
) -> None:
    earlier = [store(client, f"question {n}", {**label, "n": "early"}) for n in range(12)]
    store(client, "question 12", {**label, "n": "late"})
    until = {"metadata": label, "up_to": earlier[-1]}
    assert ids_of(get(**until, limit=100)) == earlier[::-1]
    assert get("/count", **until)["count"] == 12
    assert get("/count", up_to=earlier[0])["count"] == get("/count")["count"] - 12
    assert get("/facets", **until)["statuses"] == [{"value": "completed", "count": 12}]
    status, _, made = raw("POST", "/v1/stillroom/selections", {"filter": until})
    assert (status, made["training_examples"]) == (200, 12), made


def test_times_are_bounds_of_a_list(client: OpenAI, get: Get, label: dict[str, str]) -> None:
    store(client, "question", label)
    (item,) = get(metadata=label)["data"]
    created = item["created_at"]
    assert get(metadata=label, created_after=created, created_before=created + 1)["data"]
    assert not get(metadata=label, created_after=created + 1)["data"]
    assert not get(metadata=label, created_before=created)["data"]


CALLED = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "answer", "called"),
    [
        ({"content": "hi", "tool_calls": ["x"]}, "hi", []),
        ({"content": "hi", "tool_calls": {"a": 1}}, "hi", []),
        ({"content": "hi", "tool_calls": 5}, "hi", []),
        ({"content": {"a": 1}, "tool_calls": [{"function": "f"}, {"function": {"name": 7}}, CALLED]}, "", ["look_up"]),
        ({"content": 5, "function_call": CALLED["function"]}, "", ["look_up"]),
    ],
)
def test_an_odd_answer_is_kept_and_hides_no_other(
    teacher: ScriptedTeacher,
    client: OpenAI,
    raw: Raw,
    get: Get,
    label: dict[str, str],
    message: dict[str, Any],
    answer: str,
    called: list[str],
) -> None:
    even = store(client, "even", label)
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": {"a": 1}}
    teacher.script(Status(code=200, body={"object": "chat.completion", "model": "m", "choices": [choice]}))
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "odd"}], "store": True, "metadata": label}
    status, _, given = raw("POST", "/v1/chat/completions", asked)
    assert (status, given["choices"]) == (200, [choice])
    page = get(metadata=label)
    assert ids_of(page) == [given["id"], even]
    odd = page["data"][0]
    assert (odd["answer"], odd["tool_calls"], odd["finish_reason"]) == (answer, called, None)
    assert get(f"/{given['id']}")["response"]["choices"] == [choice]


@pytest.mark.parametrize(
    "tail", ["stillroom/completions", "stillroom/completions/count", "stillroom/completions/facets"]
)
@pytest.mark.parametrize("name", ["metadata[a", "metadata[", "metadata[a]b"])
def test_a_metadata_filter_that_is_cut_off_is_refused(raw: Raw, tail: str, name: str) -> None:
    status, _, body = raw("GET", f"/v1/{tail}?{name}=1")
    assert (status, body["error"]["param"]) == (400, name)


@pytest.mark.parametrize("tail", ["stillroom/completions/export", "chat/completions", "fine_tuning/jobs"])
def test_so_it_is_wherever_there_is_such_a_filter(raw: Raw, tail: str) -> None:
    status, _, body = raw("GET", f"/v1/{tail}?metadata[a=1")
    assert (status, body["error"]["param"]) == (400, "metadata[a")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("colour=red", "colour"),
        ("status=failed", "status"),
        ("created_after=yesterday", "created_after"),
        ("limit=201", "limit"),
        ("after=nothing", "after"),
        ("before=chatcmpl-1", "before"),
        ("up_to=nothing", "up_to"),
        ("search=" + "x" * 1001, "search"),
    ],
)
def test_what_cannot_be_filtered_by_is_refused(raw: Raw, query: str, param: str) -> None:
    status, _, body = raw("GET", f"/v1/stillroom/completions?{query}")
    assert (status, body["error"]["param"]) == (400, param)


def test_a_completion_that_is_not_there_is_not_found(raw: Raw) -> None:
    for completion in ("chatcmpl-00000000001", "nonsense"):
        status, _, body = raw("GET", f"/v1/stillroom/completions/{completion}")
        assert (status, body["error"]["param"]) == (404, "completion_id")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, OpenAI]]:
    """A server with nothing on it that others have stored."""
    with ScriptedTeacher(echo) as teacher:
        server = Server(tmp_path_factory.mktemp("own") / "data", teachers={"gpt-4o": {"base_url": teacher.url}}).start()
        with server, OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
            yield server, client


def test_a_search_goes_on_after_a_crash(own: tuple[Server, OpenAI]) -> None:
    server, client = own
    words = [uuid4().hex for _ in range(20)]
    for word in words:
        store(client, word, {"colour": "red"})
    server.kill()
    server.start(port=int(server.url.rpartition(":")[2]))
    for word in words:
        query = {"search": word}
        assert wait_for(lambda query=query: client.chat.completions.list(extra_query=query).data, SEARCH_SECONDS)
    listed = server.cli("completions", "list", "--search", words[3])
    assert words[3] in listed.stdout
    assert words[4] not in listed.stdout


def test_facets_of_everything_are_exact(own: tuple[Server, OpenAI]) -> None:
    _, client = own
    before: Any = client.get("/stillroom/completions/facets", cast_to=dict[str, Any])
    for n in range(60):
        store(client, "question", {"each": str(n), "colour": "blue"})
    for _ in range(2):
        store(client, "question", {"each": "7", "colour": "blue"})
    after: Any = client.get("/stillroom/completions/facets", cast_to=dict[str, Any])
    models = {facet["value"]: facet["count"] for facet in after["models"]}
    assert models["gpt-4o"] == sum(facet["count"] for facet in before["models"]) + 62
    each = next(facet for facet in after["metadata"] if facet["key"] == "each")
    assert each["values"][0] == {"value": "7", "count": 3}
    assert (len(each["values"]), each["more"]) == (50, True)
    colours = next(facet for facet in after["metadata"] if facet["key"] == "colour")
    assert {"value": "blue", "count": 62} in colours["values"]
    assert not after["sampled"]
