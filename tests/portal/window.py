"""A browser window on a server's portal, and what no page of it may ever do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect

from tests.support import Server

AXE = Path(__file__).parents[2] / "portal" / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 15_000
REFUSED_REQUEST = re.compile(r"Failed to load resource|net::ERR_")  # what a page handles and tells in words


@dataclass(frozen=True)
class Size:
    width: int
    height: int


TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
WIDE, NARROW = Size(1440, 900), Size(390, 844)

expect.set_options(timeout=PATIENCE_MS)


class Window:
    """One signed-in window. `page` is Playwright's; `close` fails when a script broke, the page's own
    policy was violated, or anything was asked of another origin."""

    def __init__(self, browser: Browser, server: Server, *, language: str, size: Size, dark: bool) -> None:
        self.server = server
        self.mishaps: list[str] = []
        self._context = browser.new_context(
            viewport={"width": size.width, "height": size.height},
            locale={"en": "en-US", "ja": "ja-JP"}[language],
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
            permissions=["clipboard-read", "clipboard-write"],
        )
        self._context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self._context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.mishaps.append(f"a script broke: {error}"))
        self.page.on("request", self._request)
        self.page.on("dialog", self._dialog)

    def sign_in(self) -> Window:
        """Gets the session's cookie, as the sign-in page does."""
        headers = {"origin": self.server.url}
        answer = self._context.request.post(
            f"{self.server.url}/v1/stillroom/sessions", data={"key": self.server.key}, headers=headers
        )
        assert answer.ok, answer.text()
        return self

    def visit(self, path: str) -> Page:
        """Goes to a page of the portal."""
        self.page.goto(f"{self.server.url}{path}")
        return self.page

    def settle(self) -> None:
        """Until nothing on the page says that it waits for something."""
        expect(self.page.locator(".waiting, [aria-busy=true], [data-stale=true]")).to_have_count(0)

    def serious_violations(self, *rules: str) -> list[str]:
        """What axe calls serious or critical on the page as it is now, by all of its rules or by these."""
        self.page.evaluate(_axe())
        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = rules
        found: dict[str, Any] = self.page.evaluate("options => axe.run(document, options)", options)
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"][:3]
        ]

    def darken(self) -> None:
        """Turns the system's colours dark; charts, which are drawn anew for that, are there when it returns."""
        self.page.emulate_media(color_scheme="dark")
        self.page.evaluate(TWO_FRAMES)
        self.page.evaluate(TWO_FRAMES)

    def sideways_pixels(self) -> int:
        """How far the page can be scrolled sideways; 0 is right."""
        room = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return max(0, int(self.page.evaluate(room)))

    def close(self) -> None:
        self._context.close()
        assert self.mishaps == []

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not REFUSED_REQUEST.search(message.text):
            self.mishaps.append(f"the console says: {message.text}")

    def _dialog(self, dialog: Dialog) -> None:
        self.mishaps.append(f"the browser asks: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme not in ("data", "blob") and f"{asked.scheme}://{asked.netloc}" != self.server.url:
            self.mishaps.append(f"a foreign request: {request.url}")


@cache
def _axe() -> str:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run `npm ci` in portal/")
    return AXE.read_text(encoding="utf-8")
