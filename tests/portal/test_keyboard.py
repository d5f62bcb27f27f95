"""The same by keyboard alone: signing in, finding, selecting, distilling, deploying."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.portal.conftest import OpenWindow
from tests.portal.keys import Keys
from tests.portal.listing import Listing, store
from tests.portal.window import Window
from tests.portal.words import Words
from tests.support import Server

MEASURING_MS = 120_000
WHALES = [f"whale {number}" for number in range(12)]


@pytest.fixture
def words() -> Words:
    return Words("en")


@pytest.fixture
def window(portal: Server, open_window: OpenWindow) -> Window:
    return open_window(portal)


@pytest.fixture
def keys(window: Window) -> Keys:
    return Keys(window.page)


@pytest.mark.slow
def test_somebody_without_a_mouse_gets_from_signing_in_to_a_job(
    portal: Server, window: Window, keys: Keys, words: Words
) -> None:
    store(portal, [*WHALES, "otter"], task="keyboard", animal="whale")
    store(portal, ["otter"], task="keyboard", animal="otter")
    page = window.visit("/")
    sign_in(page, keys, words, portal.key)

    keys.press_on(page.get_by_role("link", name=words("completions.title"), exact=True).first)
    listing = Listing(window, words)
    expect(listing.grid).to_be_visible()
    narrow(listing, keys)
    look_at_one(listing, keys)
    select(listing, keys)
    keys.press_on(listing.deed("completions.distill"), backwards=True)
    distill(page, keys, words)
    cancel(page, keys, words)


def sign_in(page: Page, keys: Keys, words: Words, key: str) -> None:
    field = page.get_by_label(words("signin.key"))
    expect(field).to_be_focused()
    keys.type(key)
    keys.press("Enter")
    expect(page.get_by_role("heading", name=words("overview.title"), level=1)).to_be_visible()


def narrow(listing: Listing, keys: Keys) -> None:
    for key, value in (("animal", "whale"), ("task", "keyboard")):
        keys.press_on(listing.facet(key, value))
        expect(listing.page).to_have_url(re.compile(rf"metadata(\[|%5B){key}(\]|%5D)={value}"))
    listing.expect_match(13)


def look_at_one(listing: Listing, keys: Keys) -> None:
    """Opens a row's panel, walks to the next row in it, and comes back to where the keys were."""
    page, words = listing.page, listing.words
    keys.tab_to(listing.grid)
    keys.press("Home", "ArrowDown", "Enter")
    expect(listing.panel.get_by_text("whale 11", exact=True).first).to_be_visible()
    expect(listing.panel).to_be_focused()
    keys.press("ArrowDown")
    expect(listing.panel.get_by_text("whale 10", exact=True).first).to_be_visible()
    keys.tab_to(page.get_by_role("tab", name=words("completions.view_conversation")))
    keys.press("ArrowRight")
    expect(page.get_by_role("tab", name=words("completions.view_raw"))).to_be_focused()
    expect(listing.panel.get_by_role("heading", name=words("completions.request"))).to_be_visible()
    keys.press("Escape")
    expect(listing.panel).to_be_hidden()
    expect(listing.grid).to_be_focused()


def select(listing: Listing, keys: Keys) -> None:
    keys.press("Home", "Space", "Shift+ArrowDown", "Shift+ArrowDown", "Shift+ArrowDown", "Shift+ArrowUp")
    listing.expect_rows_selected("otter", "whale 11", "whale 10")
    keys.press("Escape")
    listing.expect_match(13)
    keys.press("Home", "ArrowDown", "Space", "Shift+End")
    listing.expect_rows_selected(*reversed(WHALES))


def distill(page: Page, keys: Keys, words: Words) -> None:
    for step in ("curation", "split", "student", "hyperparameters"):
        keys.press_on(page.get_by_role("button", name=words("distill.next", step=words(f"distill.step_{step}"))))
        expect(page.get_by_role("heading", name=words(f"distill.step_{step}"), level=2)).to_be_focused()
    epochs = page.get_by_role("group", name=words("distill.label_n_epochs"))
    keys.press_on(epochs.get_by_role("checkbox"), "Space")
    keys.tab_to(epochs.get_by_role("spinbutton"))
    keys.press("Control+a")
    keys.type("40")
    keys.press_on(page.get_by_role("button", name=words("distill.next", step=words("distill.step_quote"))))
    keys.press_on(page.get_by_role("button", name=words("distill.start"), exact=True))
    expect(page).to_have_url(re.compile("/jobs/ftjob-"), timeout=MEASURING_MS)


def cancel(page: Page, keys: Keys, words: Words) -> None:
    deed = words("jobs.cancel")
    keys.press_on(page.get_by_role("button", name=deed, exact=True))
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name=words("jobs.keep_training"), exact=True)).to_be_focused()
    keys.press("Escape")
    expect(dialog).to_be_hidden()
    opener = page.get_by_role("button", name=deed, exact=True)
    expect(opener).to_be_focused()
    keys.press("Enter")
    keys.press_on(dialog.get_by_role("button", name=deed, exact=True))
    expect(page.get_by_text(words("jobs.state_cancelled"), exact=True).first).to_be_visible(timeout=MEASURING_MS)


def test_a_model_is_deployed_and_asked_by_keyboard(window: Window, keys: Keys, words: Words) -> None:
    page = window.sign_in().visit("/models")
    row = page.get_by_role("row").filter(has_text="gpt-4o")
    keys.press_on(row.get_by_role("button", name=words("models.deploy")))
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("textbox")).to_be_focused()
    keys.press("Control+a")
    keys.type("keyboard-whale")
    keys.press("Enter")
    keys.press_on(dialog.get_by_role("link", name=words("deploy.playground")))
    expect(page.get_by_role("combobox", name=words("playground.model_left"))).to_have_value("keyboard-whale")
    keys.tab_to(page.get_by_role("textbox", name=words("playground.message")))
    keys.type("How deep?")
    keys.press("Control+Enter")
    answer = page.get_by_role("article", name=words("playground.answer_of", name="keyboard-whale"))
    expect(answer.get_by_text("How deep?", exact=True)).to_be_visible()
