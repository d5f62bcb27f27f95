"""What journeys share: labels that keep tests apart, a finished job, a raw client, a management client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from azure.identity import DefaultAzureCredential
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from openai import AzureOpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.support import Server, example_lines, wait_for

ENDED = ("succeeded", "failed", "cancelled")
PLACE = ("my-group", "my-account")  # any will do

Raw = Callable[..., tuple[int, dict[str, str], Any]]


@pytest.fixture
def label() -> dict[str, str]:
    """Metadata that nobody else's completions carry."""
    return {"test": uuid4().hex}


@pytest.fixture
def raw(server: Server) -> Raw:
    """Requests as no SDK would send them: (status, headers, body), errors included."""

    def send(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        given = {"authorization": f"Bearer {server.key}", "content-type": "application/json", **named}
        request = Request(server.url + path, data=data, method=method, headers={k: v for k, v in given.items() if v})
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), _parsed(answer.read())
        except HTTPError as error:
            with error:
                return error.code, dict(error.headers), _parsed(error.read())

    return send


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except ValueError:
        return data


@pytest.fixture
def identity(server: Server, monkeypatch: pytest.MonkeyPatch) -> DefaultAzureCredential:
    """Entra ID's usual credential, pointed here by its two environment variables."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", server.key)
    return DefaultAzureCredential()


@pytest.fixture
def arm(
    server: Server, identity: DefaultAzureCredential, monkeypatch: pytest.MonkeyPatch
) -> CognitiveServicesManagementClient:
    """Azure's management SDK over TLS, as `stillroom env --azure` sets it up."""
    assert server.tls_url is not None and server.ca is not None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.ca)
    return CognitiveServicesManagementClient(identity, "my-subscription", base_url=server.tls_url, polling_interval=0)


@pytest.fixture(scope="session")
def job(server: Server) -> FineTuningJob:
    """A job that has succeeded, as Azure's users start one: three epochs over twelve easy examples."""
    with AzureOpenAI(azure_endpoint=server.url, api_key=server.key, api_version="2024-10-21") as client:
        file = client.files.create(file=("colours.jsonl", example_lines(12)), purpose="fine-tune")
        made = client.fine_tuning.jobs.create(
            model="scratch-small",
            training_file=file.id,
            validation_file=file.id,
            hyperparameters={"n_epochs": 3},
            suffix="colours",
            seed=7,
        )
        ended = await_end(client, made.id)
    assert ended.status == "succeeded", ended.error
    return ended


def await_end(client: Any, job_id: str) -> FineTuningJob:
    """The job once it has ended, however."""

    def ended() -> FineTuningJob | None:
        found: FineTuningJob = client.fine_tuning.jobs.retrieve(job_id)
        return found if found.status in ENDED else None

    found: FineTuningJob = wait_for(ended, seconds=120)
    return found


def deployment_of(model: str) -> dict[str, Any]:
    """The body that deploys a model, as Azure's documents have it."""
    return {
        "sku": {"name": "standard", "capacity": 1},
        "properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}},
    }
