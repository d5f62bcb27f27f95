"""What belongs to one project does not exist for the keys of another."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from stillroom.api import routes
from stillroom.teachers.scripted import ScriptedTeacher
from tests.faults.wire import send
from tests.support import Server, example_lines

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
        database.execute("INSERT INTO projects VALUES (2, 'other', 0)")
        digest = hashlib.sha256(THEIR_KEY.encode()).hexdigest()
        database.execute("INSERT INTO api_keys VALUES ('key-2', 2, 'other', ?, 'sk', 0, NULL)", (digest,))
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
    return {
        "chat/completions": completion.id,
        "files": file.id,
        "fine_tuning/jobs": client.fine_tuning.jobs.create(model="scratch-small", training_file=file.id).id,
        "models": "ft:ours",
        "stillroom/keys": client.get("/stillroom/keys", cast_to=dict[str, Any])["data"][0]["id"],
    }


def object_routes() -> list[routes.Route]:
    return [route for route in (*routes.BOTH_DIALECTS, *routes.OWN) if "{" in route.path]


@pytest.mark.parametrize("route", object_routes(), ids=lambda route: f"{route.method} {route.path}")
def test_another_projects_object_is_not_found(shared: tuple[Server, dict[str, str]], route: routes.Route) -> None:
    server, objects = shared
    kind = route.path.split("/{")[0]
    path = f"/v1/{kind}/{objects[kind]}{route.path.partition('}')[2]}"
    body = b'{"metadata": {"a": "b"}}' if route.method == "POST" else None
    answer = send(server, route.method, path, body, key=THEIR_KEY)
    assert answer.status == 404, answer.body
    # The control: for its own project it is there (deleting is left out, it would end the test's objects).
    if route.method == "GET":
        assert send(server, "GET", path).status == 200


@pytest.mark.parametrize("path", ["chat/completions", "files", "fine_tuning/jobs", "stillroom/keys", "stillroom/usage"])
def test_lists_hold_ones_own_things_only(shared: tuple[Server, dict[str, str]], path: str) -> None:
    server, _ = shared
    theirs = send(server, "GET", f"/v1/{path}", key=THEIR_KEY).json["data"]
    ours = send(server, "GET", f"/v1/{path}", key=server.key).json["data"]
    assert ours
    assert [item["id"] for item in theirs] == (["key-2"] if path == "stillroom/keys" else [])


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
