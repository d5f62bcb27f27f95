"""LangChain's chat models, unmodified."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from openai import OpenAI
from pydantic import SecretStr

from stillroom.teachers.scripted import ScriptedTeacher
from tests.conftest import API_VERSION
from tests.support import Server


def azure_chat(server: Server, **options: Any) -> AzureChatOpenAI:
    return AzureChatOpenAI(
        azure_endpoint=server.url,
        azure_deployment="gpt-4o",
        api_key=SecretStr(server.key),
        api_version=API_VERSION,
        **options,
    )


def v1_chat(server: Server, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{server.url}/v1", model="gpt-4o", api_key=SecretStr(server.key), **options)


@pytest.mark.parametrize("make", [azure_chat, v1_chat])
def test_invoke_answers_and_stores(server: Server, client: OpenAI, label: dict[str, str], make: Any) -> None:
    chat = make(server, store=True, extra_body={"metadata": label})
    assert chat.invoke("イルカは何を食べますか？").content == "イルカは何を食べますか？"
    kept = client.chat.completions.list(metadata=label).data
    assert [item.choices[0].message.content for item in kept] == ["イルカは何を食べますか？"]


@pytest.mark.parametrize("make", [azure_chat, v1_chat])
def test_stream_answers_with_usage_and_stores(server: Server, client: OpenAI, label: dict[str, str], make: Any) -> None:
    chat = make(server, store=True, extra_body={"metadata": label}, stream_usage=True)
    pieces = list(chat.stream("one two three"))
    assert "".join(str(piece.content) for piece in pieces) == "one two three"
    assert [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    kept = client.chat.completions.list(metadata=label).data
    assert [item.choices[0].message.content for item in kept] == ["one two three"]


def test_a_bound_deployment_needs_no_model(server: Server, teacher: ScriptedTeacher) -> None:
    azure_chat(server).invoke("hi")
    assert teacher.requests[-1]["body"]["model"] == "gpt-4o"
