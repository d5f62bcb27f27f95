"""In a real browser: the printed address signs in once, and a page of another port cannot use the cookie."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from tests.faults.wire import send
from tests.portal.conftest import OpenWindow
from tests.portal.window import Window
from tests.portal.words import Words
from tests.support import Server

KEYS = "/v1/stillroom/keys"
PAGES = (
    "/",
    "/completions",
    "/distill",
    "/jobs",
    "/deployments",
    "/playground",
    "/evals",
    "/models",
    "/files",
    "/usage",
    "/keys",
)
POLLED_BY_THEN_MS = 2500
WORDS = Words("en")
WRITE = """async ([url, name]) => {
    const asked = { method: "POST", mode: "no-cors", credentials: "include", body: JSON.stringify({ name }) };
    await fetch(url, asked);
}"""
READ = """async (url) => {
    try { return await (await fetch(url, { credentials: "include" })).text(); } catch { return null; }
}"""


class _Page(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another program</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def other_port() -> Iterator[str]:
    """The address of a program on the same host: the same site to a browser, which then sends the cookie along."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/"
        listening.shutdown()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    opened = chromium.new_context()
    yield opened
    opened.close()


def address(server: Server) -> str:
    return server.cli("portal").stdout.strip()


def statuses(page: Page) -> list[tuple[str, int]]:
    """What the page's requests for keys are answered, as it comes."""
    seen: list[tuple[str, int]] = []
    page.on(
        "response",
        lambda answer: seen.append((answer.request.method, answer.status)) if answer.url.endswith(KEYS) else None,
    )
    return seen


def key_names(server: Server) -> list[str]:
    return [key["name"] for key in send(server, "GET", KEYS).json["data"]]


def test_the_printed_address_signs_in_and_leaves_the_address_bar(portal: Server, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(address(portal))
    expect(page.get_by_role("navigation")).to_be_visible()
    assert "#" not in page.url
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Strict", False)
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate(READ, f"{portal.url}{KEYS}")


def test_a_page_of_another_port_can_neither_write_nor_read(
    portal: Server, context: BrowserContext, other_port: str
) -> None:
    ours = context.new_page()
    ours.goto(address(portal))
    expect(ours.get_by_role("navigation")).to_be_visible()
    theirs = context.new_page()
    theirs.goto(other_port)
    seen = statuses(theirs)
    theirs.evaluate(WRITE, [f"{portal.url}{KEYS}", "theirs"])
    assert theirs.evaluate(READ, f"{portal.url}{KEYS}") is None
    # 403, not 401: the browser did send the cookie, and the server did not take it.
    assert seen[0] == ("POST", 403)
    assert "theirs" not in key_names(portal)
    ours.evaluate(WRITE, [f"{portal.url}{KEYS}", "ours"])
    assert "ours" in key_names(portal)


def expect_nobody_signed_in(page: Page) -> None:
    """The page to sign in is all that is shown, and nothing is asked of the server any more."""
    expect(page.get_by_role("heading", name=WORDS("signin.title"), level=1)).to_be_visible()
    expect(page.get_by_role("navigation")).to_have_count(0)
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    page.wait_for_timeout(POLLED_BY_THEN_MS)
    page.remove_listener("request", note)
    assert asked == []


def sign_out(page: Page) -> None:
    page.get_by_role("button", name=WORDS("common.sign_out"), exact=True).click()


@pytest.mark.parametrize("path", PAGES)
def test_signing_out_shows_the_page_to_sign_in_at_once_and_asks_nothing_more(
    portal: Server, open_window: OpenWindow, path: str
) -> None:
    window = open_window(portal).sign_in()
    page = window.visit(path)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    window.settle()
    sign_out(page)
    expect_nobody_signed_in(page)
    expect(page.get_by_text(WORDS("signin.ended"))).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name=WORDS("signin.title"), level=1)).to_be_visible()


def enter(window: Window, key: str) -> Page:
    page = window.visit("/keys")
    page.get_by_label(WORDS("signin.key"), exact=True).fill(key)
    page.get_by_role("button", name=WORDS("signin.enter"), exact=True).click()
    expect(page.get_by_role("heading", name=WORDS("keys.title"), level=1)).to_be_visible()
    return page


def test_after_signing_out_another_key_signs_in(portal: Server, open_window: OpenWindow) -> None:
    window = open_window(portal)
    sign_out(enter(window, portal.key))
    enter(window, portal.key)
    window.settle()


def test_a_revoked_key_shows_the_page_to_sign_in_and_says_why(portal: Server, open_window: OpenWindow) -> None:
    made = send(portal, "POST", KEYS, {"name": "passing"}).json
    page = enter(open_window(portal), made["key"])
    assert send(portal, "DELETE", f"{KEYS}/{made['id']}").status == 200
    page.get_by_role("link", name=WORDS("usage.title"), exact=True).click()
    expect(page.get_by_text(WORDS("signin.ended"))).to_be_visible()
    expect_nobody_signed_in(page)


def test_a_printed_address_that_was_used_is_refused_and_leaves_the_address_bar(
    portal: Server, chromium: Browser, context: BrowserContext
) -> None:
    printed = address(portal)
    first = context.new_page()
    first.goto(printed)
    expect(first.get_by_role("navigation")).to_be_visible()
    other = chromium.new_context()
    page = other.new_page()
    page.goto(printed)
    expect(page.get_by_role("alert")).to_be_visible()
    assert "#" not in page.url
    # It is taken out, too, where the portal is open already.
    page.goto(printed)
    page.wait_for_function("!location.hash")
    expect(page.get_by_role("alert")).to_be_visible()
    other.close()
