"""The student host over its unix socket."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

HELLO = [{"role": "user", "content": "Hello, I was charged twice."}]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the host writes to its standard error."""
    return tmp_path_factory.mktemp("said") / "stderr"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, said: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    socket = tmp_path_factory.mktemp("host") / "s.sock"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "stillroom.student.serving.host", "--socket", str(socket)],
            stdin=subprocess.PIPE,
            stderr=stderr,
        )
    deadline = time.monotonic() + 60
    while not socket.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield process, str(socket)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 3


@asynccontextmanager
async def _client(host: tuple[Any, str]) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(path=host[1])
    async with aiohttp.ClientSession("http://student", connector=connector) as session:
        yield session


def _post(host: tuple[Any, str], path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async def post() -> tuple[int, Any]:
        async with _client(host) as client, client.post(path, json=body) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith("{") else text

    return asyncio.run(post())


def _get(host: tuple[Any, str], path: str) -> Any:
    async def get() -> Any:
        async with _client(host) as client, client.get(path) as response:
            return await response.json()

    return asyncio.run(get())


@pytest.fixture(scope="module")
def kyle(host: tuple[Any, str], trained_folder: Path) -> tuple[Any, str]:
    assert _post(host, "/attach", {"name": "kyle", "path": str(trained_folder)})[0] == 200
    return host


def _chat(host: tuple[Any, str], **body: Any) -> tuple[int, Any]:
    return _post(host, "/v1/chat/completions", {"model": "kyle", "messages": HELLO, "max_tokens": 12, **body})


def _chunks(text: str) -> list[Any]:
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n")[:-2]]


def test_it_is_healthy_and_counts(kyle: tuple[Any, str]) -> None:
    assert _get(kyle, "/health") == {"status": "ok"}
    assert "kyle" in _get(kyle, "/stats")["students"]


def test_a_completion_has_openais_shape(kyle: tuple[Any, str]) -> None:
    status, body = _chat(kyle, temperature=0)
    assert status == 200
    (choice,) = body["choices"]
    assert body["object"] == "chat.completion" and body["model"] == "kyle"
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"]
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_a_stream_says_what_the_completion_says(kyle: tuple[Any, str]) -> None:
    _, whole = _chat(kyle, temperature=0)
    _, text = _chat(kyle, temperature=0, stream=True, stream_options={"include_usage": True})
    *chunks, last = _chunks(text)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    heads = {(each["id"], each["created"], each["object"], each["system_fingerprint"]) for each in [*chunks, last]}
    assert len(heads) == 1 and "chat.completion.chunk" in heads.pop()


def test_usage_is_in_a_stream_only_when_asked_for(kyle: tuple[Any, str]) -> None:
    assert all("usage" not in chunk for chunk in _chunks(_chat(kyle, stream=True)[1]))


def test_choices_of_one_seed_differ_and_come_again(kyle: tuple[Any, str]) -> None:
    def texts() -> list[str]:
        _, body = _chat(kyle, n=3, seed=7, temperature=1.5)
        return [choice["message"]["content"] for choice in body["choices"]]

    first = texts()
    assert len(set(first)) > 1 and texts() == first


def test_logprobs_come_with_their_bytes(kyle: tuple[Any, str]) -> None:
    _, body = _chat(kyle, temperature=0, logprobs=True, top_logprobs=2, max_tokens=3)
    entries = body["choices"][0]["logprobs"]["content"]
    assert len(entries) == 3
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in entries)
    assert bytes(entries[0]["bytes"]).decode() == entries[0]["token"]


def test_parameters_without_meaning_for_a_student_are_ignored(kyle: tuple[Any, str]) -> None:
    status, _ = _chat(kyle, user="u", metadata={"a": "b"}, store=False, service_tier="auto", verbosity="low")
    assert status == 200


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"foo": 1}, None, "Unrecognized request argument supplied: foo"),
        ({"temperature": 3}, "temperature", "at most 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": -0.1}, "top_p", "at least 0"),
        ({"n": 9}, "n", "at most 8"),
        ({"n": True}, "n", "whole number"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": [{"role": "bard", "content": ""}]}, "messages", "bard"),
        ({"response_format": {"type": "json_object"}}, "response_format", "cannot enforce"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "forced"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"functions": []}, "functions", "tools"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "messages", "maximum context length"),
    ],
)
def test_a_wrong_parameter_is_a_400_that_names_it(
    kyle: tuple[Any, str], body: dict[str, Any], param: str | None, words: str
) -> None:
    for stream in (False, True):
        if stream and "stream_options" in body:
            continue
        status, answer = _chat(kyle, **body, stream=stream)
        assert status == 400
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert answer["error"]["param"] == param and words in answer["error"]["message"]


def test_unknown_models_and_folders_are_refused(kyle: tuple[Any, str], tmp_path: Path) -> None:
    status, answer = _chat(kyle, model="lyle")
    assert status == 404 and answer["error"]["code"] == "model_not_found"
    status, answer = _post(kyle, "/attach", {"name": "x", "path": str(tmp_path)})
    assert status == 400 and answer["error"]["code"] == "base_model_unusable"
    assert _post(kyle, "/detach", {"name": "x"})[0] == 404


def test_opening_a_student_draws_no_progress_bars_into_the_servers_log(kyle: tuple[Any, str], said: Path) -> None:
    assert "kyle" in _get(kyle, "/stats")["students"]  # it was opened
    assert "%|" not in said.read_text()


def test_a_client_that_leaves_frees_its_place(kyle: tuple[Any, str]) -> None:
    async def leave() -> None:
        async with _client(kyle) as client:
            bias = {str(token): -100 for token in range(3)}
            body = {
                "model": "kyle",
                "messages": HELLO,
                "max_tokens": 7000,
                "stream": True,
                "logit_bias": bias,
            }
            async with client.post("/v1/chat/completions", json=body) as response:
                await response.content.readline()
                response.close()
        async with _client(kyle) as client:
            for _ in range(200):
                async with client.get("/stats") as answer:
                    if not (await answer.json())["students"]["kyle"]["running"]:
                        return
                await asyncio.sleep(0.05)
        raise AssertionError("still running")

    asyncio.run(leave())
