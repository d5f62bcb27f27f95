"""A fine-tuned model leaves the server as files, by command and by request; a changed one is neither served nor exported."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from openai import APIStatusError, AzureOpenAI, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.journeys.conftest import PLACE, Raw, deployment_of
from tests.support import Server, wait_for

EXPORTS = "/v1/stillroom/exports"
HELLO: list[Any] = [{"role": "user", "content": "thing 1"}]


def _ended(raw: Raw, export_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = raw("GET", f"{EXPORTS}/{export_id}")[2]
        return found if found["status"] in ("succeeded", "failed") else None

    found: dict[str, Any] = wait_for(ended, seconds=120)
    return found


def _begin(raw: Raw, model: str, **order: str) -> tuple[int, Any]:
    status, _, body = raw("POST", f"/v1/stillroom/models/{model}/exports", order)
    return status, body


def test_a_command_exports_a_model_and_leaves_nothing_on_the_server(
    server: Server, job: FineTuningJob, raw: Raw, tmp_path: Path
) -> None:
    to = tmp_path / "new" / "folder"
    model = job.fine_tuned_model or ""
    done = server.cli("models", "export", model, "--format", "safetensors", "--to", str(to))
    assert done.stdout == f"{to}\n"
    assert re.search(r"32 conversations, the same token ids, 100.0% of \d+ tokens the same", done.stderr)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= {
        path.name for path in to.iterdir()
    }
    assert [path.name for path in to.parent.iterdir()] == ["folder"]
    assert raw("GET", EXPORTS)[2]["data"] == []
    assert list((server.data / "runs").glob("export-*")) == []


def test_a_checkpoint_is_exported_by_its_name_with_colons(
    server: Server, client: OpenAI, job: FineTuningJob, tmp_path: Path
) -> None:
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[1].fine_tuned_model_checkpoint
    assert ":ckpt-step-" in checkpoint
    to = tmp_path / "gguf"
    command = ("models", "export", checkpoint, "--format", "gguf", "--precision", "q8_0", "--to", str(to), "--json")
    told = json.loads(server.cli(*command).stdout)
    assert (told["status"], told["format"], told["precision"]) == ("succeeded", "gguf", "q8_0")
    assert told["agreement"]["conversations"] == 32 and told["folder"] == str(to)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in to.iterdir()}
    assert found == {file["name"]: file["sha256"] for file in told["files"]}
    (file,) = to.glob("*.gguf")
    assert file.read_bytes()[:4] == b"GGUF" and file.name.endswith("-q8_0.gguf")


def test_commands_say_what_cannot_be_exported_and_write_nothing(
    server: Server, job: FineTuningJob, tmp_path: Path
) -> None:
    model = job.fine_tuned_model or ""
    for name, kind, words in (
        (model, "adapter", "has no adapter: all of its weights were trained"),
        (model, "onnx", "'onnx' is none of safetensors, adapter, gguf"),
        ("scratch-small", "gguf", "was not fine-tuned here"),
        ("no/such:model", "gguf", "The model 'no/such:model' does not exist"),
    ):
        refused = server.cli("models", "export", name, "--format", kind, "--to", str(tmp_path / "to"), check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert words in refused.stderr and "Traceback" not in refused.stderr
    (tmp_path / "mine").write_text("mine")
    taken = server.cli("models", "export", model, "--format", "gguf", "--to", str(tmp_path / "mine"), check=False)
    assert taken.returncode == 2 and "is there already" in taken.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_is_made_watched_fetched_and_removed_by_requests(
    raw: Raw, server: Server, job: FineTuningJob
) -> None:
    status, begun = _begin(raw, job.fine_tuned_model or "", format="gguf")
    assert (status, begun["object"], begun["precision"]) == (200, "stillroom.export", "f16")
    assert begun["status"] in ("waiting", "running")
    early, _, refusal = raw("GET", f"{EXPORTS}/{begun['id']}/content")
    assert (early, refusal["error"]["code"]) == (409, "conflict")
    export = _ended(raw, begun["id"])
    assert export["status"] == "succeeded" and export["progress"]["stage"] == "checking"
    assert export["expires_at"] > export["finished_at"] >= export["created_at"]
    status, headers, archive = raw("GET", f"{EXPORTS}/{begun['id']}/content")
    assert (status, headers["content-type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        sizes = {member.name: member.size for member in opened}
    assert sizes == {file["name"]: file["bytes"] for file in export["files"]}
    assert raw("DELETE", f"{EXPORTS}/{begun['id']}")[2]["deleted"] is True
    assert raw("GET", f"{EXPORTS}/{begun['id']}")[0] == 404
    assert list((server.data / "runs").glob("export-*")) == []


def test_an_export_under_way_can_be_stopped_and_a_project_has_four_at_most(
    raw: Raw, server: Server, job: FineTuningJob
) -> None:
    begun = [_begin(raw, job.fine_tuned_model or "", format="gguf")[1]["id"] for _ in range(4)]
    status, refusal = _begin(raw, job.fine_tuned_model or "", format="gguf")
    assert (status, refusal["error"]["code"]) == (429, "rate_limit_exceeded")
    for export in begun:
        assert raw("DELETE", f"{EXPORTS}/{export}")[0] == 200
    assert raw("GET", EXPORTS)[2]["data"] == []
    assert list((server.data / "runs").glob("export-*")) == []


@contextmanager
def _changed(server: Server, job: FineTuningJob, step: int) -> Iterator[None]:
    """A checkpoint whose chat template is another one, as if it had always been that."""
    folder = server.data / "blobs" / "models" / f"{job.id}-step-{step}"
    names = ("chat_template.jinja", "stillroom.json")
    before = {name: (folder / name).read_text() for name in names}
    template = before["chat_template.jinja"].replace("assistant\\n", "helper\\n")
    (folder / "chat_template.jinja").write_text(template)
    manifest = json.loads(before["stillroom.json"])
    manifest["sha256"]["chat_template.jinja"] = hashlib.sha256(template.encode()).hexdigest()
    (folder / "stillroom.json").write_text(json.dumps(manifest))
    try:
        yield
    finally:
        for name, text in before.items():
            (folder / name).write_text(text)


DIFFERENCE = r"does not behave as it was trained: token \d+ stands instead of \d+ at position \d+ of the prompt of conversation 1\."


def test_a_student_that_was_changed_is_neither_deployed_nor_called_nor_exported(
    server: Server,
    client: OpenAI,
    azure: AzureOpenAI,
    arm: CognitiveServicesManagementClient,
    raw: Raw,
    job: FineTuningJob,
) -> None:
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[-1]
    name = checkpoint.fine_tuned_model_checkpoint
    with _changed(server, job, checkpoint.step_number):
        path = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments/changed"
        raw("PUT", f"{path}?api-version=2025-09-01", deployment_of(name))

        def failed() -> Any:
            made = raw("GET", f"{path}?api-version=2025-09-01")[2]["properties"]
            return made if made["provisioningState"] == "Failed" else None

        made = wait_for(failed, seconds=60)
        assert re.search(DIFFERENCE, made["provisioningError"]["message"])
        for called in (
            lambda: azure.chat.completions.create(model="changed", messages=HELLO),
            lambda: client.chat.completions.create(model="changed", messages=HELLO),
        ):
            with pytest.raises(APIStatusError, match=DIFFERENCE) as refused:
                called()
            assert refused.value.status_code == 503
        with pytest.raises(APIStatusError, match=DIFFERENCE) as refused:
            client.chat.completions.create(model=name, messages=HELLO, stream=True)
        assert (refused.value.status_code, refused.value.code) == (503, "student_differs")
        assert refused.value.response.headers["x-should-retry"] == "false"
        export = _ended(raw, _begin(raw, name, format="safetensors")[1]["id"])
        assert (export["status"], export["error"]["code"]) == ("failed", "student_differs")
        assert re.search(DIFFERENCE, export["error"]["message"])
        assert raw("GET", f"{EXPORTS}/{export['id']}/content")[0] == 409
        raw("DELETE", f"{EXPORTS}/{export['id']}")
    arm.deployments.begin_delete(*PLACE, "changed").result()
    assert (
        client.chat.completions.create(model=name, messages=HELLO, max_tokens=3).choices[0].message.content is not None
    )
    assert re.search(rf"student {re.escape(name)} loaded; \d+ tokens compared", server.log.read_text())
