"""A real server and a real Chromium for the portal's tests."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, sync_playwright

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.portal.window import WIDE, Size, Window
from tests.support import Server

# As root there is no sandbox to be had; the rest keeps the browser from looking for the internet.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
)
PRICE = {"input": 2.5, "output": 10.0}

OpenWindow = Callable[..., Window]


# Not for the whole session: while Playwright runs, no other test of the process could run an event loop.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("the portal's tests need Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the portal tests' own, whose teacher `gpt-4o` repeats the last user message."""
    with ScriptedTeacher(echo) as teacher:
        teachers = {"gpt-4o": {"base_url": teacher.url, "price": PRICE}}
        students = json.dumps({"scratch-small": {"price": {"input": 0.05, "output": 0.2, "training": 0.3}}})
        folder = tmp_path_factory.mktemp("portal") / "data"
        with Server(folder, teachers=teachers, students=students) as running:
            yield running


@pytest.fixture
def open_window(chromium: Browser) -> Iterator[OpenWindow]:
    """Opens windows on servers; when the test is over, none may have done what a page must never do."""
    with ExitStack() as opened:

        def open_one(server: Server, *, language: str = "en", size: Size = WIDE, dark: bool = False) -> Window:
            window = Window(chromium, server, language=language, size=size, dark=dark)
            opened.callback(window.close)
            return window

        yield open_one
