"""Servers that tests share. Tests that kill, fill or reconfigure a server start their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from openai import AzureOpenAI, OpenAI

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.support import Server

API_VERSION = "2024-10-01-preview"
PRICE = {"input": 2.5, "output": 10.0}


@pytest.fixture(scope="session")
def teacher() -> Iterator[ScriptedTeacher]:
    """A teacher that repeats the last user message."""
    with ScriptedTeacher(echo) as scripted:
        yield scripted


@pytest.fixture(scope="session")
def server(teacher: ScriptedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the teacher `gpt-4o`, plain and with TLS, shared by all tests of a process."""
    teachers = {"gpt-4o": {"base_url": teacher.url, "price": PRICE}}
    with Server(tmp_path_factory.mktemp("shared") / "data", teachers=teachers).start(tls=True) as running:
        yield running


@pytest.fixture
def client(server: Server) -> OpenAI:
    """OpenAI's SDK, which checks every answer against its types."""
    return OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, _strict_response_validation=True)


@pytest.fixture
def azure(server: Server) -> AzureOpenAI:
    return AzureOpenAI(azure_endpoint=server.url, api_key=server.key, api_version=API_VERSION, max_retries=0)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Where skips are forbidden, a test that would skip fails instead."""
    if (
        os.environ.get("STILLROOM_TESTS_MAY_SKIP") == "0"
        and call.excinfo
        and call.excinfo.errisinstance(pytest.skip.Exception)
    ):
        raise AssertionError(f"{item.nodeid} must not be skipped here: {call.excinfo.value}")
