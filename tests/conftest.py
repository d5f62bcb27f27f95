"""Servers that tests share. Tests that kill, fill or reconfigure a server start their own."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

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
def client(server: Server) -> Iterator[OpenAI]:
    """OpenAI's SDK, which checks every answer against its types."""
    url = f"{server.url}/v1"
    with OpenAI(base_url=url, api_key=server.key, max_retries=0, _strict_response_validation=True) as opened:
        yield opened


@pytest.fixture
def azure(server: Server) -> Iterator[AzureOpenAI]:
    with AzureOpenAI(azure_endpoint=server.url, api_key=server.key, api_version=API_VERSION, max_retries=0) as opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where skips are forbidden, a test that would skip fails instead."""
    report = yield
    if report.skipped and os.environ.get("STILLROOM_TESTS_MAY_SKIP") == "0":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} must not be skipped here: {report.longrepr}"
    return report
