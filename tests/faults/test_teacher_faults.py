"""A teacher that is down, slow, rude or broken: what the caller gets, and what is kept."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from openai import APIError, OpenAI

from stillroom.teachers.scripted import (
    BadJson,
    CloseAtOnce,
    CutStream,
    Drip,
    EndStreamWithoutDone,
    Fault,
    GzipBomb,
    Hang,
    Html,
    HugeLine,
    RefuseStreamOptions,
    Reply,
    ScriptedTeacher,
    Status,
    StreamError,
    echo,
)
from tests.faults.wire import (
    Answer,
    chat,
    connect,
    descriptors,
    payloads,
    question,
    raw,
    request_bytes,
    resident_bytes,
    send,
    stored,
    text_of,
)
from tests.support import Server, free_port, wait_for

MEGABYTE = 1024 * 1024
FIRST_TOKEN_SECONDS = 1.0
TOTAL_SECONDS = 3.0
LONG = "word " * 30


@dataclass(frozen=True, kw_only=True)
class Events:
    """These events in place of a stream's, or this body in place of an answer's."""

    pieces: tuple[bytes, ...]

    async def send(self, reply: Reply) -> web.StreamResponse:
        return await reply.send(self.pieces)


@pytest.fixture(scope="module")
def wise() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(echo) as teacher:
        yield teacher


@pytest.fixture(scope="module")
def slow() -> Iterator[ScriptedTeacher]:
    """A teacher whose every chunk takes a while."""
    with ScriptedTeacher(echo, token_seconds=0.05) as teacher:
        yield teacher


@pytest.fixture(scope="module")
def hasty(wise: ScriptedTeacher, slow: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for no one: a second for the first token, three for the whole."""
    teachers = {
        "wise": {"base_url": wise.url, "price": {"input": 1, "output": 1}},
        "slow": {"base_url": slow.url},
        "azure": {"kind": "azure", "endpoint": wise.azure_endpoint},
        "down": {"base_url": f"http://127.0.0.1:{free_port()}/v1"},
    }
    times = {"gateway_first_token_seconds": FIRST_TOKEN_SECONDS, "gateway_total_seconds": TOTAL_SECONDS}
    sizes = {"gateway_answer_bytes": 24 * MEGABYTE}
    folder = tmp_path_factory.mktemp("hasty") / "data"
    with Server(folder, teachers=teachers, **times, **sizes).start() as running:
        yield running


@pytest.fixture(autouse=True)
def right_again(wise: ScriptedTeacher, slow: ScriptedTeacher) -> Iterator[None]:
    yield
    wise.script_lasting(None)
    slow.script_lasting(None)


def ask(server: Server, text: str = "hello", **more: Any) -> Answer:
    return chat(server, text, **{"model": "wise", **more})


def ledger(server: Server) -> list[dict[str, Any]]:
    """The ledger's rows, oldest first."""
    with sqlite3.connect(f"file:{server.data}/stillroom.db?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM ledger ORDER BY id")]
    connection.close()
    return rows


def status_of(server: Server, of: str) -> str | None:
    """The one stored completion of a test: None when there is none, else its status."""
    found = stored(server, of=of)
    assert len(found) <= 1
    return found[0].get("status", "completed") if found else None


# --- before the first byte ----------------------------------------------------------------------------


def test_a_teacher_that_is_down_is_502_and_named(hasty: Server) -> None:
    for stream in (False, True):
        answer = ask(hasty, model="down", stream=stream, store=True, metadata={"of": "down"})
        assert answer.status == 502
        assert answer.error["code"] == "upstream_unreachable"
        assert "'down'" in answer.error["message"]
    assert status_of(hasty, "down") is None


