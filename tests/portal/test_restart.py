"""The server goes away under open pages and comes back: they say so, keep what they show, and go on by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from openai import OpenAI
from playwright.sync_api import Locator, expect

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.portal.conftest import OpenWindow
from tests.portal.listing import Listing, store
from tests.portal.window import Window
from tests.portal.words import Words
from tests.support import Server, example_lines, wait_for

STARTING_MS = 90_000  # a trainer's process starts, and trains its first step
BACK_MS = 30_000

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with ScriptedTeacher(echo) as teacher:
        teachers = {"gpt-4o": {"base_url": teacher.url}}
        with Server(tmp_path / "data", teachers=teachers, training_checkpoint_seconds=0.5) as running:
            yield running


def begin_long_job(server: Server) -> str:
    """A job that trains for much longer than the test takes."""
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as sdk:
        file = sdk.files.create(file=("colours.jsonl", example_lines(200)), purpose="fine-tune")
        hyperparameters = {"n_epochs": 50, "batch_size": 4}
        made = sdk.fine_tuning.jobs.create(
            model="scratch-small",
            training_file=file.id,
            hyperparameters=hyperparameters,  # type: ignore[arg-type]
        )
    return made.id


@pytest.mark.parametrize("end", [Server.kill, Server.stop], ids=["killed", "stopped"])
def test_pages_that_are_open_while_the_server_restarts_go_on_where_they_were(
    server: Server, open_window: OpenWindow, end: Callable[[Server], object]
) -> None:
    words = Words("en")
    job = begin_long_job(server)
    store(server, ["early whale"], task="restart")
    listing = Listing(open_window(server).sign_in(), words).visit(task="restart")
    expect(listing.row("early whale")).to_be_visible()
    watching = open_window(server).sign_in()
    curve = watching.visit(f"/jobs/{job}").get_by_role("img", name=words.beginning("jobs.chart_label"))
    expect(curve).to_be_visible(timeout=STARTING_MS)
    windows = (listing.window, watching)
    for window in windows:
        expect(note(window, words)).to_be_hidden()

    port = urlsplit(server.url).port
    assert port is not None
    before = steps(curve)
    end(server)
    for window in windows:
        expect(note(window, words)).to_be_visible()
    expect(listing.row("early whale")).to_be_visible()
    assert steps(curve) >= before

    server.start(port=port)
    for window in windows:
        expect(note(window, words)).to_be_hidden(timeout=BACK_MS)
    store(server, ["late whale"], task="restart")
    expect(listing.row("late whale")).to_be_visible()
    expect(listing.row("early whale")).to_be_visible()
    listing.expect_match(2)
    await_growth(curve, beyond=before)
    for window in windows:
        expect(window.page.get_by_role("button", name=words("common.sign_out"))).to_be_visible()
    listing.page.reload()
    expect(listing.row("late whale")).to_be_visible()


def note(window: Window, words: Words) -> Locator:
    return window.page.get_by_text(words("common.reconnecting"), exact=True)


def await_growth(curve: Locator, *, beyond: int) -> None:
    """Until the curve has more steps than it had. It may go back to what was saved, but never vanishes."""
    seen = [beyond]

    def grew() -> bool:
        seen.append(steps(curve))
        return seen[-1] > beyond

    wait_for(grew, seconds=STARTING_MS / 1000)
    assert min(seen) > 0, seen


def steps(curve: Locator) -> int:
    """How many steps the curve has, as its label says; 0 without a curve."""
    if not curve.count():
        return 0
    found = re.search(r"[\d,]+", curve.get_attribute("aria-label") or "")
    assert found is not None
    return int(found[0].replace(",", ""))
