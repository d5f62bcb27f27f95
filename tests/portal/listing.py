"""The Completions page as somebody uses it: its rows, what is selected, and the panel of one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlencode

from openai import OpenAI
from playwright.sync_api import Locator, Page, expect

from tests.portal.window import Window
from tests.portal.words import Words
from tests.support import Server

LOADED_ROWS = 100  # at most so many are loaded before somebody scrolls
SOON_MS = 5_000


def store(server: Server, questions: Iterable[str], **metadata: str) -> list[str]:
    """Asks the teacher, which repeats each question; gives the ids of what was stored, oldest first."""
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as sdk:
        return [
            sdk.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": question}], store=True, metadata=metadata
            ).id
            for question in questions
        ]


class Listing:
    """The list of the completions that have some metadata, in a window."""

    def __init__(self, window: Window, words: Words) -> None:
        self.window = window
        self.page: Page = window.page
        self.words = words
        self.grid = self.page.get_by_role("grid", name=words("completions.title"))
        self.panel = self.page.get_by_role("dialog", name=words("completions.one"), exact=True)

    def visit(self, *, search: str | None = None, **metadata: str) -> Listing:
        """Opens the page on a filter and waits until it has an answer."""
        conditions = {f"metadata[{key}]": value for key, value in metadata.items()}
        if search is not None:
            conditions["search"] = search
        self.window.visit(f"/completions?{urlencode(conditions)}")
        nothing = self.page.get_by_role("heading", name=self.words("completions.none_match"))
        expect(self.grid.or_(nothing)).to_be_visible()
        return self

    def row(self, text: str) -> Locator:
        """The row whose answer is this text; the teacher repeats the question."""
        return self.grid.get_by_role("row").filter(has=self.page.get_by_text(text, exact=True))

    def box(self, text: str) -> Locator:
        return self.row(text).get_by_role("checkbox")

    def expect_rows_selected(self, *questions: str) -> None:
        """These rows are selected, from the top down, and no others of those that are shown."""
        expect(self.grid.get_by_role("row", selected=True)).to_have_count(len(questions))
        for at, question in enumerate(questions):
            row = self.grid.get_by_role("row", selected=True).nth(at)
            name = self.words("completions.select_row", question=question)
            expect(row.get_by_role("checkbox", name=name, exact=True, checked=True)).to_be_visible()

    def deed(self, name: str) -> Locator:
        """A button of the bar that the selection has."""
        bar = self.page.get_by_role("region", name=self.words("completions.selection"))
        return bar.get_by_role("button", name=self.words(name), exact=True)

    def expect_selected(self, count: int) -> None:
        expect(self.page.get_by_text(self.words("completions.selected", size=count), exact=True)).to_be_visible()

    def select_loaded(self) -> None:
        self.page.get_by_role("checkbox", name=self.words("completions.select_loaded")).check()

    def select_all(self, count: int) -> None:
        """Selects the rows that are loaded, and from there all that match, which must be more."""
        self.select_loaded()
        bar = self.page.get_by_role("region", name=self.words("completions.selection"))
        some = re.findall(r"\d+", bar.get_by_role("status").inner_text())
        assert 0 < int(some[0]) < count
        bar.get_by_role("button", name=self.words("completions.select_all", size=count)).click()
        self.expect_selected(count)

    def expect_match(self, count: int) -> None:
        expect(self.page.get_by_text(self.words("completions.match", count=count), exact=True)).to_be_visible()

    def facet(self, key: str, value: str) -> Locator:
        """The button that narrows the list to one value of a metadata key."""
        values = self.page.get_by_role("list", name=key, exact=True)
        return values.get_by_role("button", name=re.compile(f"^{re.escape(value)}"))
