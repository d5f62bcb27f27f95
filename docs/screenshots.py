"""Takes the README's pictures of the portal from a server that `stillroom demo` has left running.

stillroom demo                                   # in another terminal, until it says what to try
python docs/screenshots.py                       # writes docs/images/*.png
python docs/screenshots.py --all FOLDER          # every page: both widths, both languages, light and dark
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
WIDE, NARROW = (1440, 900), (390, 844)
PAGES = ("", "completions", "distill", "jobs", "deployments", "playground", "evals", "models", "files", "usage", "keys")
SETTLE_MS = 1200


class Demo:
    """The demo's server and what its data folder tells."""

    def __init__(self, data: Path) -> None:
        self.url = json.loads((data / "server.json").read_text())["url"]
        self.key = (data / "admin-key").read_text().strip()

    def first(self, path: str) -> dict[str, object]:
        """The newest object of a list."""
        asked = Request(f"{self.url}/v1/{path}", headers={"authorization": f"Bearer {self.key}"})
        with urlopen(asked, timeout=30) as answer:
            found: dict[str, object] = json.load(answer)["data"][0]
            return found

    def below(self) -> dict[str, str]:
        """Pages of one thing, by the name of their picture."""
        definition = self.first("evals?order=desc")["id"]
        return {
            "completion": f"completions?open={self.first('stillroom/completions')['id']}",
            "search": f"completions?metadata%5Bsplit%5D=training&search={quote('refund')}",
            "job": f"jobs/{self.first('fine_tuning/jobs')['id']}",
            "eval": f"evals/{definition}",
            "eval_run": f"evals/{definition}/runs/{self.first(f'evals/{definition}/runs')['id']}",
        }


@contextmanager
def browser() -> Iterator[Browser]:
    root = os.geteuid() == 0
    flags = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        started = playwright.chromium.launch(executable_path=found, args=[*flags, *(["--no-sandbox"] if root else [])])
        yield started
        started.close()


def window(opened: Browser, demo: Demo, size: tuple[int, int], language: str, *, dark: bool, scale: float = 1) -> Page:
    """A signed-in window."""
    context = opened.new_context(
        viewport={"width": size[0], "height": size[1]},
        locale={"en": "en-US", "ja": "ja-JP"}[language],
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
    )
    context.request.post(f"{demo.url}/v1/stillroom/sessions", data={"key": demo.key}, headers={"origin": demo.url})
    return context.new_page()


def shoot(page: Page, demo: Demo, path: str, to: Path, *, whole: bool = False) -> None:
    page.goto(f"{demo.url}/{path}")
    page.wait_for_timeout(SETTLE_MS)
    to.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=to, full_page=whole)
    print(to)


def for_readme(demo: Demo) -> None:
    below = demo.below()
    with browser() as opened:
        shoot(window(opened, demo, WIDE, "en", dark=False), demo, "completions", IMAGES / "completions.png")
        shoot(window(opened, demo, WIDE, "en", dark=False), demo, below["eval"], IMAGES / "comparison.png")


def for_looking(demo: Demo, folder: Path) -> None:
    named = {path or "overview": path for path in PAGES} | demo.below()
    looks = [
        ("wide-light-en", WIDE, "en", False),
        ("narrow-light-en", NARROW, "en", False),
        ("wide-dark-ja", WIDE, "ja", True),
        ("narrow-dark-ja", NARROW, "ja", True),
    ]
    with browser() as opened:
        for look, size, language, dark in looks:
            page = window(opened, demo, size, language, dark=dark)
            for name, path in named.items():
                shoot(page, demo, path, folder / f"{name}-{look}.png", whole=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("demo-data"), help="the demo's data folder")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="take every page into this folder instead")
    asked = parser.parse_args()
    demo = Demo(asked.data)
    if asked.all:
        for_looking(demo, asked.all)
    else:
        for_readme(demo)


if __name__ == "__main__":
    main()
