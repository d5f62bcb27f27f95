"""Deploying a student with Azure's management SDK, over TLS, and calling it by the deployment's name."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from openai import APIStatusError, AzureOpenAI, ConflictError, NotFoundError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from stillroom.teachers.scripted import ScriptedTeacher
from tests.journeys.conftest import PLACE, Raw, deployment_of
from tests.support import Server

ASKED: list[Any] = [{"role": "user", "content": "thing 1"}]
ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a"


@pytest.fixture
def deployed(arm: CognitiveServicesManagementClient, job: FineTuningJob, label: dict[str, str]) -> Iterator[str]:
    """The name of a deployment of the finished job's model."""
    name = f"colours-{label['test'][:8]}"
    body: Any = deployment_of(job.fine_tuned_model or "")
    made = arm.deployments.begin_create_or_update(*PLACE, name, body).result()
    assert made.properties is not None
    assert made.properties.provisioning_state == "Succeeded"
    yield name
    arm.deployments.begin_delete(*PLACE, name).result()


def test_a_model_is_deployed_listed_called_and_removed(
    arm: CognitiveServicesManagementClient, azure: AzureOpenAI, job: FineTuningJob
) -> None:
    body: Any = deployment_of(job.fine_tuned_model or "") | {"tags": {"team": "sea"}}
    made = arm.deployments.begin_create_or_update(*PLACE, "whole", body).result()
    assert made.name == "whole"
    assert made.tags == {"team": "sea"}
    assert made.type == "Microsoft.CognitiveServices/accounts/deployments"
    assert made.sku is not None
    assert (made.sku.name, made.sku.capacity) == ("standard", 1)
    got = arm.deployments.get(*PLACE, "whole")
    assert got.properties is not None
    assert got.properties.model is not None
    assert got.properties.model.name == job.fine_tuned_model
    assert "whole" in [deployment.name for deployment in arm.deployments.list(*PLACE)]
    answer = azure.chat.completions.create(model="whole", messages=ASKED, temperature=0, max_tokens=8)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    arm.deployments.begin_delete(*PLACE, "whole").result()
    with pytest.raises(ResourceNotFoundError):
        arm.deployments.get(*PLACE, "whole")
    with pytest.raises(NotFoundError) as refused:
        azure.chat.completions.create(model="whole", messages=ASKED)
    assert refused.value.code == "DeploymentNotFound"


def test_a_deployment_answers_alike_in_both_dialects_whole_and_streamed(
    azure: AzureOpenAI, client: OpenAI, deployed: str
) -> None:
    options: dict[str, Any] = {"model": deployed, "messages": ASKED, "temperature": 0, "max_tokens": 8}
    whole = azure.chat.completions.create(**options).choices[0].message.content
    assert client.chat.completions.create(**options).choices[0].message.content == whole
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert deployed in [model.id for model in client.models.list()]
    assert deployed not in [model.id for model in azure.models.list()]


def test_students_answers_are_stored_like_any(client: OpenAI, deployed: str, label: dict[str, str]) -> None:
    answer = client.chat.completions.create(
        model=deployed, messages=ASKED, temperature=0, max_tokens=8, store=True, metadata=label
    )
    kept = client.chat.completions.retrieve(answer.id)
    assert (kept.choices, kept.usage, kept.metadata) == (answer.choices, answer.usage, label)


def test_a_student_refuses_an_argument_it_does_not_know(client: OpenAI, deployed: str) -> None:
    with pytest.raises(APIStatusError) as refused:
        client.chat.completions.create(model=deployed, messages=ASKED, extra_body={"invented_tomorrow": 1})
    assert refused.value.status_code == 400
    assert "invented_tomorrow" in refused.value.message


def test_checkpoints_are_deployed_by_name_and_by_id(
    arm: CognitiveServicesManagementClient, azure: AzureOpenAI, job: FineTuningJob
) -> None:
    checkpoint = azure.fine_tuning.jobs.checkpoints.list(job.id).data[1]
    for name in (checkpoint.fine_tuned_model_checkpoint, checkpoint.id):
        body: Any = deployment_of(name)
        made = arm.deployments.begin_create_or_update(*PLACE, "checkpoint", body).result()
        assert made.properties is not None
        assert made.properties.model is not None
        assert made.properties.model.name == checkpoint.fine_tuned_model_checkpoint
        answer = azure.chat.completions.create(model="checkpoint", messages=ASKED, max_tokens=4)
        assert answer.model.endswith(f":ckpt-step-{checkpoint.step_number}")
    arm.deployments.begin_delete(*PLACE, "checkpoint").result()


def test_sku_and_tags_can_be_changed(arm: CognitiveServicesManagementClient, deployed: str) -> None:
    change: Any = {"tags": {"team": "sky"}, "sku": {"name": "GlobalStandard", "capacity": 5}}
    changed = arm.deployments.begin_update(*PLACE, deployed, change).result()
    assert changed.tags == {"team": "sky"}
    assert changed.sku is not None
    assert (changed.sku.name, changed.sku.capacity) == ("GlobalStandard", 5)


