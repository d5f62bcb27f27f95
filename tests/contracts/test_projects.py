"""What belongs to one project does not exist for the keys of another."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from stillroom import ids
from stillroom.api import routes
from stillroom.teachers.scripted import ScriptedTeacher
from tests.faults.wire import send
from tests.support import Server, example_lines, wait_for

THEIR_KEY = "sk-stillroom-of-another-project"
ARM = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"


@pytest.fixture(scope="module")
def shared(
    teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with two projects, and one object of every kind in the first."""
    server = Server(
        tmp_path_factory.mktemp("projects") / "data", teachers={"gpt-4o": {"base_url": teacher.url}}
    ).start()
    server.stop()
    with sqlite3.connect(server.data / "stillroom.db") as database:
        database.execute("INSERT INTO projects (id, name, created_at) VALUES (2, 'other', 0)")
        digest = hashlib.sha256(THEIR_KEY.encode()).hexdigest()
        database.execute(
            "INSERT INTO api_keys (id, project, name, hash, shown, created_at) VALUES ('key-2', 2, 'other', ?, 'sk', 0)",
            (digest,),
        )
        database.execute(
            "INSERT INTO models (project, openai_name, azure_name, base, job, step, blob, created_at) "
            "VALUES (1, 'ft:ours', 'ours.ft-1', 'scratch-small', 'ftjob-1', NULL, 'models/ours', 0)"
        )
    with server.start():
        yield server, _objects(server)


def _objects(server: Server) -> dict[str, str]:
    client = OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
    file = client.files.create(file=("nine.jsonl", example_lines(9)), purpose="fine-tune")
    completion = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "ours"}], store=True, metadata={"k": "v"}
    )
    deployment: Any = {"properties": {"model": {"name": "gpt-4o"}}}
    client.put(f"{server.url}{ARM}/ours?api-version=2025-09-01", body=deployment, cast_to=dict[str, Any])
    ten = client.files.create(file=("ten.jsonl", example_lines(10)), purpose="fine-tune").id
    quote: Any = client.post(
        "/stillroom/quotes", body={"model": "scratch-small", "training_file": ten}, cast_to=dict[str, Any]
    )
    job = client.fine_tuning.jobs.create(model="scratch-small", training_file=file.id).id
    never: Any = {"action": "delete", "ids": [ids.completion_id(1)]}
    action: Any = client.post("/stillroom/completions/bulk", body=never, cast_to=dict[str, Any])
    evaluated, run, item = _evaluated(client)
    return {
        "chat/completions": completion.id,
        "stillroom/completions": completion.id,
        "evals": evaluated,
        "stillroom/evals": evaluated,
        "run": run,
        "item": item,
        "files": file.id,
        "stillroom/files": _curated(client),
        "fine_tuning/jobs": job,
        "stillroom/jobs": job,
        "stillroom/quotes": quote["id"],
        "stillroom/bulk_actions": action["id"],
        "models": "ft:ours",
        "stillroom/models": "ft:ours",
        "stillroom/exports": client.post(
            "/stillroom/models/ft:ours/exports", body={"format": "gguf"}, cast_to=dict[str, Any]
        )["id"],
        "stillroom/keys": client.get("/stillroom/keys", cast_to=dict[str, Any])["data"][0]["id"],
    }


def _curated(client: OpenAI) -> str:
    """A file with a report; the completions that it was made of are gone."""
    asked: list[Any] = [[{"role": "user", "content": f"ours {number}"}] for number in range(10)]
    made = [client.chat.completions.create(model="gpt-4o", messages=each, store=True).id for each in asked]
    selection: Any = {"ids": made, "curation": {}}
    selected = client.post("/stillroom/selections", body=selection, cast_to=dict[str, Any])
    for each in made:
        client.chat.completions.delete(each)
    return str(selected["training_file"]["id"])


def _evaluated(client: OpenAI) -> tuple[str, str, str]:
    """An eval, its run, and what that found."""
    same: Any = {"type": "string_check", "name": "a", "input": "{{ item.a }}", "reference": "x", "operation": "eq"}
    config: Any = {"type": "custom", "item_schema": {"type": "object"}}
    made = client.evals.create(data_source_config=config, testing_criteria=[same])
    source: Any = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"a": "x"}}]}}
    run = client.evals.runs.create(made.id, data_source=source)
    wait_for(lambda: client.evals.runs.retrieve(run.id, eval_id=made.id).status == "completed")
    (item,) = client.evals.runs.output_items.list(run.id, eval_id=made.id).data
    return made.id, run.id, item.id