@pytest.mark.parametrize("stream", [False, True])
def test_two_429s_then_an_answer_are_three_calls_and_one_row(
    hasty: Server, wise: ScriptedTeacher, stream: bool
) -> None:
    before = wise.calls
    wise.script(Status(code=429, headers={"retry-after-ms": "10"}), Status(code=429))
    name = f"429 {stream}"
    assert ask(hasty, stream=stream, store=True, metadata={"of": "429", "kind": name.replace(" ", "-")}).status == 200
    assert wise.calls - before == 3
    assert len(stored(hasty, kind=name.replace(" ", "-"))) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_lasting_429_is_passed_on_with_its_retry_after(hasty: Server, wise: ScriptedTeacher, stream: bool) -> None:
    limits = {"retry-after": "17", "x-ratelimit-remaining-requests": "0"}
    wise.script_lasting(Status(code=429, headers=limits))
    before = wise.calls
    answer = ask(hasty, stream=stream)
    assert answer.status == 429
    assert answer.error["code"] == "rate_limit_exceeded"
    assert {name: answer.headers[name] for name in limits} == limits
    assert wise.calls - before == 1, "17 seconds are the caller's to wait"


def test_a_429_without_retry_after_is_tried_three_times(hasty: Server, wise: ScriptedTeacher) -> None:
    wise.script_lasting(Status(code=429))
    before = wise.calls
    answer = ask(hasty)
    assert (answer.status, wise.calls - before) == (429, 3)
    assert answer.headers["retry-after"]


@pytest.mark.parametrize("fault", [Status(code=500), Status(code=503), CloseAtOnce()], ids=repr)
def test_passing_trouble_is_hidden_from_the_caller(hasty: Server, wise: ScriptedTeacher, fault: Fault) -> None:
    wise.script(fault)
    before = wise.calls
    assert ask(hasty).status == 200
    assert wise.calls - before == 2


def test_lasting_500s_are_passed_on_after_three_tries(hasty: Server, wise: ScriptedTeacher) -> None:
    wise.script_lasting(Status(code=500))
    before = wise.calls
    answer = ask(hasty)
    assert (answer.status, wise.calls - before) == (500, 3)
    assert answer.error["message"] == "The scripted teacher was told to fail."


def test_a_teachers_400_is_passed_on_at_once(hasty: Server, wise: ScriptedTeacher) -> None:
    error = {
        "message": "too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    wise.script(Status(code=400, body={"error": error}))
    before = wise.calls
    answer = ask(hasty, store=True, metadata={"of": "400"})
    assert (answer.status, answer.error, wise.calls - before) == (400, error, 1)
    assert status_of(hasty, "400") is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_teacher_key_is_502_and_says_whose_key(hasty: Server, wise: ScriptedTeacher, status: int) -> None:
    for path, body in (
        ("/v1/chat/completions", question(model="wise")),
        ("/openai/deployments/wise/chat/completions?api-version=2024-10-21", question()),
    ):
        wise.script(Status(code=status))
        answer = send(hasty, "POST", path, body)
        assert answer.status == 502
        assert "teacher refused the API key" in answer.error["message"]
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Html(),
        BadJson(),
        Status(code=200, body={"object": "list", "data": []}),
        Status(code=200, body=b"[]"),
        Status(code=200, body=b""),
        Status(code=302, headers={"location": "http://127.0.0.1:9/"}),
        Status(code=204),
        GzipBomb(bytes=50 * MEGABYTE),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_what_is_no_completion_is_502(hasty: Server, wise: ScriptedTeacher, fault: Fault, stream: bool) -> None:
    wise.script(fault)
    answer = ask(hasty, stream=stream, store=True, metadata={"of": "no-completion"})
    assert answer.status == 502, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert status_of(hasty, "no-completion") is None


ODD = [
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}], "usage": {"prompt_tokens": "7"}},
    {"choices": [{"index": 0, "message": {"content": "x"}}], "usage": {"prompt_tokens": 10**30}},
    {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 7, "completion_tokens": "3"}},
    {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 7, "prompt_tokens_details": [1]}},
    {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -7}},
    {"choices": [{"message": {"content": ["x"]}}], "usage": [], "id": 5, "created": "now", "model": None},
    {"choices": [{"message": {"content": "\0"}}], "id": "\0"},
]


