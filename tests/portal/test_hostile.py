"""What people and models wrote is text: whatever it is, it is shown as it was sent, and does nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from openai import OpenAI
from playwright.sync_api import Page, expect

from stillroom.teachers.scripted import JsonObject, ScriptedTeacher, echo
from tests.faults.wire import chat, send
from tests.portal.conftest import OpenWindow
from tests.portal.listing import Listing, store
from tests.portal.window import NARROW, WIDE, Size, Window
from tests.portal.words import Words
from tests.support import Server, example_lines

MARKUP = "<img src=x onerror=hacked=1>"
SCRIPT = "<script>window.hacked=1;alert(1)</script>"
TEXTS = {
    "script": f"{SCRIPT}</div><svg onload=hacked=1>",
    "image": f'{MARKUP}"><iframe srcdoc="{SCRIPT}"></iframe>',
    "link": "[a prize](javascript:hacked=1) ![x](https://evil.example/x.png) <https://evil.example>",
    "address": "javascript:hacked=1//https://evil.example/%0ahacked=1",
    "direction": "invoice\u202egnp.exe\u202c \u2066isolated\u2069 \u200f עברית العربية",
    "unseen": "zero\u200bwidth\u200djoined\ufeffmark\u00adsoft",
    "combined": "Z" + "\u0351\u0323\u030d" * 30 + "a\u0308o\u0302 ในที่สุด",
    "emoji": "👩‍👩‍👧‍👦🏴‍☠️🇯🇵🤷🏽‍♀️ 𝔘𝔫𝔦 𠮷野家",
    "template": "{count} {name} {{value}} ${7*7} %s {0} <%= 1 %> &lt;b&gt; &amp;",
    "lines": "one\n  two\n\tthree\n\nfive  spaces",
}
LONG_KEY = f"<b>{SCRIPT}"[:30] + "k" * 34
LONG_VALUE = MARKUP + "\u202e" + "v" * 400
LONG_MODEL = "m" * 10_000
LONG_DEPLOYMENT = "d" * 64
MARKED_MODEL = f"{MARKUP}\u202e"
MEGABYTE = 1_000_000


def answer(body: JsonObject) -> str | JsonObject:
    """The last message once more; where tools are offered, a call whose every part is hostile."""
    if "tools" not in body:
        return echo(body)
    called = {"name": SCRIPT, "arguments": json.dumps({MARKUP: SCRIPT, "direction": TEXTS["direction"]})}
    return {"content": None, "tool_calls": [{"id": MARKUP, "type": "function", "function": called}]}


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose teachers have names that no sane person would give."""
    with ScriptedTeacher(answer) as teacher:
        teachers = {name: {"base_url": teacher.url} for name in ("gpt-4o", LONG_MODEL, MARKED_MODEL)}
        with Server(tmp_path_factory.mktemp("hostile") / "data", teachers=teachers) as running:
            yield running


@pytest.fixture(scope="module")
def completions(portal: Server) -> dict[str, str]:
    """The hostile texts, each stored as a question with its echo as the answer; by name."""
    return dict(zip(TEXTS, store(portal, TEXTS.values(), task="hostile"), strict=True))


@pytest.fixture(params=[WIDE, NARROW], ids=["wide", "narrow"])
def window(portal: Server, open_window: OpenWindow, request: pytest.FixtureRequest) -> Iterator[Window]:
    size: Size = request.param
    window = open_window(portal, size=size).sign_in()
    yield window
    assert window.page.evaluate("window.hacked") is None


@pytest.fixture
def listing(window: Window) -> Listing:
    return Listing(window, Words("en"))


def said(page: Page, *, role: str) -> str:
    """What the panel's conversation says in its one message of a role."""
    return page.locator(f"li[data-role={role}] > div div.said").inner_text()


def test_rows_show_what_was_asked_and_answered_as_text(listing: Listing, completions: dict[str, str]) -> None:
    listing.visit(task="hostile")
    expect(listing.grid.get_by_role("checkbox")).to_have_count(len(TEXTS) + 1)
    for name, completion in completions.items():
        question, answered = listing.page.locator(f"#row-{completion} [dir=auto]").all()
        assert (question.text_content(), answered.text_content()) == (TEXTS[name], TEXTS[name]), name
    assert listing.window.sideways_pixels() == 0


def test_the_panel_shows_exactly_what_was_sent(listing: Listing, completions: dict[str, str]) -> None:
    page, words = listing.page, listing.words
    listing.visit(task="hostile")
    newest = list(completions)[-1]
    page.locator(f"#row-{completions[newest]}").click()
    for name in reversed(TEXTS):
        expect(listing.panel.get_by_text(completions[name], exact=True)).to_be_visible()
        assert said(page, role="user") == TEXTS[name]
        assert said(page, role="assistant") == TEXTS[name]
        assert sideways(page) == 0, name
        if name != next(iter(TEXTS)):
            listing.panel.get_by_role("button", name=words("completions.older")).click()
    page.get_by_role("tab", name=words("completions.view_raw")).click()
    for name in TEXTS:
        expect(listing.panel.get_by_text(completions[name], exact=True)).to_be_visible()
        request, response = (json.loads(part.inner_text()) for part in page.locator("[data-scrolls]").all())
        assert request["messages"] == [{"role": "user", "content": TEXTS[name]}]
        assert response["choices"][0]["message"]["content"] == TEXTS[name]
        if name != newest:
            listing.panel.get_by_role("button", name=words("completions.newer")).click()
    assert sideways(page) == 0


