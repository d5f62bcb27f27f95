"""The command line against a running server, as people and scripts use it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from openai import AuthenticationError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.support import Server


def capture(client: OpenAI, label: dict[str, str], count: int = 12) -> list[str]:
    """Stores so many chats; gives their ids."""
    return [
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "system", "content": "色を答える"}, {"role": "user", "content": f"色{number}"}],
            store=True,
            metadata=label,
        ).id
        for number in range(count)
    ]


def pair(label: dict[str, str]) -> str:
    return f"test={label['test']}"


# --- completions ------------------------------------------------------------------------------------


def test_completions_are_listed_newest_first(server: Server, client: OpenAI, label: dict[str, str]) -> None:
    made = capture(client, label, 3)
    printed = json.loads(server.cli("completions", "list", "--metadata", pair(label), "--json").stdout)
    assert [item["id"] for item in printed] == made[::-1]
    drawn = server.cli("completions", "list", "--metadata", pair(label), "--model", "gpt-4o", "--since", "1h").stdout
    assert all(completion_id in drawn for completion_id in made)
    assert "色0" in drawn
    few = server.cli("completions", "list", "--metadata", pair(label), "--limit", "2", "--json").stdout
    assert len(json.loads(few)) == 2


def test_a_completion_is_shown_as_a_conversation(server: Server, client: OpenAI, label: dict[str, str]) -> None:
    made = capture(client, label, 1)[0]
    text = server.cli("completions", "show", made).stdout
    assert text == "[system] 色を答える\n[user] 色0\n[assistant] 色0\n"
    shown = json.loads(server.cli("completions", "show", made, "--json").stdout)
    assert shown["id"] == made
    assert [message["role"] for message in shown["messages"]] == ["system", "user"]


def test_completions_are_exported_as_json_lines_oldest_first(
    server: Server, client: OpenAI, label: dict[str, str], tmp_path: Path
) -> None:
    made = capture(client, label, 3)
    path = tmp_path / "out.jsonl"
    server.cli("completions", "export", "--metadata", pair(label), "-o", str(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == made
    assert rows[1]["request"]["messages"][1]["content"] == "色1"
    assert rows[1]["metadata"] == label
    assert server.cli("completions", "export", "--metadata", pair(label)).stdout == path.read_text()
    examples = server.cli("completions", "export", "--metadata", pair(label), "--format", "training").stdout
    assert [json.loads(line)["messages"][2] for line in examples.splitlines()] == [
        {"role": "assistant", "content": f"色{n}"} for n in range(3)
    ]


def test_a_refused_export_leaves_no_file(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    refused = server.cli("completions", "export", "--format", "xml", "-o", str(path), check=False)
    assert refused.returncode == 1
    assert "'xml' is none of" in refused.stderr
    assert not path.exists()


def test_completions_are_tagged_by_filter(server: Server, client: OpenAI, label: dict[str, str]) -> None:
    capture(client, label, 3)
    done = server.cli("completions", "tag", "tone=dry", "by=色", "--metadata", pair(label), "--yes")
    assert done.stdout == "3 completions tagged.\n"
    assert [item.metadata for item in client.chat.completions.list(metadata=label)] == [
        {**label, "tone": "dry", "by": "色"}
    ] * 3
    server.cli("completions", "tag", "by=", "--metadata", pair(label), "--model", "gpt-4o", "--since", "1h", "--yes")
    assert client.chat.completions.list(metadata=label).data[0].metadata == {**label, "tone": "dry"}
    assert server.cli("completions", "tag", "tone=dry", "--yes", check=False).returncode != 0  # not all by accident
    many = [f"k{n}=v" for n in range(15)]
    left = server.cli("completions", "tag", *many, "--metadata", pair(label), "--yes").stdout
    assert left.startswith("0 completions tagged; 3 would have had more than 16 pairs")


def test_completions_are_deleted_by_id_and_by_filter(server: Server, client: OpenAI, label: dict[str, str]) -> None:
    made = capture(client, label, 3)
    assert server.cli("completions", "delete", made[0], "--yes").stdout == "1 completion deleted.\n"
    assert [item.id for item in client.chat.completions.list(metadata=label)] == made[1:]
    refused = server.cli("completions", "delete", "--yes", check=False)
    assert refused.returncode != 0  # with neither ids nor filters nothing is deleted
    done = server.cli("completions", "delete", "--metadata", pair(label), "--yes")
    assert done.stdout == "2 completions deleted.\n"
    assert client.chat.completions.list(metadata=label).data == []


@pytest.mark.parametrize("deed", [("delete",), ("tag", "tone=dry")])
def test_what_matches_nothing_is_said_without_asking(
    server: Server, label: dict[str, str], deed: tuple[str, ...]
) -> None:
    done = server.cli("completions", *deed, "--metadata", pair(label))
    assert (done.returncode, done.stdout) == (0, "")
    assert "No stored completions match." in done.stderr
    assert "?" not in done.stderr


# --- distill and jobs ---------------------------------------------------------------------------------


def test_distill_returns_at_once_with_a_job_whose_file_can_be_read(
    server: Server, client: OpenAI, label: dict[str, str]
) -> None:
    capture(client, label)
    done = server.cli("distill", "--student", "scratch-small", "--metadata", pair(label), "--suffix", "cli", "--json")
    job = json.loads(done.stdout)
    rows = [json.loads(line) for line in client.files.content(job["training_file"]).text.splitlines()]
    assert [row["messages"][-1]["content"] for row in rows] == [f"色{number}" for number in range(12)]
    cancelled = server.cli("jobs", "cancel", job["id"])
    assert job["id"] in cancelled.stdout
    assert client.fine_tuning.jobs.retrieve(job["id"]).status == "cancelled"
    watched = server.cli("jobs", "watch", job["id"], check=False)
    assert watched.returncode == 1
    assert "cancelled" in watched.stderr
    assert server.cli("jobs", "cancel", job["id"], check=False).returncode == 1


def test_distill_and_wait_prints_the_model_and_deploy_and_chat_use_it(
    server: Server, client: OpenAI, label: dict[str, str]
) -> None:
    capture(client, label)
    options = ("--metadata", pair(label), "--epochs", "1", "--seed", "1", "--model", "gpt-4o", "--wait")
    model = server.cli("distill", "--student", "scratch-small", *options).stdout.strip()
    assert model.startswith("ft:scratch-small:stillroom::")
    assert client.models.retrieve(model).id == model
    job = next(job for job in client.fine_tuning.jobs.list() if job.fine_tuned_model == model)
    assert (job.hyperparameters.n_epochs, job.seed) == (1, 1)
    assert "Succeeded" in server.cli("deploy", model, "--name", "by-cli", "--wait").stdout
    assert "by-cli" in server.cli("deployments", "list").stdout
    listed = json.loads(server.cli("deployments", "list", "--json").stdout)
    assert model in [deployment["properties"]["model"]["name"] for deployment in listed]
    wanted = client.chat.completions.create(
        model="by-cli", messages=[{"role": "user", "content": "色1"}], temperature=0
    )
    assert server.cli("chat", "by-cli", "色1").stdout == f"{wanted.choices[0].message.content}\n"
    refused = server.cli("models", "delete", model, check=False)
    assert refused.returncode == 1
    assert "by-cli" in refused.stderr
    server.cli("deployments", "delete", "by-cli")
    assert server.cli("deployments", "delete", "by-cli", check=False).returncode == 1
    server.cli("models", "delete", model)
    left = json.loads(server.cli("models", "list", "--json").stdout)
    assert model not in [left_model["id"] for left_model in left]


def test_distilling_too_few_says_how_many_there_are(server: Server, client: OpenAI, label: dict[str, str]) -> None:
    capture(client, label, 9)
    refused = server.cli("distill", "--student", "scratch-small", "--metadata", pair(label), check=False)
    assert refused.returncode == 1
    assert "9 completions" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_job_that_fails_while_waited_for_is_an_exit_code(
    server: Server, client: OpenAI, label: dict[str, str]
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    for number in range(10):
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": [{"type": "text", "text": str(number)}, image]}],  # type: ignore[list-item, misc]
            store=True,
            metadata=label,
        )
    failed = server.cli("distill", "--student", "scratch-small", "--metadata", pair(label), "--wait", check=False)
    assert failed.returncode == 1
    assert "image" in failed.stderr


def test_jobs_are_listed_and_shown(server: Server, job: FineTuningJob) -> None:
    assert job.id in server.cli("jobs", "list").stdout
    assert job.id in [listed["id"] for listed in json.loads(server.cli("jobs", "list", "--json").stdout)]
    shown = server.cli("jobs", "show", job.id).stdout
    assert "status: succeeded" in shown
    assert "The job has successfully completed" in shown
    whole = json.loads(server.cli("jobs", "show", job.id, "--json").stdout)
    assert len(whole["checkpoints"]) >= 2
    assert server.cli("jobs", "watch", job.id).stdout.strip() == whole["fine_tuned_model"]


def test_models_are_listed_and_shown(server: Server, job: FineTuningJob) -> None:
    listed = [model["id"] for model in json.loads(server.cli("models", "list", "--json").stdout)]
    assert {"gpt-4o", "scratch-small"} <= set(listed)
    assert json.loads(server.cli("models", "show", "scratch-small").stdout)["object"] == "model"
    assert server.cli("models", "show", "no/such model", check=False).returncode == 1


# --- chat, env, keys ------------------------------------------------------------------------------------


def test_chat_answers_one_question_or_holds_a_conversation(server: Server) -> None:
    assert server.cli("chat", "gpt-4o", "こんにちは [bold] :smile:").stdout == "こんにちは [bold] :smile:\n"
    held = subprocess.run(
        [sys.executable, "-m", "stillroom", "chat", "gpt-4o", "--data", str(server.data)],
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert held.stdout == "one\ntwo\n"
    assert server.cli("chat", "no-such", "hi", check=False).returncode == 1


@pytest.mark.parametrize("azure", [False, True])
def test_env_prints_exports_that_point_the_sdks_here(server: Server, azure: bool) -> None:
    lines = server.cli("env", "--shell", *(["--azure"] if azure else [])).stdout.splitlines()
    variables = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    assert all(line.startswith("export ") for line in lines)
    if azure:
        assert variables["IDENTITY_ENDPOINT"] == f"{server.url}/msi/token"
        assert variables["IDENTITY_HEADER"] == server.key
    made = "openai.AzureOpenAI()" if azure else "openai.OpenAI()"
    program = f"import openai; print([m.id for m in {made}.models.list()])"
    environment = {name: value for name, value in variables.items() if name not in ("SSL_CERT_FILE",)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "gpt-4o" in run.stdout


def test_a_key_is_made_used_listed_without_its_secret_and_revoked(server: Server) -> None:
    made = json.loads(server.cli("keys", "create", "for the app", "--json").stdout)
    client = OpenAI(base_url=f"{server.url}/v1", api_key=made["key"], max_retries=0)
    assert client.models.list().data
    listed = server.cli("keys", "list").stdout
    assert "for the app" in listed
    assert made["key"] not in listed
    server.cli("keys", "revoke", made["id"])
    with pytest.raises(AuthenticationError):
        client.models.list()
    assert server.cli("keys", "revoke", made["id"], check=False).returncode == 1


# --- without a server -----------------------------------------------------------------------------------


def test_without_a_server_a_command_says_how_to_start_one(tmp_path: Path) -> None:
    nobody = Server(tmp_path / "none")
    for command in (("models", "list"), ("jobs", "list"), ("env", "--shell"), ("chat", "gpt-4o", "hi")):
        refused = nobody.cli(*command, check=False)
        assert refused.returncode == 1
        assert "stillroom serve" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_wrong_options_are_refused_by_name(server: Server) -> None:
    for command, names in (
        (("completions", "list", "--metadata", "novalue"), "KEY=VALUE"),
        (("completions", "list", "--since", "yesterday"), "yesterday"),
    ):
        refused = server.cli(*command, check=False)
        assert refused.returncode == 2
        assert names in refused.stderr
