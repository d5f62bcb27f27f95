"""The list narrowed by what its completions have in common."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.portal.conftest import OpenWindow
from tests.portal.listing import Listing, store
from tests.portal.words import Words
from tests.support import Server


def test_a_chosen_value_leaves_the_others_of_its_key_to_be_switched_to(portal: Server, open_window: OpenWindow) -> None:
    listing = Listing(open_window(portal).sign_in(), Words("en"))
    store(portal, ["red 1", "red 2"], task="switch", colour="red")
    store(portal, ["blue 1"], task="switch", colour="blue")
    store(portal, ["green 1"], task="no switch", colour="green")
    listing.visit(task="switch")
    listing.facet("colour", "red").click()
    listing.expect_match(2)
    expect(listing.facet("colour", "red")).to_have_attribute("aria-pressed", "true")
    expect(listing.facet("colour", "red")).to_have_text("red2")
    expect(listing.facet("colour", "green")).to_be_hidden()
    listing.facet("colour", "blue").click()
    listing.expect_match(1)
    expect(listing.row("blue 1")).to_be_visible()
    expect(listing.row("red 1")).to_be_hidden()
