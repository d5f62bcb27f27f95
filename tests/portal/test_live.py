"""The list of completions by itself: new rows appear, the filter is in the address, hidden windows are quiet."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Request, expect

from tests.portal.conftest import OpenWindow
from tests.portal.listing import SOON_MS, Listing, store
from tests.portal.words import Words
from tests.support import Server

LOOKED_MS = 3_000  # a window that is seen looks about three times in so long
SETTLING_MS = 500

# Headless Chromium calls every window visible: so the document says what the test wants, as it is said when one
# changes tabs.
VISIBILITY = """
let state = "visible";
Object.defineProperty(Document.prototype, "visibilityState", { get: () => state });
Object.defineProperty(Document.prototype, "hidden", { get: () => state === "hidden" });
window.becomes = (next) => { state = next; document.dispatchEvent(new Event("visibilitychange", { bubbles: true })); };
"""


@pytest.fixture
def listing(portal: Server, open_window: OpenWindow) -> Listing:
    return Listing(open_window(portal).sign_in(), Words("en"))


def test_a_completion_that_a_script_stores_appears_by_itself(portal: Server, listing: Listing) -> None:
    store(portal, ["first whale"], task="live")
    listing.visit(task="live")
    for number in range(3):
        store(portal, [f"whale {number}"], task="live")
        expect(listing.row(f"whale {number}")).to_be_visible(timeout=SOON_MS)
    listing.expect_match(4)


def test_a_completion_that_does_not_match_does_not_appear(portal: Server, listing: Listing) -> None:
    store(portal, ["whale"], task="matching")
    listing.visit(task="matching")
    store(portal, ["otter"], task="another")
    store(portal, ["second whale"], task="matching")
    expect(listing.row("second whale")).to_be_visible()
    expect(listing.row("otter")).to_be_hidden()


def test_the_search_finds_japanese_that_was_stored_a_moment_ago(portal: Server, listing: Listing) -> None:
    store(portal, ["東京の天気は晴れです", "大阪の天気は雨です"], task="search")
    listing.visit(task="search")
    listing.page.get_by_role("searchbox").fill("クジラの歌")
    expect(listing.page.get_by_role("heading", name=listing.words("completions.none_match"))).to_be_visible()
    store(portal, ["遠くのｸｼﾞﾗの歌が聞こえる"], task="search")
    expect(listing.row("遠くのｸｼﾞﾗの歌が聞こえる")).to_be_visible(timeout=SOON_MS)
    listing.page.get_by_role("searchbox").fill("天")
    expect(listing.row("東京の天気は晴れです")).to_be_visible()
    expect(listing.row("遠くのｸｼﾞﾗの歌が聞こえる")).to_be_hidden()
    listing.expect_match(2)


def test_the_filter_is_in_the_address_and_survives_reloading_and_going_back_and_forward(
    portal: Server, listing: Listing
) -> None:
    store(portal, ["blue whale", "grey whale"], task="address", animal="whale")
    store(portal, ["sea otter"], task="address", animal="otter")
    page = listing.visit(task="address").page
    listing.facet("animal", "whale").click()
    listing.expect_match(2)
    expect(page).to_have_url(re.compile(r"metadata(\[|%5B)animal(\]|%5D)=whale"))
    page.reload()
    expect(listing.row("blue whale")).to_be_visible()
    expect(listing.row("sea otter")).to_be_hidden()
    listing.facet("animal", "whale").click()
    listing.expect_match(3)
    page.go_back()
    listing.expect_match(2)
    expect(listing.row("sea otter")).to_be_hidden()
    page.go_back()
    expect(listing.row("sea otter")).to_be_visible()
    page.go_forward()
    expect(listing.row("sea otter")).to_be_hidden()
    expect(listing.row("grey whale")).to_be_visible()


def test_the_opened_row_is_in_the_address_and_back_closes_it(portal: Server, listing: Listing) -> None:
    (whale,) = store(portal, ["blue whale"], task="opened")
    page = listing.visit(task="opened").page
    listing.row("blue whale").click()
    expect(page).to_have_url(re.compile(f"open={whale}"))
    page.reload()
    expect(listing.panel.get_by_text("blue whale", exact=True).first).to_be_visible()
    page.go_back()
    expect(listing.panel).to_be_hidden()
    expect(listing.row("blue whale")).to_be_visible()


@pytest.fixture
def asked(listing: Listing) -> Iterator[list[str]]:
    """What the window asks of the API, as it asks."""
    found: list[str] = []

    def note(request: Request) -> None:
        if "/v1/" in request.url:
            found.append(request.url)

    listing.page.on("request", note)
    yield found
    listing.page.remove_listener("request", note)


def test_a_hidden_window_asks_nothing_and_catches_up_when_it_is_seen(
    portal: Server, listing: Listing, asked: list[str]
) -> None:
    listing.page.add_init_script(VISIBILITY)
    store(portal, ["first whale"], task="hidden")
    listing.visit(task="hidden")
    listing.expect_match(1)
    asked.clear()
    listing.page.wait_for_timeout(LOOKED_MS)
    assert asked  # as long as it is seen
    listing.page.evaluate("becomes('hidden')")
    listing.page.wait_for_timeout(SETTLING_MS)  # what was asked just before is answered
    store(portal, ["second whale"], task="hidden")
    asked.clear()
    listing.page.wait_for_timeout(LOOKED_MS)
    assert asked == []
    expect(listing.row("second whale")).to_be_hidden()
    listing.page.evaluate("becomes('visible')")
    expect(listing.row("second whale")).to_be_visible(timeout=SOON_MS)