def sideways(page: Page) -> int:
    """How far the page or an opened panel can be scrolled sideways."""
    return int(
        page.evaluate("""() => Math.max(...[document.documentElement, ...document.querySelectorAll(".panel-body")]
            .map(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth))""")
    )


def test_tool_calls_names_and_metadata_are_text_wherever_they_come_from(portal: Server, listing: Listing) -> None:
    page, words = listing.page, listing.words
    metadata = {"task": "called", LONG_KEY: LONG_VALUE, MARKUP: SCRIPT, "{count}": "{name}"}
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    made = chat(portal, TEXTS["link"], model=MARKED_MODEL, tools=[tool], store=True, metadata=metadata)
    assert made.status == 200, made.body
    listing.visit(task="called")
    row = page.locator(f"#row-{made.json['id']}")
    expect(row.get_by_text(words("completions.calls", name=SCRIPT), exact=True)).to_be_visible()
    expect(row.get_by_text(MARKED_MODEL, exact=True)).to_be_visible()
    row.click()
    pairs = listing.panel.locator("dl").get_by_role("definition")
    for value in (LONG_VALUE, SCRIPT, "{name}"):
        expect(pairs.get_by_text(value, exact=True)).to_be_visible()
    arguments = listing.panel.locator("[data-scrolls]").inner_text()
    assert json.loads(arguments) == {MARKUP: SCRIPT, "direction": TEXTS["direction"]}
    expect(listing.panel.get_by_text(SCRIPT, exact=True).last).to_be_visible()
    assert sideways(page) == 0
    page.get_by_role("tab", name=words("completions.view_repeat")).click()
    curl, python = (part.inner_text() for part in listing.panel.locator("[data-scrolls]").all())
    assert "\u202e" not in curl + python  # one sees what one would paste
    assert json.loads(curl.split("<<'JSON'\n")[1].removesuffix("\nJSON"))["metadata"] == metadata
    assert sideways(page) == 0


ODD: list[dict[str, Any]] = [
    {"role": "user", "content": {"a": 1}},
    {"role": "assistant", "name": {"b": 2}, "content": 5, "refusal": {"c": 3}, "tool_calls": {"d": 4}},
    {"role": "tool", "tool_call_id": {"e": 5}, "content": [7, {"type": 8}, {"type": "text", "text": {"f": 6}}]},
    {"role": "assistant", "content": None, "tool_calls": ["lone", {"function": "bare", "id": {"g": 7}}]},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": {"h": 8}, "arguments": {"i": 9}}}]},
    {"role": "user", "content": "and at last a text"},
]


def test_what_has_another_shape_than_it_should_is_shown_as_json(portal: Server, listing: Listing) -> None:
    page = listing.page
    asked = {"model": "gpt-4o", "messages": ODD, "store": True, "metadata": {"task": "odd"}}
    made = send(portal, "POST", "/v1/chat/completions", asked)
    assert made.status == 200, made.body
    listing.visit(task="odd")
    page.locator(f"#row-{made.json['id']}").click()
    expect(listing.panel.locator("li[data-answer=true]").get_by_text("and at last a text", exact=True)).to_be_visible()
    shown = listing.panel.locator("ol").inner_text()
    for part in ("lone", "bare", *(f'"{name}": {value}' for value, name in enumerate("abcdefghi", 1))):
        assert part in shown, part
    assert sideways(page) == 0


def test_the_facets_and_chips_of_hostile_pairs_are_text_that_filters(portal: Server, listing: Listing) -> None:
    page, words = listing.page, listing.words
    task = f"chips {page.viewport_size}"
    store(portal, ["marked"], **{"task": task, MARKUP: SCRIPT})
    store(portal, ["unmarked"], task=task)
    listing.visit(**{"task": task, MARKUP: SCRIPT})
    expect(listing.row("marked")).to_be_visible()
    listing.expect_match(1)
    chip = page.get_by_role("button", name=words("completions.remove_filter", name=MARKUP, value=SCRIPT), exact=True)
    expect(chip).to_be_visible()
    assert sideways(page) == 0


