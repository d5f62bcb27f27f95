"""Idempotency-Key: a call that is repeated is answered, billed and stored once."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from openai import AzureOpenAI, BadRequestError, ConflictError, OpenAI

from stillroom.teachers.scripted import Hang, Reply, ScriptedTeacher, Status, echo
from tests.journeys.conftest import Raw
from tests.support import Server, wait_for


class LateRefusal:
    """A fault of the scripted teacher: an error after a while."""

    async def send(self, reply: Reply) -> Any:
        await asyncio.sleep(0.5)
        return await Status(code=400).send(reply)


@pytest.fixture
def key() -> str:
    return f"journey {uuid4().hex}"


def ask(client: OpenAI, key: str, text: str = "hi", **more: Any) -> tuple[bytes, bool]:
    """The answer's bytes, and whether they were there before."""
    answer = client.chat.completions.with_raw_response.create(
        model=more.pop("model", "gpt-4o"),
        messages=[{"role": "user", "content": text}],
        extra_headers={"Idempotency-Key": key},
        **more,
    )
    return answer.content, answer.headers.get("x-stillroom-replayed") == "true"


def events(raw: Raw) -> int:
    """How many answers the ledger has."""
    rows = raw("GET", "/v1/stillroom/usage?group_by=kind")[2]["data"]
    return sum(row["events"] for row in rows if row["kind"] == "answer")


def test_a_repeat_gets_the_same_bytes_and_is_asked_billed_and_stored_once(
    client: OpenAI, raw: Raw, teacher: ScriptedTeacher, label: dict[str, str], key: str
) -> None:
    asked, billed = teacher.calls, events(raw)
    first, replayed = ask(client, key, store=True, metadata=label)
    assert not replayed
    for _ in range(3):
        assert ask(client, key, store=True, metadata=label) == (first, True)
    assert (teacher.calls, events(raw)) == (asked + 1, billed + 1)
    (kept,) = client.chat.completions.list(metadata=label).data
    assert kept.id == json.loads(first)["id"]


def test_an_answer_that_is_not_stored_is_billed_when_it_is_given(client: OpenAI, raw: Raw, key: str) -> None:
    billed = events(raw)
    first, _ = ask(client, key)
    assert events(raw) == billed + 1
    assert ask(client, key) == (first, True)
    assert ask(client, key + "'")[0] != first
    assert events(raw) == billed + 2


def test_the_same_request_spelled_otherwise_is_the_same(client: OpenAI, raw: Raw, key: str) -> None:
    first, _ = ask(client, key, temperature=0.5, seed=7)
    body = b'{ "seed":7, "messages" : [{"content":"\\u0068i","role":"user"}],\n"temperature":0.5,"model":"gpt-4o" }'
    status, headers, again = raw("POST", "/v1/chat/completions", body, idempotency_key=key)
    assert (status, headers["x-stillroom-replayed"]) == (200, "true")
    assert again == json.loads(first)


def test_both_dialects_share_the_keys(client: OpenAI, azure: AzureOpenAI, key: str) -> None:
    first, _ = ask(client, key)
    assert ask(azure, key) == (first, True)


@pytest.mark.parametrize("other", [{"text": "ho"}, {"temperature": 0.1}, {"store": True}])
def test_the_key_of_another_request_is_refused(client: OpenAI, key: str, other: dict[str, Any]) -> None:
    ask(client, key)
    with pytest.raises(ConflictError, match="was used for another request") as refused:
        ask(client, key, **other)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert ask(client, key)[1]


@pytest.mark.parametrize("wrong", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_not_printable_ascii_is_refused(client: OpenAI, wrong: str) -> None:
    with pytest.raises(BadRequestError, match="1 to 255 printable ASCII characters"):
        ask(client, wrong)


def test_a_key_with_other_letters_is_refused(raw: Raw) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    status, _, answer = raw("POST", "/v1/chat/completions", body, idempotency_key="clé")
    assert (status, answer["error"]["param"]) == (400, "Idempotency-Key")


def test_the_longest_key_is_taken(client: OpenAI) -> None:
    longest = uuid4().hex.ljust(255, "~")
    assert not ask(client, longest)[1]
    assert ask(client, longest)[1]


def test_errors_are_not_kept(client: OpenAI, teacher: ScriptedTeacher, key: str) -> None:
    teacher.script(Status(code=400))
    with pytest.raises(BadRequestError):
        ask(client, key)
    assert not ask(client, key)[1]
    assert ask(client, key)[1]


def test_repeats_at_the_same_time_wait_for_the_first(client: OpenAI, teacher: ScriptedTeacher, key: str) -> None:
    asked = teacher.calls
    teacher.script(Hang(seconds=0.5))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(client, key), range(8)))
    assert teacher.calls == asked + 1
    assert len({body for body, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 7


def test_when_the_first_fails_one_of_those_who_wait_asks_again(
    client: OpenAI, teacher: ScriptedTeacher, key: str
) -> None:
    asked = teacher.calls
    teacher.script(LateRefusal())

    def attempt(_: int) -> tuple[bytes, bool] | None:
        try:
            return ask(client, key)
        except BadRequestError:
            return None

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(attempt, range(4)))
    assert teacher.calls == asked + 2
    assert answers.count(None) == 1
    assert len({answer[0] for answer in answers if answer}) == 1


def leave(server: Server, key: str, text: str) -> None:
    """Asks, and hangs up a moment later."""
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}).encode()
    address = urlsplit(server.url)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {server.key}\r\n"
    head += f"idempotency-key: {key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        time.sleep(0.2)


def test_an_answer_whose_caller_has_left_is_kept_for_his_next_try(
    server: Server, client: OpenAI, raw: Raw, teacher: ScriptedTeacher, key: str
) -> None:
    asked, billed = teacher.calls, events(raw)
    teacher.script(Hang(seconds=0.8))
    leave(server, key, "later")
    wait_for(lambda: events(raw) == billed + 1, seconds=10, pause=0.05)
    body, replayed = ask(client, key, "later")
    assert replayed
    assert json.loads(body)["choices"][0]["message"]["content"] == "later"
    assert (teacher.calls, events(raw)) == (asked + 1, billed + 1)


def test_a_stream_says_that_the_key_has_no_effect(client: OpenAI, teacher: ScriptedTeacher, key: str) -> None:
    asked = teacher.calls
    for _ in range(2):
        with client.chat.completions.with_streaming_response.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            extra_headers={"Idempotency-Key": key},
        ) as answer:
            assert "no effect on a streamed answer" in answer.headers["x-stillroom-warning"]
            assert "data: [DONE]" in list(answer.iter_lines())
    assert teacher.calls == asked + 2
    assert not ask(client, key)[1]


@pytest.fixture
def slow() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(echo) as scripted:
        yield scripted


def test_answers_nobody_waits_for_do_not_keep_the_server_from_stopping(slow: ScriptedTeacher, tmp_path: Path) -> None:
    with Server(tmp_path / "data", teachers={"gpt-4o": {"base_url": slow.url}}).start() as server:
        slow.script(Hang(seconds=60))
        leave(server, "left alone", "never")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
    assert "Traceback" not in server.log.read_text()
    assert "never retrieved" not in server.log.read_text()


def test_kept_answers_outlive_the_server(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", teachers={"gpt-4o": {"base_url": teacher.url}}).start()
    found = []
    for _ in range(2):
        with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
            found.append(ask(client, "twice"))
        server.kill()
        server.start()
    server.stop()
    assert found == [(found[0][0], False), (found[0][0], True)]
