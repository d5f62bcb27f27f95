"""Every page of the portal with something on it, in both languages, at both widths, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from stillroom.teachers.scripted import ScriptedTeacher, echo
from tests.faults.wire import send
from tests.portal.conftest import PRICE, OpenWindow
from tests.portal.listing import store
from tests.portal.window import NARROW, WIDE, Size, Window
from tests.portal.words import Words
from tests.support import Server, wait_for

PARTS = {
    "/": "overview",
    "/completions": "completions",
    "/distill": "distill",
    "/jobs": "jobs",
    "/deployments": "deployments",
    "/playground": "playground",
    "/evals": "evals",
    "/models": "models",
    "/files": "files",
    "/usage": "usage",
    "/keys": "keys",
}
STUDENT = "whale-student"
ANSWERING_MS = 60_000

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a small story has left on the server: a job, its deployed student, a comparison with its teacher."""

    completion: str
    job: str
    eval: str
    run: str


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ScriptedTeacher(echo) as teacher:
        teachers = {"gpt-4o": {"base_url": teacher.url, "price": PRICE}}
        with Server(tmp_path_factory.mktemp("pages") / "data", teachers=teachers) as running:
            yield running


@pytest.fixture(scope="module")
def made(portal: Server) -> Made:
    questions = [f"How deep does whale {number} dive? どのくらい深く潜る?" for number in range(20)]
    completions = store(portal, questions, animal="whale", said="deep")
    rows = {"filter": {"metadata": {"animal": "whale"}}, "validation_fraction": 0.3, "seed": 1}
    selection = send(portal, "POST", "/v1/stillroom/selections", rows)
    assert selection.status in (200, 201), selection.body
    selected = selection.json
    with OpenAI(base_url=f"{portal.url}/v1", api_key=portal.key, max_retries=0) as sdk:
        job = sdk.fine_tuning.jobs.create(
            model="scratch-small",
            training_file=selected["training_file"]["id"],
            validation_file=selected["validation_file"]["id"],
            hyperparameters={"n_epochs": 1},
            suffix="whales",
        ).id
        model = wait_for(lambda: sdk.fine_tuning.jobs.retrieve(job).fine_tuned_model, seconds=120)
    account = "/subscriptions/local/resourceGroups/local/providers/Microsoft.CognitiveServices/accounts/local"
    deployment = {"sku": {"name": "Standard", "capacity": 1}}
    properties = {"properties": {"model": {"format": "OpenAI", "name": model, "version": "1"}}}
    where = f"{account}/deployments/{STUDENT}?api-version=2024-10-01"
    assert send(portal, "PUT", where, deployment | properties).status in (200, 201)
    compared = send(portal, "POST", "/v1/stillroom/comparisons", {"jobs": [job], "base": False}).json
    eval_id, run = compared["eval_id"], compared["runs"][0]
    at = f"/v1/evals/{eval_id}/runs/{run}"
    wait_for(lambda: send(portal, "GET", at).json["status"] == "completed", seconds=120)
    return Made(completion=completions[0], job=job, eval=eval_id, run=run)


Shown = Callable[[Page, Words], None]


def pages_of_one(made: Made) -> dict[str, Shown]:
    """The pages of one thing, with what shows that the thing is there."""

    def job(page: Page, words: Words) -> None:
        expect(page.get_by_role("img", name=words.beginning("jobs.chart_label"))).to_be_visible()
        expect(page.get_by_text(words("jobs.final_model"), exact=True)).to_be_visible()

    def report(page: Page, words: Words) -> None:
        expect(page.get_by_role("heading", name=words("evals.glance"))).to_be_visible()

    def run(page: Page, words: Words) -> None:
        expect(page.get_by_role("heading", name=words("evals.items"), exact=True)).to_be_visible()
        expect(page.get_by_role("table").get_by_text("How deep does whale").first).to_be_visible()

    def panel(page: Page, words: Words) -> None:
        expect(page.get_by_role("dialog", name=words("completions.one"))).to_contain_text("How deep does whale 0 dive?")

    def answers(page: Page, words: Words) -> None:
        page.get_by_role("textbox", name=words("playground.message")).fill("How deep?")
        page.get_by_role("button", name=words("playground.send"), exact=True).click()
        for name in ("gpt-4o", STUDENT):
            answer = page.get_by_role("article", name=words("playground.answer_of", name=name))
            expect(answer.get_by_text(words("playground.total_time"), exact=True)).to_be_visible(timeout=ANSWERING_MS)

    return {
        f"/jobs/{made.job}": job,
        f"/evals/{made.eval}": report,
        f"/evals/{made.eval}/runs/{made.run}": run,
        f"/completions?open={made.completion}": panel,
        f"/playground?left=gpt-4o&right={STUDENT}": answers,
    }


def opened(window: Window, made: Made, words: Words) -> Iterator[str]:
    """Opens page after page; each is there, with what it has to show, when its address is given."""
    page = window.page
    for path, part in PARTS.items():
        window.visit(path)
        expect(page.get_by_role("heading", name=words(f"{part}.title"), level=1)).to_be_visible()
        window.settle()
        yield path
    for path, shown in pages_of_one(made).items():
        window.visit(path)
        shown(page, words)
        window.settle()
        yield path


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_page_opens_in_japanese_and_needs_no_sideways_scrolling(
    portal: Server, open_window: OpenWindow, made: Made, size: Size
) -> None:
    window = open_window(portal, language="ja", size=size).sign_in()
    for path in opened(window, made, Words("ja")):
        expect(window.page.locator("html")).to_have_attribute("lang", "ja")
        assert window.sideways_pixels() == 0, path


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_page_opens_in_english_and_axe_finds_nothing_serious_in_light_or_dark(
    portal: Server, open_window: OpenWindow, made: Made, size: Size
) -> None:
    window = open_window(portal, size=size).sign_in()
    window.page.emulate_media(reduced_motion="reduce")
    found = {}
    for path in opened(window, made, Words("en")):
        assert window.sideways_pixels() == 0, path
        found[path, "light"] = window.serious_violations()
        window.darken()
        found[path, "dark"] = window.serious_violations("color-contrast")  # all that colours can change
        window.page.emulate_media(color_scheme="light")
    assert {page: problems for page, problems in found.items() if problems} == {}


def test_axe_would_find_a_button_without_a_name(portal: Server, open_window: OpenWindow) -> None:
    window = open_window(portal).sign_in()
    window.visit("/keys")
    expect(window.page.get_by_role("heading", level=1)).to_be_visible()
    window.page.evaluate("document.querySelector('h1').after(document.createElement('button'))")
    assert any(problem.startswith("button-name") for problem in window.serious_violations())


def test_axe_would_find_a_pale_text_in_the_dark(portal: Server, open_window: OpenWindow) -> None:
    window = open_window(portal, dark=True).sign_in()
    window.visit("/keys")
    expect(window.page.get_by_role("heading", level=1)).to_be_visible()
    window.page.evaluate("document.querySelector('h1').style.color = '#333'")
    assert any(problem.startswith("color-contrast") for problem in window.serious_violations())


def test_a_page_that_does_not_exist_says_so(portal: Server, open_window: OpenWindow) -> None:
    window = open_window(portal).sign_in()
    window.visit("/whales")
    expect(window.page.get_by_role("heading", name="No such page", level=1)).to_be_visible()