@pytest.mark.parametrize("body", ODD, ids=lambda body: json.dumps(body)[:60])
def test_an_answer_with_odd_figures_is_passed_on_and_kept(
    hasty: Server, wise: ScriptedTeacher, body: dict[str, Any]
) -> None:
    before = len(ledger(hasty))
    wise.script(Status(code=200, body=body))
    answer = ask(hasty, store=True)
    assert answer.status == 200, answer.body
    kept = send(hasty, "GET", f"/v1/chat/completions/{answer.json['id']}")
    assert kept.status == 200
    assert kept.json["choices"] == body["choices"]
    row = ledger(hasty)[before]
    assert 0 <= row["prompt_tokens"] < 1000
    assert 0 <= row["completion_tokens"] < 1000


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": ["x"]},
        {"choices": [{"index": [0], "delta": {"content": "x"}}]},
        {"choices": [{"index": 10**12, "delta": {"content": "x"}}]},
        {"choices": [{"index": 0, "delta": "x"}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 10**9}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": "x"}}]},
        {"choices": 5},
        [],
    ],
    ids=json.dumps,
)
def test_a_chunk_of_the_wrong_shape_ends_the_stream_with_an_error(
    hasty: Server, wise: ScriptedTeacher, chunk: Any
) -> None:
    good = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"begun"}}]}\n\n'
    wise.script(Events(pieces=(good, b"data: " + json.dumps(chunk).encode() + b"\n\n", b"data: [DONE]\n\n")))
    of = f"shape{abs(hash(json.dumps(chunk)))}"
    answer = ask(hasty, stream=True, store=True, metadata={"of": of})
    assert answer.status == 200
    assert "error" in json.loads(payloads(answer.body)[-1])
    assert status_of(hasty, of) == "incomplete"


def test_a_chunk_with_odd_values_in_the_right_shape_is_passed_on(hasty: Server, wise: ScriptedTeacher) -> None:
    delta = {"content": "a", "function_call": 5, "x": {"y": 1}, "tool_calls": [{"index": 0, "function": {"name": 7}}]}
    odd = {
        "choices": [{"index": 0, "delta": delta, "logprobs": "x", "finish_reason": 5}],
        "usage": {"prompt_tokens": "x"},
    }
    wise.script(Events(pieces=(b"data: " + json.dumps(odd).encode() + b"\n\n", b"data: [DONE]\n\n")))
    answer = ask(hasty, stream=True, store=True, metadata={"of": "odd-chunk"})
    assert json.loads(payloads(answer.body)[0])["choices"] == odd["choices"]
    assert status_of(hasty, "odd-chunk") == "completed"


# --- slow teachers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_teacher_that_never_begins_is_504_after_the_first_token_time(
    hasty: Server, wise: ScriptedTeacher, stream: bool
) -> None:
    wise.script(Hang(seconds=20))
    before, began = wise.calls, time.monotonic()
    answer = ask(hasty, stream=stream)
    spent = time.monotonic() - began
    assert answer.status == 504
    assert answer.error["code"] == "upstream_timeout"
    assert FIRST_TOKEN_SECONDS <= spent < FIRST_TOKEN_SECONDS + 1.5
    assert wise.calls - before == 1, "its time is spent"
    assert ask(hasty).status == 200


def test_a_dripping_answer_is_cut_by_the_total_time(hasty: Server, wise: ScriptedTeacher) -> None:
    wise.script(Drip(seconds=0.1))
    began = time.monotonic()
    answer = ask(hasty)
    assert answer.status == 504
    assert TOTAL_SECONDS <= time.monotonic() - began < TOTAL_SECONDS + 1.5


def test_a_stream_whose_headers_come_but_no_event_is_504_too(hasty: Server, wise: ScriptedTeacher) -> None:
    wise.script(Hang(seconds=20, after_chunks=0))
    began = time.monotonic()
    answer = ask(hasty, stream=True)
    assert answer.status == 504
    assert time.monotonic() - began < FIRST_TOKEN_SECONDS + 1.5


def test_a_stream_that_takes_too_long_ends_with_an_error_and_is_kept_as_incomplete(
    hasty: Server, wise: ScriptedTeacher
) -> None:
    wise.script(Hang(seconds=20, after_chunks=3))
    began = time.monotonic()
    answer = ask(hasty, LONG, stream=True, store=True, metadata={"of": "too-long"})
    assert TOTAL_SECONDS <= time.monotonic() - began < TOTAL_SECONDS + 1.5
    assert answer.status == 200
    assert json.loads(payloads(answer.body)[-1])["error"]["code"] == "upstream_timeout"
    assert status_of(hasty, "too-long") == "incomplete"


