"""Somebody without a mouse: everything is reached by Tab, and pressed by the keys that it knows."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

MOST_TABS = 80
FOCUSED = """() => {
    const focused = document.activeElement;
    return focused ? focused.outerHTML.slice(0, 160) : "nothing";
}"""


class Keys:
    """The keyboard of a page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self._page.keyboard.press(key)

    def type(self, text: str) -> None:
        self._page.keyboard.type(text)

    def tab_to(self, wanted: Locator, *, backwards: bool = False) -> None:
        """Presses Tab until the control has the focus. Fails with where the focus went when it never gets it."""
        expect(wanted).to_be_visible()
        expect(wanted).to_be_enabled()
        seen: list[str] = []
        for _ in range(MOST_TABS):
            if has_focus(wanted):
                return
            self._page.keyboard.press("Shift+Tab" if backwards else "Tab")
            seen.append(self._page.evaluate(FOCUSED))
        raise AssertionError(f"{wanted} is not reached by {MOST_TABS} tabs. The focus went:\n" + "\n".join(seen[-20:]))

    def press_on(self, wanted: Locator, key: str = "Enter", *, backwards: bool = False) -> None:
        """Goes to a control and presses a key there."""
        self.tab_to(wanted, backwards=backwards)
        self._page.keyboard.press(key)


def has_focus(element: Locator) -> bool:
    return bool(element.evaluate("element => element === document.activeElement"))
