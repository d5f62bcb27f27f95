"""Jobs that report to Weights & Biases, as OpenAI's SDK asks for it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.journeys.conftest import await_end
from tests.support import Server, example_lines
from tests.wandb_server import WandbServer

KEY = "0123456789" * 4
TICKETS: Any = {"type": "wandb", "wandb": {"project": "tickets", "name": "first", "tags": ["support"]}}
HIDES_WANDB = """
import sys

class Hidden:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name == "wandb" else self.finder.find_spec(name, *rest)

sys.meta_path[:] = map(Hidden, sys.meta_path)
"""


@pytest.fixture(scope="module")
def wandb() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running


@pytest.fixture(scope="module")
def reporting(wandb: WandbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose key for W&B lies in a file of its owner's."""
    folder = tmp_path_factory.mktemp("reporting")
    (folder / "key").write_text(KEY + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", wandb.url)
        patch.setenv("HOME", str(folder))
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.delenv("WANDB_MODE", raising=False)
        with Server(folder / "data", training_wandb_api_key=f"file:{folder / 'key'}").start() as running:
            yield running


@pytest.fixture(scope="module")
def reporter(reporting: Server) -> Iterator[OpenAI]:
    url = f"{reporting.url}/v1"
    with OpenAI(base_url=url, api_key=reporting.key, max_retries=0, _strict_response_validation=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def reported(reporter: OpenAI) -> FineTuningJob:
    ended = await_end(reporter, _start(reporter, [TICKETS]).id)
    assert ended.status == "succeeded", ended.error
    return ended


def _start(client: OpenAI, integrations: Any) -> FineTuningJob:
    file = client.files.create(file=("training.jsonl", example_lines(12)), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model="scratch-small",
        training_file=file.id,
        hyperparameters={"n_epochs": 3, "batch_size": 2},
        integrations=integrations,
    )


def test_the_job_shows_its_integration_as_openai_does(reporter: OpenAI, reported: FineTuningJob) -> None:
    assert reported.integrations is not None
    (integration,) = reported.integrations
    asked = {"project": "tickets", "name": "first", "entity": None, "tags": ["support"]}
    assert integration.to_dict() == {"type": "wandb", "wandb": asked}
    assert reporter.fine_tuning.jobs.list().data[0].integrations == reported.integrations


def test_every_step_of_the_job_is_at_wandb_under_the_jobs_id(
    reporter: OpenAI, reported: FineTuningJob, wandb: WandbServer
) -> None:
    run = wandb.runs[reported.id]
    assert wandb.steps(reported.id) == list(range(1, 19))
    assert (run["project"], run["displayName"]) == ("tickets", "first")
    assert run["tags"] == ["support", "stillroom/finetune", "stillroom/scratch-small", f"stillroom/{reported.id}"]
    losses = {
        event.data["step"]: event.data["train_loss"]  # type: ignore[index]
        for event in reporter.fine_tuning.jobs.list_events(reported.id, limit=100)
        if event.type == "metrics"
    }
    assert {line["_step"]: line["train_loss"] for line in run["history"]} == pytest.approx(losses)


def test_the_jobs_events_say_where_the_run_is(reporter: OpenAI, reported: FineTuningJob, wandb: WandbServer) -> None:
    told = [event.message for event in reporter.fine_tuning.jobs.list_events(reported.id, limit=100)]
    assert f"W&B shows this run at {wandb.url}/somebody/tickets/runs/{reported.id}" in told


def test_the_key_is_on_no_disk_and_in_no_log(reporting: Server, reported: FineTuningJob) -> None:
    files = [path for path in reporting.data.rglob("*") if path.is_file()] + [reporting.log]
    assert reporting.data / "runs" / reported.id / "log.txt" in files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_job_succeeds_while_wandb_is_down_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: FineTuningJob
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # takes connections and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("WANDB_MODE", raising=False)
        with Server(tmp_path / "data") as server, OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client:
            ended = await_end(client, _start(client, [TICKETS]).id)
            told = [(event.level, event.message) for event in client.fine_tuning.jobs.list_events(ended.id, limit=100)]
    assert ended.status == "succeeded", ended.error
    assert ("warn", "W&B has not answered within 12 s of the run's end.") in told


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([{"type": "mlflow", "mlflow": {}}], "The integration 'mlflow' is not supported; 'wandb' is the only one."),
        ([{"type": "wandb"}], "Invalid 'integrations[0]': Object missing required field `wandb`."),
        ([{"type": "wandb", "wandb": {}}], "missing required field `project` - at `$.wandb`"),
        ([{"type": "wandb", "wandb": {"project": "a", "team": "b"}}], "unknown field `team`"),
        ([{"type": "wandb", "wandb": {"project": 5}}], "Expected `str`, got `int`"),
        (
            [{"type": "wandb", "wandb": {"project": "a/b"}}],
            "'integrations[0].wandb.project': expected a name without any of",
        ),
        (
            [{"type": "wandb", "wandb": {"project": "a", "name": "x" * 129}}],
            "wandb.name': expected 1 to 128 printable letters",
        ),
        (
            [{"type": "wandb", "wandb": {"project": "a", "tags": ["x" * 65]}}],
            "wandb.tags[0]': expected 1 to 64 printable",
        ),
        ([{"type": "wandb", "wandb": {"project": "a", "name": "x\ny"}}], "wandb.name': expected 1 to 128 printable"),
        ([TICKETS, TICKETS], "two of them name the same project"),
        ([TICKETS] * 6, "6 of them; at most 5"),
        ({"type": "wandb"}, "expected a list"),
    ],
)
def test_an_integration_that_cannot_be_is_refused_by_name(reporter: OpenAI, asked: Any, words: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        _start(reporter, asked)
    assert refused.value.param == "integrations"
    assert words in refused.value.message


def test_without_a_key_the_remedy_is_named(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "data", training_wandb_api_key="env:NOBODY_SET_THIS") as server,
        OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client,
    ):
        with pytest.raises(BadRequestError, match="set WANDB_API_KEY in the server's environment") as refused:
            _start(client, [TICKETS])
        assert refused.value.param == "integrations"
        assert _start(client, []).integrations == []


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDES_WANDB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with (
        Server(tmp_path / "data") as server,
        OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client,
        pytest.raises(BadRequestError, match=r"pip install 'stillroom\[wandb\]'"),
    ):
        _start(client, [TICKETS])