def object_routes() -> list[routes.Route]:
    """But for teachers: the configuration's, they are everybody's."""
    every = [route for route in (*routes.BOTH_DIALECTS, *routes.OWN) if "{" in route.path]
    return [route for route in every if not route.path.startswith("stillroom/teachers/")]


@pytest.mark.parametrize("route", object_routes(), ids=lambda route: f"{route.method} {route.path}")
def test_another_projects_object_is_not_found(shared: tuple[Server, dict[str, str]], route: routes.Route) -> None:
    server, objects = shared
    kind = route.path.split("/{")[0]
    path = f"/v1/{kind}/{objects[kind]}{route.path.partition('}')[2]}".format(**objects)
    body = b'{"metadata": {"a": "b"}}' if route.method == "POST" else None
    answer = send(server, route.method, path, body, key=THEIR_KEY)
    assert answer.status == 404, answer.body
    # The control: for its own project it is there (deleting is left out, it would end the test's objects).
    if route.method == "GET":
        # An export that could not be made has no content, which is its owner's to know.
        assert send(server, "GET", path).status == (
            409 if path.endswith(f"{objects['stillroom/exports']}/content") else 200
        )


@pytest.mark.parametrize(
    "path", ["chat/completions", "evals", "files", "fine_tuning/jobs", "stillroom/keys", "stillroom/usage"]
)
def test_lists_hold_ones_own_things_only(shared: tuple[Server, dict[str, str]], path: str) -> None:
    server, _ = shared
    theirs = send(server, "GET", f"/v1/{path}", key=THEIR_KEY).json["data"]
    ours = send(server, "GET", f"/v1/{path}", key=server.key).json["data"]
    assert ours
    assert [item["id"] for item in theirs] == (["key-2"] if path == "stillroom/keys" else [])


def test_bulk_actions_and_exports_reach_ones_own_completions_only(shared: tuple[Server, dict[str, str]]) -> None:
    server, objects = shared
    ours = objects["chat/completions"]
    before = send(server, "GET", f"/v1/chat/completions/{ours}").json
    for asked in (
        {"action": "delete", "ids": [ours]},
        {"action": "delete", "filter": {}},
        {"action": "tag", "ids": [ours], "metadata": {"theirs": "yes"}},
        {"action": "tag", "filter": {"metadata": {"k": "v"}}, "metadata": {"k": None}},
    ):
        made = send(server, "POST", "/v1/stillroom/completions/bulk", asked, key=THEIR_KEY).json
        path = f"/v1/stillroom/bulk_actions/{made['id']}"
        wait_for(lambda path=path: send(server, "GET", path, key=THEIR_KEY).json["status"] == "succeeded")
        assert send(server, "GET", path, key=THEIR_KEY).json["done"] == 0
    assert send(server, "GET", f"/v1/chat/completions/{ours}").json == before
    for asked in ({"filter": {}}, {"ids": [ours]}):
        assert send(server, "POST", "/v1/stillroom/completions/export", asked, key=THEIR_KEY).body == b""
        # The control: its own project is given it.
        assert ours.encode() in send(server, "POST", "/v1/stillroom/completions/export", asked).body


@pytest.mark.parametrize("path", ["deployments", "jobs"])
def test_what_is_watched_is_ones_own(shared: tuple[Server, dict[str, str]], path: str) -> None:
    server, _ = shared
    assert send(server, "GET", f"/v1/stillroom/{path}", key=server.key).json["data"]
    assert send(server, "GET", f"/v1/stillroom/{path}", key=THEIR_KEY).json["data"] == []


