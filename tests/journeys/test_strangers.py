"""What people stumbled over when they tried it first."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from stillroom.teachers.scripted import ScriptedTeacher
from tests.support import Server, example_lines, wait_for

PRIVATE = b"Answer with the colour."  # in every row of `example_lines`


@pytest.fixture(scope="module")
def other(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A second server, with a teacher of another name."""
    server = Server(tmp_path_factory.mktemp("other") / "data", teachers={"other-teacher": {"base_url": teacher.url}})
    return server


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stillroom", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STILLROOM_")}
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=False)


def test_a_data_folder_that_is_named_wins_over_the_server_of_the_environment(server: Server, other: Server) -> None:
    with other.start():
        exported = {"STILLROOM_URL": server.url, "STILLROOM_API_KEY": server.key}
        assert "other-teacher" in run("models", "list", "--data", str(other.data), **exported).stdout
        # The control: without the flag the environment names the server.
        assert "gpt-4o" in run("models", "list", **exported).stdout


def test_commands_for_a_named_server_need_no_readable_configuration(server: Server, tmp_path: Path) -> None:
    (tmp_path / "stillroom.toml").write_text("this is no TOML")
    config = str(tmp_path / "stillroom.toml")
    exported = {"STILLROOM_URL": server.url, "STILLROOM_API_KEY": server.key, "STILLROOM_CONFIG": config}
    assert "gpt-4o" in run("models", "list", **exported).stdout
    # The control: without the server's name the configuration must be read.
    assert "not valid TOML" in run("models", "list", STILLROOM_CONFIG=config).stderr


def test_a_job_that_has_ended_leaves_no_copy_of_the_training_data(server: Server, client: OpenAI) -> None:
    file = client.files.create(file=("private.jsonl", example_lines(10)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="scratch-small",
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )
    folder = server.data / "runs" / job.id
    wait_for((folder / "training.jsonl").exists)
    assert list(files_with(PRIVATE, folder))  # the control: it is found where it lies
    wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded")
    # The folder is tidied after the job's end is known, one entry after another.
    wait_for(lambda: not list(files_with(PRIVATE, folder)) and not (folder / "checkpoints").exists())
    # What was done and measured stays.
    assert {"report.md", "run.json", "metrics.csv", "log.txt"} <= {path.name for path in folder.iterdir()}


def files_with(text: bytes, folder: Path) -> Iterator[Path]:
    """Those a text lies in, of a folder that may be emptied meanwhile."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            if text in path.read_bytes():
                yield path


def test_a_refused_distillation_leaves_no_file_behind(server: Server, client: OpenAI) -> None:
    for number in range(10):
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": f"question {number}"}],
            store=True,
            metadata={"for": "refused"},
        )
    before = {file.id for file in client.files.list()}
    done = server.cli("distill", "--student", "no-such-base", "--metadata", "for=refused", check=False)
    assert done.returncode != 0
    assert "no-such-base" in done.stderr
    assert {file.id for file in client.files.list()} == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[teachers.gpt-4.1]\nbase_url = "http://127.0.0.1:1/v1"', "must be quoted"),
        ('[teachers.t]\nbase_ur = "http://127.0.0.1:1/v1"', "base_url"),
        ('[teachers.t]\nkind = "azur"\nbase_url = "http://x/v1"', "Allowed are: openai, azure"),
        ('log_level = "loud"', "debug, info"),
        ("[gateway]\nattempts = 0", "[gateway]"),
        ('[students.s]\npath = "./nowhere"', "no folder ./nowhere"),
        ('[teachers."ft:x"]\nbase_url = "http://127.0.0.1:1/v1"', "belongs to students"),
        ('organization = "my org"', "my org"),
        ('[teachers.t]\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "env:NOT_SET_ANYWHERE"', "NOT_SET_ANYWHERE"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_says_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "stillroom.toml"
    config.write_text(text)
    done = run("serve", "--config", str(config), "--data", str(tmp_path / "data"), "--port", "0")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_export_to_nowhere_is_told_in_one_line(server: Server) -> None:
    done = server.cli("completions", "export", "-o", "/no/such/folder/x.jsonl", check=False)
    assert done.returncode != 0
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_base_model_is_told_from_one_that_does_not_exist(client: OpenAI) -> None:
    with pytest.raises(Exception, match="is a base model"):
        client.chat.completions.create(model="scratch-small", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(Exception, match="not a fine-tuned model"):
        client.models.delete("gpt-4o")
