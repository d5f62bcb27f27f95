"""The whole story by mouse: store, see, filter, select, distill, watch, deploy, chat, store again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.portal.conftest import PRICE, OpenWindow
from tests.portal.listing import LOADED_ROWS, Listing
from tests.portal.window import NARROW, WIDE, Size
from tests.portal.words import Words
from tests.support import Server

EPOCHS = 1
# Nothing that a student could have learned to say.
QUESTION = "Which one sings at night, and for whom?"
TRAINING_MS = 120_000

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who looks, at how much: two thirds of the rows are whales."""

    language: str
    size: Size
    rows: int

    @property
    def whales(self) -> int:
        return self.rows - -(-self.rows // 3)


READERS = {
    "english, wide": Reader(language="en", size=WIDE, rows=2 * LOADED_ROWS),
    "japanese, narrow": Reader(language="ja", size=NARROW, rows=30),
}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Server]:
    """A server on which nothing is stored yet."""
    with ScriptedTeacher(echo) as teacher:
        teachers = {"gpt-4o": {"base_url": teacher.url, "price": PRICE}}
        with Server(tmp_path / "data", teachers=teachers) as running:
            yield running


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_somebody_who_never_scripts_gets_from_stored_completions_to_a_deployed_student(
    empty: Server, open_window: OpenWindow, reader: Reader
) -> None:
    words = Words(reader.language)
    window = open_window(empty, language=reader.language, size=reader.size)
    page = window.page
    page.goto(empty.cli("portal").stdout.strip().splitlines()[-1])
    expect(page.get_by_role("heading", name=words("overview.title"), level=1)).to_be_visible()
    assert "#" not in page.url

    _go(page, words, reader)
    expect(page.get_by_role("heading", name=words("completions.none_yet"))).to_be_visible()
    _store(empty, reader.rows)
    listing = Listing(window, words)
    expect(listing.row(f"animal {reader.rows - 1}")).to_be_visible()

    _narrow_to_whales(listing, reader)
    _select_whales(listing, reader)
    listing.deed("completions.distill").click()
    _distill(page, words)
    _watch(page, words)
    _deploy(page, words)
    _chat(page, words)
    page.get_by_role("link", name=words("playground.stored"), exact=True).first.click()
    expect(listing.panel.get_by_text(QUESTION, exact=True).first).to_be_visible()
    expect(listing.panel.get_by_text("preferred", exact=True).first).to_be_visible()
    assert window.sideways_pixels() == 0


def _store(server: Server, rows: int) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as sdk:
        for number in range(rows):
            sdk.chat.completions.create(
                model="gpt-4o",
                messages=[
                    {"role": "system", "content": "Repeat what you hear."},
                    {"role": "user", "content": f"animal {number}"},
                ],
                store=True,
                metadata={"animal": "whale" if number % 3 else "otter"},
            )


def _go(page: Page, words: Words, reader: Reader) -> None:
    if reader.size is NARROW:
        page.get_by_role("button", name=words("common.menu")).click()
    page.get_by_role("navigation").get_by_role("link", name=words("completions.title"), exact=True).click()
    expect(page.get_by_role("heading", name=words("completions.title"), level=1)).to_be_visible()


def _narrow_to_whales(listing: Listing, reader: Reader) -> None:
    page, words = listing.page, listing.words
    if reader.size is NARROW:
        page.get_by_role("button", name=words("completions.filters"), exact=True).click()
    listing.facet("animal", "whale").click()
    if reader.size is NARROW:
        page.get_by_role("dialog").get_by_role("button", name=words("common.close")).click()
    expect(page).to_have_url(re.compile(r"metadata(\[|%5B)animal(\]|%5D)=whale"))
    listing.expect_match(reader.whales)
    expect(listing.row("animal 0")).to_be_hidden()


def _select_whales(listing: Listing, reader: Reader) -> None:
    if reader.whales > LOADED_ROWS:
        listing.select_all(reader.whales)
    else:
        listing.select_loaded()
    listing.expect_selected(reader.whales)