# --- broken streams -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [CutStream(after_chunks=4), EndStreamWithoutDone(after_chunks=4), StreamError(after_chunks=4)], ids=repr
)
def test_a_broken_stream_ends_with_an_error_event_and_is_kept_as_incomplete(
    hasty: Server, wise: ScriptedTeacher, fault: Fault
) -> None:
    of = type(fault).__name__
    wise.script(fault)
    answer = ask(hasty, LONG, stream=True, store=True, metadata={"of": of})
    events = payloads(answer.body)
    assert "[DONE]" not in events
    assert set(json.loads(events[-1])["error"]) == {"message", "type", "param", "code"}
    (kept,) = stored(hasty, of=of)
    assert kept["status"] == "incomplete"
    assert kept["choices"][0]["finish_reason"] is None
    assert kept["choices"][0]["message"]["content"] == text_of(answer.body) != ""
    # The control: the same question, undisturbed.
    whole = ask(hasty, LONG, stream=True, store=True, metadata={"of": f"whole{of}"})
    assert payloads(whole.body)[-1] == "[DONE]"
    assert text_of(whole.body) == LONG
    assert status_of(hasty, f"whole{of}") == "completed"


def test_the_sdk_raises_when_a_stream_breaks(hasty: Server, wise: ScriptedTeacher) -> None:
    client = OpenAI(base_url=f"{hasty.url}/v1", api_key=hasty.key, max_retries=0)
    wise.script(CutStream(after_chunks=4))
    with pytest.raises(APIError):
        list(client.chat.completions.create(**{**question(LONG, model="wise"), "stream": True}))
    client.close()


def test_a_stream_that_only_lacks_done_is_whole(hasty: Server, wise: ScriptedTeacher) -> None:
    chunks = len(payloads(ask(hasty, "a b", stream=True).body)) - 1
    wise.script(EndStreamWithoutDone(after_chunks=chunks))
    answer = ask(hasty, "a b", stream=True, store=True, metadata={"of": "no-done"})
    assert payloads(answer.body)[-1] == "[DONE]"
    assert status_of(hasty, "no-done") == "completed"


def test_one_of_two_choices_finished_is_not_whole(hasty: Server, wise: ScriptedTeacher) -> None:
    one = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
    wise.script(Events(pieces=(one,)))
    ask(hasty, stream=True, store=True, n=2, metadata={"of": "two"})
    assert status_of(hasty, "two") == "incomplete"


def test_incomplete_completions_are_never_selected(hasty: Server, wise: ScriptedTeacher) -> None:
    for number in range(11):
        wise.script(CutStream(after_chunks=4) if number == 5 else None)
        ask(hasty, f"{number} {LONG}", stream=True, store=True, metadata={"pick": "me"})
    assert [c.get("status") for c in stored(hasty, pick="me")].count("incomplete") == 1
    body = {"filter": {"metadata": {"pick": "me"}}}
    made = send(hasty, "POST", "/v1/stillroom/selections", body).json
    assert made["training_examples"] == 10
    assert made["skipped"] == {"incomplete": 1}
    content = send(hasty, "GET", f"/v1/files/{made['training_file']['id']}/content").body.decode()
    assert [json.loads(line)["messages"][0]["content"][:2].strip() for line in content.splitlines()] == [
        str(n) for n in range(11) if n != 5
    ]
    (cut,) = [c["id"] for c in stored(hasty, pick="me") if c.get("status") == "incomplete"]
    assert send(hasty, "POST", "/v1/stillroom/selections", {"ids": [cut]}).status == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_without_end_takes_little_memory(hasty: Server, wise: ScriptedTeacher, stream: bool) -> None:
    ask(hasty)
    before = resident_bytes(hasty.pid)
    most = before
    for _ in range(2):
        wise.script(HugeLine(bytes=60 * MEGABYTE))
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, hasty, stream=stream)
            while not asked.done():
                most = max(most, resident_bytes(hasty.pid))
                time.sleep(0.01)
        answer = asked.result()
        assert answer.status in (502, 504), "too long, or, on a slow machine, too late"
    assert most - before < 96 * MEGABYTE
    assert ask(hasty).status == 200


# --- usage --------------------------------------------------------------------------------------------