def test_an_overview_is_of_ones_own_project(shared: tuple[Server, dict[str, str]]) -> None:
    server, objects = shared
    ours = send(server, "GET", "/v1/stillroom/overview", key=server.key).json
    assert (ours["stored"], [each["name"] for each in ours["teachers"]]) == (1, ["gpt-4o"])
    theirs = send(server, "GET", "/v1/stillroom/overview", key=THEIR_KEY).json
    assert (theirs["stored"], theirs["teachers"], theirs["students"], theirs["agreement"]) == (0, [], [], None)
    names = [model["name"] for model in send(server, "GET", "/v1/stillroom/models", key=THEIR_KEY).json["data"]]
    assert names == ["gpt-4o", "scratch-small"]
    query = f"hyperparameters?model=scratch-small&training_file={objects['files']}"
    assert send(server, "GET", f"/v1/stillroom/{query}", key=THEIR_KEY).status == 400


def test_another_projects_things_cannot_be_evaluated(shared: tuple[Server, dict[str, str]]) -> None:
    server, objects = shared
    same = {"type": "string_check", "name": "a", "input": "{{ item.a }}", "reference": "x", "operation": "eq"}
    body = {"data_source_config": {"type": "logs"}, "testing_criteria": [same]}
    made = send(server, "POST", "/v1/evals", body, key=THEIR_KEY).json["id"]
    messages = {"type": "template", "template": [{"role": "user", "content": "a"}]}
    content = {"type": "file_content", "content": [{"item": {"a": "x"}}]}
    for source, more, param in (
        ({"type": "file_id", "id": objects["files"]}, {}, "data_source.source.id"),
        (content, {"model": "ft:ours", "input_messages": messages}, "data_source.model"),
        (content, {"model": "ours", "input_messages": messages}, "data_source.model"),
        (
            {"type": "stored_completions", "held_out_from": objects["fine_tuning/jobs"]},
            {},
            "data_source.source.held_out_from",
        ),
    ):
        asked = {"data_source": {"type": "completions", "source": source, **more}}
        refused = send(server, "POST", f"/v1/evals/{made}/runs", asked, key=THEIR_KEY)
        assert (refused.status, refused.error["param"]) == (400, param), refused.body
    drawn = {"data_source": {"type": "completions", "source": {"type": "stored_completions"}}}
    run = send(server, "POST", f"/v1/evals/{made}/runs", drawn, key=THEIR_KEY).json["id"]
    path = f"/v1/evals/{made}/runs/{run}"
    wait_for(lambda: send(server, "GET", path, key=THEIR_KEY).json["status"] == "failed")
    assert send(server, "GET", path, key=THEIR_KEY).json["error"]["code"] == "no_items"
    send(server, "DELETE", f"/v1/evals/{made}", key=THEIR_KEY)


def test_deployments_and_fine_tuned_models_are_neither_listed_nor_called(shared: tuple[Server, dict[str, str]]) -> None:
    server, _ = shared
    assert send(server, "GET", f"{ARM}?api-version=2025-09-01", key=THEIR_KEY).json["value"] == []
    names = [model["id"] for model in send(server, "GET", "/v1/models", key=THEIR_KEY).json["data"]]
    assert names == ["gpt-4o", "scratch-small"]
    for model in ("ours", "ft:ours"):
        body = b'{"model": "%s", "messages": [{"role": "user", "content": "hi"}]}' % model.encode()
        assert send(server, "POST", "/v1/chat/completions", body, key=THEIR_KEY).status == 404
    job = b'{"model": "scratch-small", "training_file": "%s"}' % shared[1]["files"].encode()
    assert send(server, "POST", "/v1/fine_tuning/jobs", job, key=THEIR_KEY).status == 400


def test_a_browser_sees_the_project_of_the_key_it_signed_in_with(shared: tuple[Server, dict[str, str]]) -> None:
    server, _ = shared
    signed_in = send(server, "POST", "/v1/stillroom/sessions", {"key": THEIR_KEY}, key=None)
    assert (signed_in.json["project"], signed_in.json["key_id"]) == (2, "key-2")
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    listed = send(server, "GET", "/v1/stillroom/keys", key=None, cookie=cookie).json["data"]
    assert [key["id"] for key in listed] == ["key-2"]
    assert send(server, "GET", "/v1/chat/completions", key=None, cookie=cookie).json["data"] == []
    token = send(server, "POST", "/v1/stillroom/sign_in_tokens", key=THEIR_KEY).json["token"]
    assert send(server, "POST", "/v1/stillroom/sessions", {"token": token}, key=None).json["project"] == 2