@pytest.mark.parametrize("text", ["whale " * (MEGABYTE // 6), "w" * MEGABYTE], ids=["words", "one word"])
def test_a_megabyte_is_shown_in_full_when_asked_for_without_breaking_the_page(
    portal: Server, listing: Listing, text: str
) -> None:
    page, words = listing.page, listing.words
    task = f"megabyte {len(text.split())} {page.viewport_size}"
    (completion,) = store(portal, [text], task=task)
    listing.visit(task=task)
    page.locator(f"#row-{completion}").click()
    show = listing.panel.get_by_role("button", name=words("completions.show_all", letters=f"{len(text):,}"))
    expect(show).to_have_count(2)
    assert sideways(page) == 0
    show.first.click()
    expect(show).to_have_count(1)
    assert page.locator("li[data-role=user] > div div.said").text_content() == text
    assert sideways(page) == 0


def test_the_playground_streams_hostile_answers_as_text(portal: Server, window: Window) -> None:
    words, page = Words("en"), window.page
    window.visit(f"/playground?{urlencode({'left': 'gpt-4o', 'right': MARKED_MODEL})}")
    for name, text in TEXTS.items():
        page.get_by_role("textbox", name=words("playground.message")).fill(text)
        page.get_by_role("button", name=words("playground.send"), exact=True).click()
        turn = page.get_by_role("list", name=words("playground.conversation")).locator("> li").last
        expect(turn.get_by_text(words("playground.total_time"))).to_have_count(2)
        for model in ("gpt-4o", MARKED_MODEL):
            article = turn.get_by_role("article", name=words("playground.answer_of", name=model), exact=True)
            assert article.locator("div.said").inner_text() == text, (name, model)
        assert window.sideways_pixels() == 0, name


@pytest.fixture(scope="module")
def named(portal: Server) -> None:
    """Everything that can be given a name has a hostile one."""
    account = "/subscriptions/local/resourceGroups/local/providers/Microsoft.CognitiveServices/accounts/local"
    with OpenAI(base_url=f"{portal.url}/v1", api_key=portal.key, max_retries=0) as sdk:
        file = sdk.files.create(file=(f"{MARKUP}\u202e{'f' * 100}.jsonl", example_lines(10)), purpose="fine-tune")
        job = sdk.fine_tuning.jobs.create(model="scratch-small", training_file=file.id, metadata={MARKUP: SCRIPT})
        sdk.fine_tuning.jobs.cancel(job.id)
        sdk.chat.completions.create(model=LONG_MODEL, messages=[{"role": "user", "content": "long"}], store=True)
    deployment: dict[str, Any] = {"sku": {"name": "Standard", "capacity": 1}}
    deployment["properties"] = {"model": {"format": "OpenAI", "name": LONG_MODEL, "version": "1"}}
    criterion = {"type": "string_check", "name": SCRIPT, "input": "{{sample.output_text}}", "operation": "eq"}
    for method, path, body in (
        ("PUT", f"{account}/deployments/{LONG_DEPLOYMENT}?api-version=2024-10-01", deployment),
        ("POST", "/v1/stillroom/keys", {"name": MARKUP}),
        (
            "POST",
            "/v1/evals",
            {
                "name": MARKUP,
                "data_source_config": {"type": "stored_completions", "metadata": {"task": SCRIPT}},
                "testing_criteria": [{**criterion, "reference": MARKUP}],
            },
        ),
    ):
        answered = send(portal, method, path, body)
        assert answered.status in (200, 201), answered.body


@pytest.mark.usefixtures("named", "completions")
def test_hostile_names_are_text_on_every_page_and_never_widen_it(window: Window) -> None:
    page = window.page
    for path, shown in {
        "/": LONG_MODEL,
        "/deployments": LONG_DEPLOYMENT,
        "/evals": MARKUP,
        "/files": MARKUP,
        "/jobs": None,
        "/keys": MARKUP,
        "/models": LONG_MODEL,
        "/playground": None,
        "/usage": LONG_MODEL,
        "/completions": LONG_MODEL,
        "/distill": None,
    }.items():
        window.visit(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if shown is not None:
            expect(page.get_by_text(shown).filter(visible=True).first, path).to_be_visible()
        window.settle()
        assert window.sideways_pixels() == 0, path
    window.visit("/evals")
    page.get_by_role("link", name=MARKUP).first.click()
    expect(page.get_by_role("heading", level=1, name=MARKUP)).to_be_visible()
    expect(page.get_by_text(SCRIPT).first).to_be_visible()
    assert window.sideways_pixels() == 0
    window.visit("/jobs")
    page.get_by_role("table").get_by_role("link").first.click()
    expect(page.get_by_text(MARKUP).first).to_be_visible()
    assert window.sideways_pixels() == 0


def test_text_with_nul_is_refused_when_stored_and_the_page_says_why(window: Window) -> None:
    words, page = Words("en"), window.page
    window.visit(f"/playground?{urlencode({'left': 'gpt-4o', 'right': ''})}")
    settings = page.get_by_role("button", name=words("playground.settings"), exact=True)
    if settings.get_attribute("aria-expanded") == "false":
        settings.click()
    page.get_by_role("switch", name=words("playground.store")).check()
    page.get_by_role("textbox", name=words("playground.message")).fill("null\0byte")
    page.get_by_role("button", name=words("playground.send"), exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="NUL characters")).to_be_visible()