def test_the_usage_chunk_is_there_only_when_asked_for(hasty: Server, wise: ScriptedTeacher) -> None:
    without = [json.loads(p) for p in payloads(ask(hasty, stream=True).body)[:-1]]
    assert all(chunk["choices"] for chunk in without)
    with_usage = ask(hasty, stream=True, stream_options={"include_usage": True})
    last = json.loads(payloads(with_usage.body)[-2])
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 2)
    assert all(request["body"]["stream_options"] == {"include_usage": True} for request in wise.requests[-2:])


def test_a_teacher_that_refuses_stream_options_is_asked_without_and_its_usage_estimated(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with ScriptedTeacher(echo) as old:
        old.script_lasting(RefuseStreamOptions())
        folder = tmp_path_factory.mktemp("old") / "data"
        with Server(folder, teachers={"old": {"base_url": old.url}}).start() as server:
            for _ in range(2):
                answer = ask(server, LONG, model="old", stream=True, store=True)
                assert text_of(answer.body) == LONG
            assert ["stream_options" in request["body"] for request in old.requests] == [True, False, False]
            plain = ask(server, LONG, model="old", store=True)
            assert plain.status == 200
            rows = ledger(server)
            assert [bool(row["estimated"]) for row in rows] == [True, True, False]
            exact = plain.json["usage"]["prompt_tokens"]
            assert 0.5 * exact < rows[0]["prompt_tokens"] < 2 * exact
            assert all(row["completion_tokens"] > 0 for row in rows)


def direct(teacher: ScriptedTeacher, body: dict[str, Any]) -> bytes:
    """What the teacher sends without anyone between."""
    data = json.dumps(body).encode()
    asked = urllib.request.Request(f"{teacher.url}/chat/completions", data, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return bytes(answer.read())


def same_call(body: bytes, number: bytes) -> bytes:
    """A teacher's answer as if it had been its call of that number, at time 0."""
    numbered = re.sub(rb"chatcmpl-scripted\d+", b"chatcmpl-scripted" + number, body)
    return re.sub(rb'"created":\d+', b'"created":0', numbered)


@pytest.mark.parametrize("text", [LONG, '日本語 😀 \u2028 \\u0041 "quoted" data: [DONE]', ""])
def test_unstored_answers_are_the_teachers_bytes(hasty: Server, wise: ScriptedTeacher, text: str) -> None:
    body = question(text, model="wise", temperature=0.1, odd={"b": [1.0, 1e5, "é"], "a": None})
    assert same_call(send(hasty, "POST", "/v1/chat/completions", body).body, b"1") == same_call(
        direct(wise, body), b"1"
    )
    stream = {**body, "stream": True, "stream_options": {"include_usage": True}}
    ours = send(hasty, "POST", "/v1/chat/completions", stream).body
    assert same_call(ours, b"1") == same_call(direct(wise, stream), b"1")
    del stream["stream_options"]
    lines = [line for line in ours.split(b"\n\n") if b'"choices":[]' not in line]
    stripped = send(hasty, "POST", "/v1/chat/completions", stream).body
    assert same_call(stripped, b"1") == same_call(b"\n\n".join(lines), b"1")


def test_a_stream_with_windows_line_ends_and_comments_passes_unchanged(hasty: Server, wise: ScriptedTeacher) -> None:
    pieces = (
        b": keep-alive\r\n\r\n",
        b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"x"}}]}\r\n\r\ndata: {"id":"a",',
        b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\r\n',
        b"\r\n: still here\r\n\r\ndata: [DONE]\r\n\r\n",
    )
    wise.script(Events(pieces=pieces))
    answer = ask(hasty, stream=True)
    assert answer.body == b"".join(pieces).removeprefix(b": keep-alive\r\n\r\n")


def test_our_id_replaces_the_teachers_only_in_stored_answers(hasty: Server) -> None:
    for stream in (False, True):
        kept = ask(hasty, stream=stream, store=True).body
        passed = ask(hasty, stream=stream).body
        assert b"chatcmpl-scripted" not in kept
        assert b"chatcmpl-scripted" in passed


# --- callers that leave -------------------------------------------------------------------------------


