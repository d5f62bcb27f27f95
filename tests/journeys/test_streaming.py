"""Streamed chats: what the SDK sees on the way, and what is kept of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import Request, urlopen

import pytest
from openai import APIError, AzureOpenAI, NotFoundError, OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

from stillroom.teachers.scripted import CutStream, ScriptedTeacher, StreamError
from tests.support import Server, wait_for

TEXT = "イルカは 脳の半分ずつ 交代で眠ります。 Half a brain at a time!"
USAGE = {"include_usage": True}


def stream(client: OpenAI, **options: Any) -> Stream[ChatCompletionChunk]:
    return client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": TEXT}], stream=True, **options
    )


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_stored_stream_is_kept_as_it_was_streamed(client: OpenAI, label: dict[str, str]) -> None:
    chunks = list(stream(client, store=True, metadata=label, stream_options=USAGE))
    kept = client.chat.completions.retrieve(chunks[0].id)
    assert {chunk.id for chunk in chunks} == {kept.id}
    assert text_of(chunks) == kept.choices[0].message.content == TEXT
    assert (kept.choices[0].finish_reason, kept.metadata) == ("stop", label)
    assert kept.usage == chunks[-1].usage


def test_the_usage_chunk_is_the_last_and_the_only_one_with_usage(client: OpenAI) -> None:
    chunks = list(stream(client, stream_options=USAGE))
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_usage_that_was_not_asked_for_is_not_sent_but_kept(client: OpenAI, label: dict[str, str]) -> None:
    chunks = list(stream(client, store=True, metadata=label))
    assert all(chunk.choices for chunk in chunks)
    usage = client.chat.completions.retrieve(chunks[0].id).usage
    assert usage is not None
    assert usage.completion_tokens > 0


def test_a_stream_can_be_listed_the_moment_it_is_done(azure: AzureOpenAI, label: dict[str, str]) -> None:
    for number in range(5):
        list(stream(azure, store=True, metadata=label))
        assert len(azure.chat.completions.list(metadata=label).data) == number + 1


def test_the_bytes_of_a_stream_are_events_that_end_with_done(server: Server, label: dict[str, str]) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": TEXT}], "stream": True, "store": True}
    with _post(server, {**body, "metadata": label}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = answer.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_a_failure_in_the_middle_reaches_the_sdk_as_an_error(client: OpenAI, teacher: ScriptedTeacher) -> None:
    teacher.script(StreamError(after_chunks=3))
    seen: list[ChatCompletionChunk] = []
    with pytest.raises(APIError, match="told to fail in the stream"):
        seen.extend(stream(client))


@pytest.mark.parametrize("fault", [StreamError(after_chunks=3), CutStream(after_chunks=3)])
def test_what_was_cut_is_kept_as_incomplete(
    client: OpenAI, teacher: ScriptedTeacher, label: dict[str, str], fault: StreamError | CutStream
) -> None:
    teacher.script(fault)
    with pytest.raises(APIError):
        list(stream(client, store=True, metadata=label))
    kept = wait_for(lambda: _raw_list(client, label))
    assert kept[0]["status"] == "incomplete"
    assert TEXT.startswith(kept[0]["choices"][0]["message"]["content"])


def test_a_caller_that_leaves_ends_the_teachers_work_and_leaves_an_incomplete_row(
    tmp_path_factory: pytest.TempPathFactory, label: dict[str, str]
) -> None:
    with (
        ScriptedTeacher(lambda body: "word " * 500, token_seconds=0.02) as slow,
        Server(tmp_path_factory.mktemp("left") / "data", teachers={"gpt-4o": {"base_url": slow.url}}) as server,
    ):
        client = OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
        answer = stream(client, store=True, metadata=label)
        for _, _chunk in zip(range(5), answer, strict=False):
            pass
        answer.close()
        wait_for(lambda: slow.cancelled == 1)
        kept = wait_for(lambda: _raw_list(client, label))
        assert kept[0]["status"] == "incomplete"
        assert kept[0]["choices"][0]["message"]["content"].startswith("word word")


def test_an_unknown_model_is_refused_before_a_stream_begins(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model="no-such", messages=[{"role": "user", "content": "hi"}], stream=True)


def _raw_list(client: OpenAI, label: dict[str, str]) -> Any:
    # An answer that was cut has no finish reason, so the strict types do not take it.
    answer = client.chat.completions.with_raw_response.list(metadata=label)
    return json.loads(answer.text)["data"]


def _post(server: Server, body: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    url = f"{server.url}/v1/chat/completions"
    return urlopen(Request(url, data=json.dumps(body).encode(), headers=headers), timeout=30)
