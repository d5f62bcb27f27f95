"""One API in two dialects: prefixes, names, headers, versions and error words as official clients mix them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.identity import DefaultAzureCredential, get_bearer_token_provider
from openai import (
    AsyncOpenAI,
    AuthenticationError,
    AzureOpenAI,
    BadRequestError,
    ConflictError,
    NotFoundError,
    OpenAI,
)

from stillroom.teachers.scripted import ScriptedTeacher, Status
from tests.conftest import API_VERSION
from tests.journeys.conftest import Raw, await_end
from tests.support import Server

ODD_NAME = "org/model:x y"
HI: list[Any] = [{"role": "user", "content": "hi"}]
SCOPE = "https://cognitiveservices.azure.com/.default"


@pytest.fixture(scope="module")
def server(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that also has a teacher whose name is hard on routers."""
    teachers = {name: {"base_url": teacher.url} for name in ("gpt-4o", ODD_NAME)}
    with Server(tmp_path_factory.mktemp("dialects") / "data", teachers=teachers).start(tls=True) as running:
        yield running


KINDS: dict[str, Callable[[Server], OpenAI]] = {
    "v1": lambda server: OpenAI(base_url=f"{server.url}/v1", api_key=server.key),
    "v1 with a slash": lambda server: OpenAI(base_url=f"{server.url}/v1/", api_key=server.key),
    "openai/v1": lambda server: OpenAI(base_url=f"{server.url}/openai/v1/", api_key=server.key),
    "azure": lambda server: AzureOpenAI(azure_endpoint=server.url, api_key=server.key, api_version=API_VERSION),
    "azure deployment": lambda server: AzureOpenAI(
        azure_endpoint=server.url, azure_deployment="gpt-4o", api_key=server.key, api_version=API_VERSION
    ),
    "azure base_url": lambda server: AzureOpenAI(
        base_url=f"{server.url}/openai/v1/", api_key=server.key, api_version="preview"
    ),
    "azure base_url with deployment": lambda server: AzureOpenAI(
        base_url=f"{server.url}/openai/deployments/gpt-4o", api_key=server.key, api_version=API_VERSION
    ),
}
"""Every way in which people point the official clients somewhere."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_point_a_client_here_reaches_the_same_things(
    server: Server, kind: str, label: dict[str, str]
) -> None:
    client = KINDS[kind](server)
    made = client.chat.completions.create(model="gpt-4o", messages=HI, store=True, metadata=label)
    completions = client.chat.completions
    assert [item.id for item in completions.list(metadata=label)] == [made.id]
    assert completions.retrieve(made.id).metadata == label
    assert [message.content for message in completions.messages.list(made.id)] == ["hi"]
    assert completions.update(made.id, metadata={"a": "b"}).metadata == {**label, "a": "b"}
    file = client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
    assert file.id in [item.id for item in client.files.list()]
    assert client.files.delete(file.id).deleted
    assert isinstance(client.fine_tuning.jobs.list().data, list)
    assert "scratch-small" in [model.id for model in client.models.list()]
    assert completions.delete(made.id).deleted


def test_a_client_bound_to_a_deployment_may_send_any_model(server: Server, teacher: ScriptedTeacher) -> None:
    client = KINDS["azure deployment"](server)
    for model in ("whatever", None):
        answer = client.chat.completions.create(model=model, messages=HI)  # type: ignore[call-overload]
        assert answer.choices[0].message.content == "hi"
        assert teacher.requests[-1]["body"]["model"] == "gpt-4o"


@pytest.mark.parametrize("kind", ["v1", "openai/v1", "azure", "azure base_url"])
def test_names_with_slashes_and_spaces_work_in_every_place(server: Server, kind: str) -> None:
    client = KINDS[kind](server)
    assert client.chat.completions.create(model=ODD_NAME, messages=HI).choices[0].message.content == "hi"
    assert client.models.retrieve(ODD_NAME).id == ODD_NAME


@pytest.mark.parametrize("path", ["/v1/models", f"/openai/models?api-version={API_VERSION}", "/openai/v1/models"])
def test_both_kinds_of_key_header_work_in_both_dialects(server: Server, raw: Raw, path: str) -> None:
    assert raw("GET", path)[0] == 200
    assert raw("GET", path, authorization="", api_key=server.key)[0] == 200
    assert raw("GET", path, authorization="")[0] == 401
    assert raw("GET", path, authorization=f"Basic {server.key}")[0] == 401


def test_a_token_provider_of_azure_identity_works_with_both_clients(
    server: Server, identity: DefaultAzureCredential
) -> None:
    provider = get_bearer_token_provider(identity, SCOPE)
    azure = AzureOpenAI(azure_endpoint=server.url, azure_ad_token_provider=provider, api_version=API_VERSION)
    assert azure.chat.completions.create(model="gpt-4o", messages=HI).choices[0].message.content == "hi"
    v1 = OpenAI(base_url=f"{server.url}/openai/v1/", api_key=provider)
    assert v1.chat.completions.create(model="gpt-4o", messages=HI).choices[0].message.content == "hi"


def test_the_identity_endpoint_answers_as_azures_does(server: Server, raw: Raw) -> None:
    path = "/msi/token?api-version=2019-08-01&resource=https://cognitiveservices.azure.com"
    status, _, body = raw("GET", path, authorization="", x_identity_header=server.key)
    assert status == 200
    assert body["access_token"] == server.key
    assert body["token_type"] == "Bearer"
    assert body["resource"] == "https://cognitiveservices.azure.com"
    assert body["expires_on"].isdigit()
    assert raw("GET", path, authorization="", x_identity_header="wrong")[0] == 401
    status, _, body = raw("GET", path, authorization=f"Bearer {server.key}")
    assert status == 400 and "X-IDENTITY-HEADER" in json.dumps(body)


def test_a_wrong_key_is_refused_in_each_dialects_words(server: Server) -> None:
    v1 = OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong")
    with pytest.raises(AuthenticationError) as refused:
        v1.chat.completions.create(model="gpt-4o", messages=HI)
    assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")
    azure = AzureOpenAI(azure_endpoint=server.url, api_key="wrong", api_version=API_VERSION)
    with pytest.raises(AuthenticationError, match="Access denied due to invalid subscription key") as refused:
        azure.chat.completions.create(model="gpt-4o", messages=HI)
    assert refused.value.code == "401"


def test_an_unknown_model_is_refused_in_each_dialects_words(server: Server) -> None:
    with pytest.raises(NotFoundError) as refused:
        KINDS["v1"](server).chat.completions.create(model="no-such", messages=HI)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    with pytest.raises(NotFoundError, match="The API deployment for this resource does not exist") as refused:
        KINDS["azure"](server).chat.completions.create(model="no-such", messages=HI)
    assert refused.value.code == "DeploymentNotFound"


def test_azure_needs_an_api_version(raw: Raw) -> None:
    for path in ("/openai/models", "/openai/deployments/gpt-4o/chat/completions"):
        status, _, body = raw("GET", path)
        assert (status, body) == (404, {"error": {"code": "404", "message": "Resource not found"}})
    assert raw("GET", "/openai/v1/models")[0] == 200


@pytest.mark.parametrize("version", ["1999-01-01", "2024-10", "next", ""])
def test_an_api_version_that_never_was_is_refused(server: Server, version: str) -> None:
    client = AzureOpenAI(azure_endpoint=server.url, api_key=server.key, api_version=API_VERSION)
    with pytest.raises(BadRequestError, match="API version not supported") as refused:
        client.models.list(extra_query={"api-version": version})
    assert refused.value.code == "BadRequest"


@pytest.mark.parametrize("version", ["2023-05-15", "2024-10-21", "2025-04-01-preview", "v1", "preview", "latest"])
def test_every_api_version_that_was_is_taken(server: Server, version: str) -> None:
    client = AzureOpenAI(azure_endpoint=server.url, api_key=server.key, api_version=version)
    assert "gpt-4o" in [model.id for model in client.models.list()]


def test_unknown_paths_and_methods_are_errors_in_the_callers_dialect(raw: Raw) -> None:
    status, _, body = raw("GET", "/v1/no/such")
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")
    assert body["error"].keys() == {"message", "type", "param", "code"}
    status, _, body = raw("GET", f"/openai/no/such?api-version={API_VERSION}")
    assert (status, body["error"]) == (404, {"code": "404", "message": "Resource not found"})
    status, _, body = raw("PUT", "/v1/files")
    assert (status, body["error"]["type"]) == (405, "invalid_request_error")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"[]", None),
        (b'{"model": "gpt-4o"}', "messages"),
        (b'{"model": "gpt-4o", "messages": "hi"}', "messages"),
        (b'{"model": "gpt-4o", "messages": []}', "messages"),
        (b'{"messages": [{"role": "user", "content": "hi"}]}', "model"),
        (b'{"model": "gpt-4o", "temperature": NaN, "messages": [{}]}', None),
        (b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "\\ud800"}]}', None),
    ],
)
def test_a_request_that_cannot_be_read_is_a_400_that_says_why(raw: Raw, body: bytes, param: str | None) -> None:
    status, _, answer = raw("POST", "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert answer["error"]["message"]


def test_nul_is_refused_only_where_it_would_be_stored(client: OpenAI) -> None:
    text: list[Any] = [{"role": "user", "content": "a\0b"}]
    assert client.chat.completions.create(model="gpt-4o", messages=text).choices[0].message.content == "a\0b"
    with pytest.raises(BadRequestError, match="NUL"):
        client.chat.completions.create(model="gpt-4o", messages=text, store=True)


def test_a_teachers_two_429s_are_waited_out_and_a_lasting_one_is_passed_on(
    client: OpenAI, teacher: ScriptedTeacher, raw: Raw, label: dict[str, str]
) -> None:
    before = teacher.calls
    teacher.script(*[Status(code=429, headers={"retry-after-ms": "10"})] * 2)
    client.chat.completions.create(model="gpt-4o", messages=HI, store=True, metadata=label)
    assert teacher.calls - before == 3
    assert len(client.chat.completions.list(metadata=label).data) == 1
    for told in ({"retry-after": "0.01"}, {}):
        teacher.script(*[Status(code=429, headers=told)] * 3)
        status, headers, _ = raw("POST", "/v1/chat/completions", {"model": "gpt-4o", "messages": HI})
        assert status == 429
        assert "retry-after" in headers


def test_a_deterministic_conflict_is_not_retried_by_the_sdk(server: Server) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key=server.key)  # its two retries are on
    file = client.files.create(file=("broken.jsonl", b"{}\n"), purpose="fine-tune")
    job = await_end(client, client.fine_tuning.jobs.create(model="scratch-small", training_file=file.id).id)
    with pytest.raises(ConflictError) as refused:
        client.fine_tuning.jobs.cancel(job.id)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_every_answer_carries_a_request_id_and_azures_its_own_too(raw: Raw) -> None:
    _, headers, _ = raw("GET", "/v1/models")
    assert headers["x-request-id"].startswith("req_")
    _, headers, _ = raw("GET", f"/openai/models?api-version={API_VERSION}")
    assert headers["apim-request-id"] == headers["x-request-id"]
    _, headers, _ = raw("GET", "/v1/models", authorization="")
    assert headers["x-request-id"].startswith("req_")


def test_the_asynchronous_client_gets_the_same(server: Server, label: dict[str, str]) -> None:
    async def journey() -> str | None:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client:
            made = await client.chat.completions.create(model="gpt-4o", messages=HI, store=True, metadata=label)
            listed = [item.id async for item in client.chat.completions.list(metadata=label)]
            assert listed == [made.id]
            assert (await client.chat.completions.delete(made.id)).deleted
            return made.choices[0].message.content

    assert asyncio.run(journey()) == "hi"


def test_two_clients_that_differ_only_in_dialect_see_each_others_rows(server: Server, label: dict[str, str]) -> None:
    made = KINDS["azure"](server).chat.completions.create(model="gpt-4o", messages=HI, store=True, metadata=label)
    assert KINDS["v1"](server).chat.completions.retrieve(made.id).metadata == label
