"""A base model with weights of its own answers beside the students that are made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import torch
from openai import AzureOpenAI, NotFoundError, OpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer

from stillroom.student.chats.examples import read_rows
from tests.journeys.conftest import deployment_of
from tests.support import Server, example_lines, wait_for
from tests.units.student.conftest import save_tiny_base

ASKED: list[Any] = [{"role": "user", "content": "thing 7"}]
DEPLOYMENTS = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 in a folder."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "rows.jsonl").write_bytes(example_lines(30))
    return save_tiny_base(folder / "model", read_rows(folder / "rows.jsonl"), "qwen3")


@pytest.fixture(scope="module")
def own(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows the base as `tiny`, at 1 and 2 USD per million tokens."""
    students = {"tiny": {"path": str(base), "price": {"input": 1.0, "output": 2.0}}}
    with Server(tmp_path_factory.mktemp("own") / "data", students=json.dumps(students)) as running:
        yield running


@pytest.fixture
def sdk(own: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{own.url}/v1", api_key=own.key, max_retries=0) as opened:
        yield opened


def request(server: Server, method: str, path: str, body: Any = None) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(server.url + path, data=data, method=method, headers=headers), timeout=60) as answer:
        return dict(json.loads(answer.read() or b"{}"))


def test_a_base_answers_under_its_own_name_as_transformers_would(sdk: OpenAI, base: Path) -> None:
    answer = sdk.chat.completions.create(model="tiny", messages=ASKED, temperature=0, max_tokens=12)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**prompt, do_sample=False, max_new_tokens=12, pad_token_id=0)[
        0, prompt["input_ids"].shape[1] :
    ]
    assert answer.model == "tiny"
    assert answer.choices[0].message.content == tokenizer.decode(said, skip_special_tokens=True)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == prompt["input_ids"].shape[1]


def test_its_tokens_are_counted_at_the_students_price(sdk: OpenAI, own: Server) -> None:
    def counted() -> tuple[int, int, float]:
        usage = request(own, "GET", "/v1/stillroom/usage")["data"]
        rows = [row for row in usage if (row["kind"], row["model"]) == ("answer", "tiny")]
        return (rows[0]["prompt_tokens"], rows[0]["completion_tokens"], rows[0]["cost_usd"]) if rows else (0, 0, 0.0)

    before = counted()
    used = sdk.chat.completions.create(model="tiny", messages=ASKED, max_tokens=5).usage
    assert used is not None
    prompt, completion, cost = wait_for(lambda: (now := counted()) != before and now)
    assert (prompt - before[0], completion - before[1]) == (used.prompt_tokens, used.completion_tokens)
    assert cost == pytest.approx((prompt * 1.0 + completion * 2.0) / 1e6)


def test_a_base_of_random_weights_is_refused_with_the_reason(sdk: OpenAI) -> None:
    with pytest.raises(NotFoundError, match=r"random weights.*fine-tune it"):
        sdk.chat.completions.create(model="scratch-small", messages=ASKED)


def test_a_base_is_listed_and_azure_calls_it_by_a_deployment_alone(own: Server, sdk: OpenAI) -> None:
    assert {"tiny", "scratch-small"} <= {model.id for model in sdk.models.list()}
    with AzureOpenAI(azure_endpoint=own.url, api_key=own.key, api_version="2024-10-21", max_retries=0) as azure:
        can = {m.id: (m.model_extra or {})["capabilities"]["inference"] for m in azure.models.list()}
        assert (can["tiny"], can["scratch-small"]) == (True, False)
        with pytest.raises(NotFoundError):
            azure.chat.completions.create(model="tiny", messages=ASKED)
        path = f"{DEPLOYMENTS}/small?api-version=2025-09-01"
        request(own, "PUT", path, deployment_of("tiny"))
        wait_for(lambda: request(own, "GET", path)["properties"]["provisioningState"] == "Succeeded")
        answer = azure.chat.completions.create(model="small", messages=ASKED, temperature=0, max_tokens=4)
        assert answer.model == "tiny"
        request(own, "DELETE", path)
        with pytest.raises(NotFoundError):
            azure.chat.completions.create(model="small", messages=ASKED)