def test_a_deployment_takes_over_a_teachers_name_and_gives_it_back(
    arm: CognitiveServicesManagementClient, client: OpenAI, job: FineTuningJob
) -> None:
    body: Any = deployment_of(job.fine_tuned_model or "")
    arm.deployments.begin_create_or_update(*PLACE, "gpt-4o", body).result()
    try:
        answer = client.chat.completions.create(model="gpt-4o", messages=ASKED, max_tokens=4)
        assert answer.model.startswith("ft:scratch-small:")
    finally:
        arm.deployments.begin_delete(*PLACE, "gpt-4o").result()
    answer = client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert answer.model == "scripted-triage"


def test_a_teacher_can_be_deployed_under_another_name(
    arm: CognitiveServicesManagementClient, azure: AzureOpenAI
) -> None:
    body: Any = deployment_of("gpt-4o")
    arm.deployments.begin_create_or_update(*PLACE, "my_teacher.2", body).result()
    answer = azure.chat.completions.create(model="my_teacher.2", messages=ASKED)
    assert answer.choices[0].message.content == "thing 1"
    arm.deployments.begin_delete(*PLACE, "my_teacher.2").result()


@pytest.mark.parametrize("name", ["my%20teacher", "a%2Fb", "ft,a", "%C3%BC", "%3Cb%3E", "%00", "a%0A", "n" * 65])
def test_a_deployments_name_is_one_that_needs_no_escaping_in_an_address(raw: Raw, name: str) -> None:
    path = f"{ACCOUNT}/deployments/{name}?api-version=2024-10-21"
    status, _, body = raw("PUT", path, {"properties": {"model": {"format": "OpenAI", "name": "gpt-4o"}}})
    assert status == 400
    assert "Invalid deployment name" in body["error"]["message"]
    assert "1 to 64 letters" in body["error"]["message"]


def test_a_deployed_model_cannot_be_deleted(client: OpenAI, job: FineTuningJob, deployed: str) -> None:
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    with pytest.raises(ConflictError, match=re.escape(deployed)) as refused:
        client.models.delete(name or "")
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_what_cannot_be_deployed_is_refused_in_the_resource_managers_words(
    arm: CognitiveServicesManagementClient,
) -> None:
    for name in ("no-such-model", "scratch-small"):
        body: Any = deployment_of(name)
        with pytest.raises(HttpResponseError, match=name) as refused:
            arm.deployments.begin_create_or_update(*PLACE, "never", body)
        assert refused.value.status_code == 400
    with pytest.raises(ResourceNotFoundError):
        arm.deployments.get(*PLACE, "never")
    arm.deployments.begin_delete(*PLACE, "never").result()  # ARM's deletes are silent about what is not there


def test_the_resource_manager_is_open_to_the_admin_key_on_every_path(server: Server, raw: Raw) -> None:
    for path in (ACCOUNT, f"{ACCOUNT}/deployments", f"{ACCOUNT.upper()}/DEPLOYMENTS"):
        assert raw("GET", f"{path}?api-version=2024-10-21")[0] == 200
        status, _, body = raw("GET", f"{path}?api-version=2024-10-21", authorization="Bearer wrong")
        assert (status, body["error"]["code"]) == (401, "AuthenticationFailed")


def test_the_account_its_keys_models_and_usages_are_there(
    arm: CognitiveServicesManagementClient, server: Server, job: FineTuningJob
) -> None:
    account = arm.accounts.get(*PLACE)
    assert account.name == PLACE[1]
    assert account.properties is not None
    assert account.properties.endpoint is not None
    key = arm.accounts.list_keys(*PLACE).key1
    azure = AzureOpenAI(azure_endpoint=server.url, api_key=key, api_version="2024-10-21")
    assert azure.chat.completions.create(model="gpt-4o", messages=ASKED).choices[0].message.content == "thing 1"
    for models in (arm.accounts.list_models(*PLACE), [item.model for item in arm.models.list("anywhere")]):
        names = [model.name for model in models if model is not None]
        assert {"gpt-4o", "scratch-small", job.fine_tuned_model} <= set(names)
    assert [usage.current_value for usage in arm.usages.list("anywhere")]


def test_a_wrong_token_is_refused_by_the_resource_manager(
    server: Server, arm: CognitiveServicesManagementClient
) -> None:
    class Wrong:
        def get_token(self, *_: str, **__: Any) -> Any:
            from azure.core.credentials import AccessToken

            return AccessToken("wrong", 4_102_444_800)

    assert server.tls_url is not None
    stranger = CognitiveServicesManagementClient(Wrong(), "s", base_url=server.tls_url)
    with pytest.raises(ClientAuthenticationError):
        list(stranger.deployments.list(*PLACE))


def test_the_openai_client_works_over_tls_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.ca is not None
    monkeypatch.setenv("SSL_CERT_FILE", server.ca)
    client = OpenAI(base_url=f"{server.tls_url}/v1", api_key=server.key)
    assert client.chat.completions.create(model="gpt-4o", messages=ASKED).choices[0].message.content == "thing 1"


def test_a_server_with_idle_tls_clients_stops_at_once(
    teacher: ScriptedTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path / "data", teachers={"gpt-4o": {"base_url": teacher.url}}).start(tls=True) as server:
        assert server.ca is not None
        monkeypatch.setenv("SSL_CERT_FILE", server.ca)
        client = OpenAI(base_url=f"{server.tls_url}/v1", api_key=server.key)
        client.models.list()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15  # TLS alone would wait 30 seconds for the client's goodbye
