"""Tools and JSON schemas: passed to the teacher, kept, and part of the training rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AzureOpenAI, OpenAI, pydantic_function_tool
from pydantic import BaseModel

from stillroom.teachers.scripted import JsonObject, ScriptedTeacher
from tests.journeys.conftest import Raw
from tests.support import Server


class Animal(BaseModel):
    name: str
    legs: int


class Weather(BaseModel):
    """The weather of a town."""

    town: str


TOOLS = [pydantic_function_tool(Weather, name="weather")]


def answer(body: JsonObject) -> str | JsonObject:
    if body.get("tools"):
        function = {"name": "weather", "arguments": '{"town": "札幌"}'}
        return {"tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    return '{"name": "イルカ", "legs": 0}'


@pytest.fixture(scope="module")
def teacher() -> Iterator[ScriptedTeacher]:
    with ScriptedTeacher(answer) as scripted:
        yield scripted


@pytest.fixture(scope="module")
def server(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("tools") / "data"
    with Server(data, teachers={"gpt-4o": {"base_url": teacher.url}}) as running:
        yield running


def ask_weather(client: OpenAI, label: dict[str, str], **options: Any) -> Any:
    return client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "札幌の天気は？"}],
        tools=TOOLS,
        store=True,
        metadata=label,
        **options,
    )


def test_a_pydantic_model_goes_to_the_teacher_and_comes_back_filled(
    client: OpenAI, teacher: ScriptedTeacher, label: dict[str, str]
) -> None:
    parsed = client.chat.completions.parse(
        model="gpt-4o",
        messages=[{"role": "user", "content": "足のない動物は？"}],
        response_format=Animal,
        store=True,
        metadata=label,
    )
    assert parsed.choices[0].message.parsed == Animal(name="イルカ", legs=0)
    sent = teacher.requests[-1]["body"]["response_format"]
    assert sent["json_schema"]["schema"] == {**Animal.model_json_schema(), "additionalProperties": False}
    kept = client.chat.completions.retrieve(parsed.id)
    assert kept.model_extra is not None
    assert kept.model_extra["response_format"] == sent


def test_tool_calls_are_passed_on_and_kept_with_the_tools(
    client: OpenAI, teacher: ScriptedTeacher, label: dict[str, str]
) -> None:
    made = ask_weather(client, label)
    assert made.choices[0].message.tool_calls[0].function.arguments == '{"town": "札幌"}'
    assert teacher.requests[-1]["body"]["tools"] == TOOLS
    kept = client.chat.completions.retrieve(made.id)
    assert kept.choices == made.choices
    assert kept.model_extra is not None
    assert kept.model_extra["tools"] == TOOLS


def test_streamed_tool_calls_are_kept_as_whole_ones(client: OpenAI, label: dict[str, str]) -> None:
    chunks = list(ask_weather(client, label, stream=True))
    kept = client.chat.completions.retrieve(chunks[0].id)
    calls = kept.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.id, call.type) for call in calls] == [("call_1", "function")]
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"town": "札幌"}')
    assert kept.choices[0].finish_reason == "tool_calls"


def test_the_training_rows_of_tool_calls_have_their_tools(azure: AzureOpenAI, raw: Raw, label: dict[str, str]) -> None:
    for _ in range(10):
        ask_weather(azure, label)
    status, _, selection = raw("POST", "/v1/stillroom/selections", {"filter": {"metadata": label}})
    assert status == 200
    rows = [json.loads(line) for line in azure.files.content(selection["training_file"]["id"]).text.splitlines()]
    assert len(rows) == 10
    for row in rows:
        assert row["tools"] == TOOLS
        assert row["messages"][0] == {"role": "user", "content": "札幌の天気は？"}
        assert row["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"
