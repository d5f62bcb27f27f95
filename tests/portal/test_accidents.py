"""What must not happen by accident: a teacher's name taken, a secret lost, rows of several models mixed, a dead page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.faults.wire import send
from tests.portal.conftest import OpenWindow
from tests.portal.window import NARROW
from tests.portal.words import Words
from tests.support import Server

WORDS = Words("en")
BACK_MS = 30_000
DEPLOYMENTS = (
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments"
    "?api-version=2025-09-01"
)

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with two teachers, so that one can take the other's name."""
    with ScriptedTeacher(echo) as teacher:
        teachers = {name: {"base_url": teacher.url} for name in ("gpt-4o", "gpt-4o-mini")}
        with Server(tmp_path / "data", teachers=teachers) as running:
            yield running


def deployed(server: Server) -> list[str]:
    return [one["name"] for one in send(server, "GET", DEPLOYMENTS).json["value"]]


def test_a_deployment_takes_a_teachers_name_only_when_somebody_says_so(server: Server, open_window: OpenWindow) -> None:
    page = open_window(server).sign_in().visit("/models")
    page.get_by_role("button", name=f"{WORDS('models.deploy')} gpt-4o-mini", exact=True).click()
    dialog = page.get_by_role("dialog")
    name = dialog.get_by_label(WORDS("deploy.name"))
    deed = dialog.get_by_role("button", name=WORDS("deploy.deed"), exact=True)
    expect(name).to_have_value("gpt-4o-mini-2")

    name.fill("my teacher")
    expect(dialog.get_by_text(WORDS("deploy.name_wrong"))).to_be_visible()
    name.fill("..")
    expect(dialog.get_by_text(WORDS("deploy.name_wrong"))).to_be_visible()

    name.fill("gpt-4o")
    expect(dialog.get_by_role("alert")).to_have_text(WORDS("deploy.hides_teacher", name="gpt-4o"))
    expect(deed).to_be_disabled()
    name.press("Enter")
    agreement = dialog.get_by_role("checkbox")
    agreement.check()
    name.fill("scratch-small")
    expect(dialog.get_by_role("alert")).to_have_text(WORDS("deploy.hides_model", name="scratch-small"))
    expect(agreement).not_to_be_checked()
    assert deployed(server) == []

    name.fill("gpt-4o")
    agreement.check()
    deed.click()
    expect(dialog.get_by_text(WORDS("deploy.ready", name="gpt-4o"))).to_be_visible()
    assert deployed(server) == ["gpt-4o"]
    dialog.get_by_role("button", name=WORDS("common.close"), exact=True).click()
    expect(page.get_by_role("link", name=WORDS("models.stand_in"))).to_be_visible()


def test_the_dialog_with_a_new_key_stays_until_somebody_says_that_it_is_copied(
    server: Server, open_window: OpenWindow
) -> None:
    page = open_window(server, size=NARROW).sign_in().visit("/keys")
    page.get_by_role("button", name=WORDS("keys.create"), exact=True).click()
    page.get_by_label(WORDS("keys.name"), exact=True).fill("app")
    page.get_by_role("dialog").get_by_role("button", name=WORDS("keys.create"), exact=True).click()
    dialog = page.get_by_role("dialog", name=WORDS("keys.made_title", name="app"))
    secret = dialog.get_by_text(re.compile(r"^sk-stillroom-"))
    expect(secret).to_be_visible()
    for _ in range(4):
        page.keyboard.press("Escape")
    page.mouse.click(5, 5)
    expect(secret).to_be_visible()
    dialog.get_by_role("button", name=WORDS("keys.made_done"), exact=True).click()
    expect(dialog).to_have_count(0)


def ask(server: Server, model: str, times: int) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as sdk:
        for number in range(times):
            asked = f"{model} {number}"
            sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": asked}], store=True)


def rows_to_use(page: Page, count: int) -> None:
    stat = page.locator(".stat").filter(has=page.get_by_text(WORDS("distill.rows_usable"), exact=True))
    expect(stat.locator(".stat-value")).to_have_text(str(count))


def test_distilling_begins_with_the_answers_of_the_teacher_that_has_most(
    server: Server, open_window: OpenWindow
) -> None:
    ask(server, "gpt-4o", 2)
    ask(server, "gpt-4o-mini", 3)
    page = open_window(server).sign_in().visit("/distill")
    teacher = page.get_by_label(WORDS("distill.teacher"), exact=True)
    expect(teacher).to_have_value("gpt-4o-mini")
    rows_to_use(page, 3)
    teacher.select_option("")
    rows_to_use(page, 5)
    page.reload()
    rows_to_use(page, 5)
    expect(teacher).to_have_value("")


def test_a_page_that_is_first_visited_while_the_server_is_away_comes_when_it_is_back(
    server: Server, open_window: OpenWindow
) -> None:
    window = open_window(server).sign_in()
    page = window.visit("/keys")
    expect(page.get_by_role("heading", name=WORDS("keys.title"), level=1)).to_be_visible()
    window.settle()
    port = urlsplit(server.url).port
    assert port is not None
    server.stop()
    page.get_by_role("navigation").get_by_role("link", name=WORDS("files.title"), exact=True).click()
    expect(page.get_by_role("main").get_by_text(WORDS("common.reconnecting")).first).to_be_visible()
    server.start(port=port)
    expect(page.get_by_role("heading", name=WORDS("files.title"), level=1)).to_be_visible(timeout=BACK_MS)
    expect(page.get_by_role("button", name=WORDS("files.choose"), exact=True)).to_be_visible()
