"""The panel of one completion."""

from __future__ import annotations

from pathlib import Path

from openai import OpenAI
from playwright.sync_api import expect

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.portal.conftest import PRICE, OpenWindow
from tests.portal.listing import Listing
from tests.portal.words import Words
from tests.support import Server

DATED = "gpt-4o-2024-11-20"


def test_the_panel_says_who_answered_when_it_was_another_than_who_was_called(
    tmp_path: Path, open_window: OpenWindow
) -> None:
    with ScriptedTeacher(echo, model=DATED) as teacher:
        teachers = {name: {"base_url": teacher.url, "price": PRICE} for name in ("gpt-4o", DATED)}
        with Server(tmp_path / "data", teachers=teachers) as server:
            with OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as sdk:
                for model in teachers:
                    question = {"role": "user", "content": f"hello {model}"}
                    sdk.chat.completions.create(model=model, messages=[question], store=True)  # type: ignore[list-item]
            listing = Listing(open_window(server).sign_in(), Words("en")).visit()
            listing.row("hello gpt-4o").click()
            told = listing.panel.get_by_text(listing.words("completions.answered_by"), exact=True)
            expect(told).to_be_visible()
            expect(listing.panel.get_by_text(DATED, exact=True)).to_be_visible()
            listing.row(f"hello {DATED}").click()
            expect(listing.panel.get_by_text(f"hello {DATED}", exact=True).first).to_be_visible()
            expect(told).to_be_hidden()
