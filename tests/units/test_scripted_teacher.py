"""The scripted teacher, asked by the official client, and by plain HTTP where the client hides the wire."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import openai
import pytest

from stillroom.teachers import triage
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
    RefuseLogprobs,
    RefuseStreamOptions,
    ScriptedTeacher,
    Status,
    StreamError,
    count_tokens,
    echo,
    triage_expert,
)

TEXT = "Two  words,\n日本語 and a 🍵 at the end. "
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"where": "here"}'},
}


@pytest.fixture
def teacher() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(echo, model="wise") as running:
        yield running


@pytest.fixture
def client(teacher: ScriptedTeacher) -> Iterator[openai.OpenAI]:
    with strict_client(teacher) as made:
        yield made


def strict_client(teacher: ScriptedTeacher, *, key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=teacher.url, api_key=key, max_retries=0, timeout=5, _strict_response_validation=True)


@pytest.fixture
def lenient_client(teacher: ScriptedTeacher) -> Iterator[openai.OpenAI]:
    """For embeddings: the strict client refuses the base64 that it asks for itself."""
    with openai.OpenAI(base_url=teacher.url, api_key="any", max_retries=0, timeout=5) as made:
        yield made


def ask(client: openai.OpenAI, text: Any = TEXT, **more: Any) -> Any:
    return client.chat.completions.create(
        model="any",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}],
        **more,
    )


def post(teacher: ScriptedTeacher, *, stream: bool, seconds: float = 5) -> tuple[int, str, bytes]:
    """Status, content type and body of a raw chat request. TimeoutError when it takes longer."""

    async def send() -> tuple[int, str, bytes]:
        body = {"messages": [{"role": "user", "content": TEXT}], "stream": stream}
        timeout = aiohttp.ClientTimeout(total=seconds)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(teacher.url + "/chat/completions", json=body) as response,
        ):
            return response.status, response.content_type, await response.read()

    return asyncio.run(send())


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 3
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    return true()


# Answers.


def test_a_chat_is_a_valid_completion(client: openai.OpenAI) -> None:
    completion = ask(client)
    assert completion.object == "chat.completion"
    assert completion.model == "wise"
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    assert completion.choices[0].logprobs is None
    assert completion.system_fingerprint
    assert completion._request_id


def test_tokens_are_counted_as_documented(client: openai.OpenAI) -> None:
    assert [count_tokens(text) for text in ("", "abcd", "abcde", "日本")] == [1, 1, 2, 2]
    usage = ask(client, "abcdefgh").usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3 + 2, 2, 7)


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[-2:]] == [None, "stop"]
    assert len({c.id for c in chunks}) == 1
    assert len(chunks) > 8


def test_a_compact_json_answer_is_streamed_in_small_parts() -> None:
    with ScriptedTeacher(triage_expert) as teacher, strict_client(teacher) as client:
        assert len(list(ask(client, stream=True))) > 10


def test_the_usage_chunk_comes_last_and_only_when_it_is_asked_for(
    teacher: ScriptedTeacher, client: openai.OpenAI
) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == ask(client).usage
    assert all(c.usage is None for c in chunks[:-1])
    events = post(teacher, stream=True)[2].split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert b"usage" not in b"".join(events)


def test_tool_calls_arrive_whole_and_streamed() -> None:
    with ScriptedTeacher(lambda body: {"tool_calls": [CALL]}) as teacher, strict_client(teacher) as client:
        whole = ask(client).choices[0]
        assert whole.finish_reason == "tool_calls"
        assert whole.message.tool_calls[0].model_dump() == CALL
        with client.chat.completions.stream(model="any", messages=[{"role": "user", "content": "Look."}]) as stream:
            streamed = stream.get_final_completion().choices[0]
        assert streamed.message.content is None
        assert streamed.message.tool_calls
        assert streamed.message.tool_calls[0].function.arguments == CALL["function"]["arguments"]


def test_n_asks_for_several_choices(client: openai.OpenAI) -> None:
    completion = ask(client, "abcd", n=3)
    assert [c.index for c in completion.choices] == [0, 1, 2]
    assert completion.usage.completion_tokens == 3
    assert {c.choices[0].index for c in ask(client, n=2, stream=True)} == {0, 1}


def test_an_answer_longer_than_max_tokens_is_cut(client: openai.OpenAI) -> None:
    choice = ask(client, "abcdefghij", max_tokens=2).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("abcdefgh", "length")


def test_logprobs_spell_the_answer_in_bytes_and_are_a_distribution(client: openai.OpenAI) -> None:
    told = ask(client, logprobs=True, top_logprobs=20).choices[0].logprobs.content
    assert b"".join(bytes(each.bytes) for each in told) == TEXT.encode()
    assert "bytes:\\xf0\\x9f" in [each.token for each in told]  # half a letter is no text
    for each in told:
        assert len(each.top_logprobs) == 20
        assert (each.token, each.logprob) in [(other.token, other.logprob) for other in each.top_logprobs]
        assert 0.95 < sum(math.exp(other.logprob) for other in each.top_logprobs) <= 1
    assert ask(client, logprobs=True, top_logprobs=20).choices[0].logprobs.content == told
    assert [each.top_logprobs for each in ask(client, logprobs=True).choices[0].logprobs.content] == [[]] * len(told)


def test_a_streams_logprobs_come_with_the_text_they_are_of(client: openai.OpenAI) -> None:
    whole = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    streamed = []
    for chunk in ask(client, logprobs=True, top_logprobs=2, stream=True):
        told = chunk.choices[0].logprobs
        assert (told is not None) == bool(chunk.choices[0].delta.content)
        if told is not None:
            assert b"".join(bytes(each.bytes) for each in told.content).decode() == chunk.choices[0].delta.content
            streamed += told.content
    assert streamed == whole


def test_a_teacher_may_take_no_notice_of_logprobs() -> None:
    with ScriptedTeacher(echo, logprobs=False) as teacher, strict_client(teacher) as client:
        assert ask(client, logprobs=True).choices[0].logprobs is None


def test_tool_calls_have_no_logprobs() -> None:
    with ScriptedTeacher(lambda body: {"tool_calls": [CALL]}) as teacher, strict_client(teacher) as client:
        assert ask(client, logprobs=True).choices[0].logprobs.content is None


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_can_be_refused_all_or_beyond_a_number(
    teacher: ScriptedTeacher, client: openai.OpenAI, stream: bool
) -> None:
    teacher.script_lasting(RefuseLogprobs(most=5))
    ask(client, logprobs=True, top_logprobs=5, stream=stream)
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, logprobs=True, top_logprobs=6, stream=stream)
    assert refused.value.param == "top_logprobs"
    teacher.script_lasting(RefuseLogprobs())
    with pytest.raises(openai.BadRequestError):
        ask(client, logprobs=True, stream=stream)
    ask(client, stream=stream)


def test_the_text_parts_of_a_message_are_its_text(client: openai.OpenAI) -> None:
    parts = [
        {"type": "text", "text": "seen"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}},
    ]
    assert ask(client, parts).choices[0].message.content == "seen"


def test_the_triage_expert_answers_the_last_user_message() -> None:
    with ScriptedTeacher(triage_expert) as teacher, strict_client(teacher) as client:
        ticket = triage.tickets(1, 0, "held_out")[0]
        assert ask(client, ticket).choices[0].message.content == triage.triage(ticket)


def test_azure_clients_are_answered_under_any_deployment_name(teacher: ScriptedTeacher) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=teacher.azure_endpoint,
        api_key="k",
        api_version="2024-10-21",
        max_retries=0,
    ) as client:
        chat = client.chat.completions.create(model="my/d 1", messages=[{"role": "user", "content": "hi"}])
        assert chat.choices[0].message.content == "hi"
        assert len(client.embeddings.create(model="my/d 1", input="hi").data) == 1
    received = teacher.requests[0]
    assert received["path"] == "/openai/deployments/my/d 1/chat/completions"
    assert received["query"] == {"api-version": "2024-10-21"}
    assert received["headers"]["api-key"] == "k"


def test_an_azure_path_without_api_version_is_not_found(teacher: ScriptedTeacher) -> None:
    with (
        openai.OpenAI(base_url=f"{teacher.azure_endpoint}/openai/deployments/d", api_key="k") as client,
        pytest.raises(openai.NotFoundError),
    ):
        ask(client)


def test_models_lists_the_teachers_model(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["wise"]
    assert teacher.calls == 0


def test_embeddings_are_the_same_in_both_encodings(client: openai.OpenAI, lenient_client: openai.OpenAI) -> None:
    packed = lenient_client.embeddings.create(model="any", input=["tea", "coffee", "tea"]).data
    plain = client.embeddings.create(model="any", input=["tea", "coffee", "tea"], encoding_format="float").data
    assert [p.embedding for p in packed] == [p.embedding for p in plain]
    assert packed[0].embedding == packed[2].embedding != packed[1].embedding
    assert len(packed[0].embedding) == 16
    assert sum(x * x for x in packed[0].embedding) == pytest.approx(1, abs=1e-6)
    assert len(lenient_client.embeddings.create(model="any", input=[1, 2, 3]).data) == 1


@pytest.mark.parametrize(
    "wrong", [{"messages": []}, {"messages": ["hi"]}, {"n": 0}, {"max_tokens": "many"}, {"top_logprobs": 5}]
)
def test_a_request_that_cannot_be_answered_is_400_in_openais_shape(
    client: openai.OpenAI, wrong: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, extra_body=wrong)
    assert refused.value.param == next(iter(wrong))
    assert refused.value.type == "invalid_request_error"


def test_an_unknown_path_is_404_in_openais_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        client.files.list()


def test_a_key_is_required_when_one_is_set() -> None:
    with ScriptedTeacher(echo, api_key="right") as teacher:
        with (
            strict_client(teacher, key="wrong") as client,
            pytest.raises(openai.AuthenticationError) as refused,
        ):
            ask(client)
        assert refused.value.code == "invalid_api_key"
        with strict_client(teacher, key="right") as client:
            assert ask(client).choices[0].message.content == TEXT


def test_an_answer_takes_its_time_streamed_or_not() -> None:
    with (
        ScriptedTeacher(echo, first_token_seconds=0.05, token_seconds=0.01) as teacher,
        strict_client(teacher) as client,
    ):
        for streamed in (False, True):
            started = time.monotonic()
            answer = ask(client, "one two three four five", stream=streamed)
            if streamed:
                list(answer)
            assert time.monotonic() - started >= 0.05 + 5 * 0.01


# Faults.


def test_faults_are_used_up_one_by_one_and_then_all_is_well(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script(Status(code=429, headers={"Retry-After": "1"}), None, Status(code=503, body="busy"))
    with pytest.raises(openai.RateLimitError) as limited:
        ask(client)
    assert limited.value.response.headers["retry-after"] == "1"
    assert limited.value.code == "rate_limit_exceeded"
    ask(client)
    with pytest.raises(openai.InternalServerError) as busy:
        ask(client)
    assert busy.value.response.text == "busy"
    ask(client)
    assert teacher.calls == 4


def test_the_official_client_gets_over_two_429s_with_three_calls(teacher: ScriptedTeacher) -> None:
    teacher.script(*2 * [Status(code=429, headers={"retry-after-ms": "1"})])
    with openai.OpenAI(base_url=teacher.url, api_key="any") as client:
        assert ask(client).choices[0].message.content == TEXT
    assert teacher.calls == 3


def test_a_lasting_fault_lasts_until_it_is_ended(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script_lasting(Status(code=500))
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            ask(client)
    teacher.script_lasting(None)
    ask(client)


def test_a_fault_speaks_azures_dialect_on_azures_paths(teacher: ScriptedTeacher) -> None:
    teacher.script(Status(code=429))
    with (
        openai.AzureOpenAI(
            azure_endpoint=teacher.azure_endpoint, api_key="k", api_version="v", max_retries=0
        ) as client,
        pytest.raises(openai.RateLimitError) as limited,
    ):
        ask(client)
    assert limited.value.code == "429"


def test_html_comes_with_status_200(teacher: ScriptedTeacher) -> None:
    teacher.script(Html())
    status, content_type, body = post(teacher, stream=False)
    assert (status, content_type) == (200, "text/html")
    assert body.startswith(b"<html>")


@pytest.mark.parametrize("stream", [False, True])
def test_bad_json_is_cut_off_json(teacher: ScriptedTeacher, stream: bool) -> None:
    teacher.script(BadJson())
    body = post(teacher, stream=stream)[2]
    with pytest.raises(json.JSONDecodeError):
        json.loads(body.split(b"\n\n")[0].removeprefix(b"data: "))


def test_hang_sends_nothing_for_so_long(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script(Hang(seconds=60), Hang(seconds=0.05))
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.1)
    assert ask(client).choices[0].message.content == TEXT


def test_hang_can_begin_in_the_middle_of_a_stream(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script(Hang(seconds=60, after_chunks=3))
    stream = ask(client, stream=True, timeout=0.2)
    got = [next(stream) for _ in range(3)]
    assert len(got) == 3
    with pytest.raises(Exception, match="timed out"):
        next(stream)


def test_drip_sends_single_bytes(teacher: ScriptedTeacher) -> None:
    teacher.script(Drip(seconds=0.0), Drip(seconds=0.02))
    assert json.loads(post(teacher, stream=False)[2])["choices"][0]["message"]["content"] == TEXT
    with pytest.raises(TimeoutError):
        post(teacher, stream=True, seconds=0.2)


@pytest.mark.parametrize("stream", [False, True])
def test_cut_stream_resets_the_connection_after_what_was_sent(teacher: ScriptedTeacher, stream: bool) -> None:
    teacher.script(CutStream(after_chunks=2))
    request = json.dumps({"messages": [{"role": "user", "content": TEXT}], "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", int(teacher.url.split(":")[2].split("/")[0]))) as wire:
        wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(request))
        wire.sendall(request)
        received = b""
        with pytest.raises(ConnectionResetError):
            while part := wire.recv(65_536):
                received += part
    assert received.startswith(b"HTTP/1.1 200")
    assert received.count(b"data: ") == (2 if stream else 0)
    assert teacher.cancelled == 0


def test_a_stream_can_end_in_good_order_without_done(teacher: ScriptedTeacher) -> None:
    teacher.script(EndStreamWithoutDone(after_chunks=4))
    body = post(teacher, stream=True)[2]
    assert body.count(b"data: {") == 4
    assert b"[DONE]" not in body


def test_an_error_event_raises_in_the_client(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script(StreamError(after_chunks=2), StreamError(after_chunks=2))
    stream = ask(client, stream=True)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(openai.APIError, match="told to fail in the stream"):
        next(stream)
    with pytest.raises(openai.InternalServerError):
        ask(client)


@pytest.mark.parametrize("stream", [False, True])
def test_a_huge_line_is_one_line(teacher: ScriptedTeacher, stream: bool) -> None:
    teacher.script(HugeLine(bytes=3_000_000))
    body = post(teacher, stream=stream)[2]
    assert 3_000_000 <= len(body) < 3_000_100
    assert b"\n" not in body


def test_a_gzip_bomb_is_small_on_the_wire(teacher: ScriptedTeacher) -> None:
    teacher.script(GzipBomb(bytes=5_000_000))

    async def length_as_sent() -> int:
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.post(
                teacher.url + "/chat/completions", json={"messages": [{"role": "user", "content": ""}]}
            ) as response,
        ):
            return len(await response.read())

    assert asyncio.run(length_as_sent()) < 10_000
    teacher.script(GzipBomb(bytes=5_000_000))
    assert len(post(teacher, stream=False)[2]) == 5_000_000


def test_stream_options_can_be_refused(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script_lasting(RefuseStreamOptions())
    with pytest.raises(openai.BadRequestError, match="stream_options"):
        ask(client, stream=True, stream_options={"include_usage": True})
    assert list(ask(client, stream=True))


def test_the_connection_can_be_closed_at_once(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script(CloseAtOnce())
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    ask(client)
    assert teacher.cancelled == 0


@pytest.mark.parametrize("fault", [Status(code=500), BadJson(), CutStream(after_chunks=0), CloseAtOnce()])
def test_faults_hit_embeddings_too(teacher: ScriptedTeacher, lenient_client: openai.OpenAI, fault: Fault) -> None:
    teacher.script(fault)
    with pytest.raises((openai.APIError, json.JSONDecodeError)):
        lenient_client.embeddings.create(model="any", input="tea")
    assert lenient_client.embeddings.create(model="any", input="tea").data


# The record.


def test_requests_are_recorded_as_they_arrived(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    ask(client, metadata={"a": "b"}, extra_headers={"X-Mine": "Yes"}, extra_body={"tomorrow": [1]})
    (received,) = teacher.requests
    assert received["path"] == "/v1/chat/completions"
    assert received["headers"]["x-mine"] == "Yes"
    assert received["body"]["metadata"] == {"a": "b"}
    assert received["body"]["tomorrow"] == [1]


def test_many_clients_at_once_are_all_counted() -> None:
    with ScriptedTeacher(echo, record=False) as teacher, strict_client(teacher) as client:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: ask(client, str(i)).choices[0].message.content, range(64)))
        assert answers == [str(i) for i in range(64)]
        assert teacher.calls == 64
        assert teacher.requests == []


def test_a_client_that_leaves_a_stream_is_counted(teacher: ScriptedTeacher, client: openai.OpenAI) -> None:
    teacher.script(Hang(seconds=60, after_chunks=2))
    stream = ask(client, stream=True)
    next(stream)
    stream.close()
    assert eventually(lambda: teacher.cancelled == 1)


def test_closing_breaks_off_hanging_answers_and_counts_none() -> None:
    with ScriptedTeacher(echo) as teacher, strict_client(teacher) as client, ThreadPoolExecutor(1) as pool:
        teacher.script(Hang(seconds=60))
        answer = pool.submit(ask, client)
        assert eventually(lambda: teacher.calls == 1)
        started = time.monotonic()
        teacher.close()
        assert time.monotonic() - started < 2
        assert isinstance(answer.exception(), openai.APIConnectionError)
        assert teacher.cancelled == 0


def test_a_taken_port_is_an_error_at_the_start(teacher: ScriptedTeacher) -> None:
    port = int(teacher.url.split(":")[2].split("/")[0])
    with pytest.raises(OSError, match="in use"):
        ScriptedTeacher(echo, port=port).start()


def test_the_command_serves_the_triage_expert_until_its_input_closes() -> None:
    command = [sys.executable, "-m", "stillroom.teachers.scripted", "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=url, api_key="any") as client:
            assert json.loads(ask(client, "I was charged twice.").choices[0].message.content)["team"] == "payments"
        process.stdin.close()
        assert process.wait(timeout=5) == 0