def _distill(page: Page, words: Words) -> None:
    page.get_by_role("button", name=words("distill.next", step=words("distill.step_curation"))).click()
    _curate(page, words)
    for step in ("split", "student", "hyperparameters"):
        page.get_by_role("button", name=words("distill.next", step=words(f"distill.step_{step}"))).click()
    page.get_by_role("checkbox", name=words("distill.drop_prompt")).check()
    epochs = page.get_by_role("group", name=words("distill.label_n_epochs"))
    epochs.get_by_role("checkbox").uncheck()
    epochs.get_by_role("spinbutton").fill(str(EPOCHS))
    page.get_by_role("button", name=words("distill.next", step=words("distill.step_quote"))).click()
    expect(page.get_by_text(words("distill.price"), exact=True)).to_be_visible(timeout=TRAINING_MS)
    page.get_by_role("button", name=words("distill.start"), exact=True).click()
    expect(page).to_have_url(re.compile("/jobs/ftjob-"), timeout=TRAINING_MS)


def _curate(page: Page, words: Words) -> None:
    """Leaves too much out, is told so, and then leaves out what says the same twice."""
    longest = page.get_by_role("textbox", name=words("distill.length_max_answer"))
    longest.fill("8")  # "animal 1", 2, 4, 5, 7 and 8
    expect(page.get_by_text(words("distill.not_enough", count=6, minimum=10))).to_be_visible()
    onward = page.get_by_role("button", name=words("distill.next", step=words("distill.step_split")))
    expect(onward).to_be_disabled()
    longest.fill("")
    duplicates = page.get_by_role("checkbox", name=words("distill.check_exact_duplicate"))
    duplicates.check()
    expect(page.get_by_text(words("distill.rows_count", count=0)).first).to_be_visible()
    expect(onward).to_be_enabled()


def _watch(page: Page, words: Words) -> None:
    """Without a reload, from the queue to the final model."""
    expect(page.get_by_role("progressbar")).to_be_visible()
    chart = page.get_by_role("img", name=words.beginning("jobs.chart_label"))
    expect(chart).to_be_visible(timeout=TRAINING_MS)
    expect(page.get_by_text(words("jobs.final_model"), exact=True)).to_be_visible(timeout=TRAINING_MS)
    expect(page.get_by_role("progressbar")).to_be_hidden()
    expect(page.get_by_text(words("jobs.dropped_prompt"), exact=True)).to_be_visible()


def _deploy(page: Page, words: Words) -> None:
    page.get_by_role("button", name=words("jobs.deploy_this", name=words("jobs.final_model"))).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("whale-student")
    dialog.get_by_role("button", name=words("deploy.deed"), exact=True).click()
    dialog.get_by_role("link", name=words("deploy.playground")).click(timeout=TRAINING_MS)


def _chat(page: Page, words: Words) -> None:
    """The teacher and its student are there beside each other; what they say is stored."""
    expect(page.get_by_role("combobox", name=words("playground.model_left"))).to_have_value("gpt-4o")
    expect(page.get_by_role("combobox", name=words("playground.model_right"))).to_have_value("whale-student")
    settings = page.get_by_role("button", name=words("playground.settings"), exact=True)
    if settings.get_attribute("aria-expanded") == "false":
        settings.click()
    page.get_by_role("button", name=words("playground.system_take")).click()
    expect(page.get_by_role("textbox", name=words("playground.system"))).to_have_value("Repeat what you hear.")
    page.get_by_role("switch", name=words("playground.store")).check()
    page.get_by_role("textbox", name=words("playground.message")).fill(QUESTION)
    page.get_by_role("button", name=words("playground.send"), exact=True).click()
    for name in ("gpt-4o", "whale-student"):
        answer = page.get_by_role("article", name=words("playground.answer_of", name=name))
        expect(answer.get_by_text(words("playground.total_time"), exact=True)).to_be_visible(timeout=TRAINING_MS)
        expect(answer.get_by_role("link", name=words("playground.stored"), exact=True)).to_be_visible()
    page.get_by_role("button", name=f"{words('playground.better')}: gpt-4o").click()
    expect(page.get_by_role("button", name=f"{words('playground.better_chosen')}: gpt-4o")).to_be_enabled()