def test_a_caller_who_leaves_ends_the_teachers_work_within_a_second(hasty: Server, slow: ScriptedTeacher) -> None:
    before = slow.cancelled
    with raw(
        hasty, request_bytes(hasty, question(LONG, model="slow", stream=True, store=True, metadata={"of": "left"}))
    ) as caller:
        received = b""
        while received.count(b"data: ") < 3:
            received += caller.recv(65536)
    left = time.monotonic()
    wait_for(lambda: slow.cancelled == before + 1, seconds=5, pause=0.01)
    assert time.monotonic() - left < 1.0
    (kept,) = wait_for(lambda: stored(hasty, of="left"), seconds=5)
    assert kept["status"] == "incomplete"
    assert LONG.startswith(kept["choices"][0]["message"]["content"])
    assert kept["choices"][0]["message"]["content"]
    (row,) = [r for r in ledger(hasty) if r["subject"] == kept["id"]]
    assert row["estimated"] == 1


def test_a_caller_who_leaves_before_the_answer_ends_the_teachers_work(hasty: Server, wise: ScriptedTeacher) -> None:
    wise.script(Hang(seconds=20))
    before = wise.cancelled
    with raw(hasty, request_bytes(hasty, question(model="wise", store=True, metadata={"of": "early"}))):
        time.sleep(0.2)
        assert wise.cancelled == before, "the control: while the caller waits, the teacher works"
    wait_for(lambda: wise.cancelled == before + 1, seconds=1, pause=0.01)
    assert status_of(hasty, "early") is None


def test_a_caller_who_stops_reading_does_not_hold_the_teacher(hasty: Server, wise: ScriptedTeacher) -> None:
    many = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"' + b"x" * 60_000 + b'"}}]}\n\n'
    wise.script(Events(pieces=(many,) * 300))
    body = question(model="wise", stream=True, store=True, metadata={"of": "stopped"})
    with raw(hasty, request_bytes(hasty, body)):
        (kept,) = wait_for(lambda: stored(hasty, of="stopped"), seconds=TOTAL_SECONDS + 3)
        assert kept["status"] == "incomplete"
    assert ask(hasty).status == 200


def test_two_hundred_callers_who_leave_leave_nothing_behind(hasty: Server, slow: ScriptedTeacher) -> None:
    def leave(number: int) -> None:
        body = question(LONG, model="slow", stream=number % 2 == 0, store=True, metadata={"of": "crowd"})
        with raw(hasty, request_bytes(hasty, body)) as caller:
            if number % 4 == 0:
                caller.recv(100)
            else:
                time.sleep(0.02 * (number % 5))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(leave, range(20)))
        wait_for(lambda: _settled(hasty), seconds=10)
        before = descriptors(hasty.pid)
        list(pool.map(leave, range(200)))
    wait_for(lambda: _settled(hasty), seconds=10)
    assert descriptors(hasty.pid) < before + 40, "connections kept for reuse, but not one a caller"
    assert all(kept.get("status") == "incomplete" for kept in stored(hasty, of="crowd"))
    assert "Traceback" not in hasty.log.read_text()
    assert "never retrieved" not in hasty.log.read_text()


def _settled(server: Server) -> bool:
    """Whether the server's open files have stopped changing."""
    first = descriptors(server.pid)
    time.sleep(0.3)
    return descriptors(server.pid) == first


def test_the_count_of_descriptors_sees_one_that_is_held(hasty: Server) -> None:
    """The control: a connection that is not left shows in the count."""
    wait_for(lambda: _settled(hasty), seconds=10)
    before = descriptors(hasty.pid)
    held = [raw(hasty) for _ in range(200)]
    wait_for(lambda: descriptors(hasty.pid) >= before + 100, seconds=3)
    for connection in held:
        connection.close()


def test_fifty_streams_at_once_all_arrive(hasty: Server, slow: ScriptedTeacher) -> None:
    async def one(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", connect(hasty).port)
        writer.write(
            request_bytes(hasty, question(f"{number}", model="slow", stream=True, store=True, metadata={"of": "many"}))
        )
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            piece = await reader.read(65536)
            if not piece:
                break
            body += piece
        writer.close()
        await writer.wait_closed()
        return body

    async def everyone() -> list[bytes]:
        return await asyncio.gather(*[one(number) for number in range(50)])

    bodies = asyncio.run(everyone())
    assert all(b"data: [DONE]" in body for body in bodies)
    assert len(stored(hasty, of="many")) == 50
