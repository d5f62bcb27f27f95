"""What the portal costs: bytes of a first visit, requests to anybody else, the server's CPU per warm page load and for
tabs that are left open, and how long a change of filter takes.

A real server, real stored completions, Debian's Chromium. Bytes are what came over the wire, headers included, from
the sign-in address to a page at rest. A warm load is one more visit of a browser that was there before; it ends when
the network has been still for half a second. CPU is that of the server's process and its children, of all threads, from
/proc; what the idle server takes in the same time, right after, is taken off. Of the tabs left open one is seen; the
others are told that they are hidden, because a browser without a screen holds every tab for seen.

A change of filter is timed inside the page, from the browser's click or key to the first picture with the new rows, on
the completions in `--data DIR`, such as `completions.py --data DIR` makes. Of a search, its pause of 150 ms after the
last key is part. Measure on an idle machine. Linux only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import OpenAI
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.faults.wire import children, send
from tests.portal.conftest import FLAGS
from tests.support import Server

from stillroom.teachers.scripted import ScriptedTeacher, echo

PAGES = ("/", "/completions", "/distill", "/jobs", "/deployments", "/playground", "/evals", "/usage")
STORED = 200
PRICE = {"input": 2.5, "output": 10.0}
NO_ADDRESS = ("data:", "blob:", "about:")
TABS = 12
SETTLING_SECONDS = 5
QUIET_SECONDS = 125  # until then, each look of the completions page goes back to what may have been slow to be stored
HIDDEN = "Object.defineProperty(document, 'visibilityState', {get: () => 'hidden'})"
FACETS = {  # as `completions.py` makes them
    "agent_type": ["dolphin", "triage", "refund", "search", "sales"],
    "env": ["prod", "staging"],
    "Model": ["gpt-4o", "gpt-4o-mini", "kyle"],
    "Status": ["completed", "incomplete"],
}
SEARCHES = ["please", "please zeppelin", "注文", "京", "琥珀細工", '"ご案内いたします"', "zeppelin"]
# While rows are awaited, the list is busy. What is in the document then is painted right after the next frame's callbacks.
STOPWATCH = """() => {
  window.taken = new Promise((resolve) => {
    const begin = (event) => {
      for (const name of ['click', 'input']) removeEventListener(name, begin, true);
      new MutationObserver((changes, observer) => {
        if (!changes.some(({target}) => target.matches('[role=grid][aria-busy=false]'))) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - event.timeStamp)));
      }).observe(document.body, {subtree: true, attributeFilter: ['aria-busy']});
    };
    for (const name of ['click', 'input']) addEventListener(name, begin, true);
  });
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", type=int, default=20, help="warm loads of each page")
    parser.add_argument("--idle-seconds", type=int, default=60, help="how long tabs are left open")
    parser.add_argument("--data", type=Path, help="a data folder with many completions, to filter them")
    asked = parser.parse_args()
    if asked.data:
        with Server(asked.data.resolve()) as server, _chromium() as browser:
            _show_filter_changes(browser, server)
        return
    with _server() as server, _chromium() as browser:
        stored_at = time.monotonic()
        for page in ("/", "/completions"):
            _show_first_visit(browser, server, page)
        _show_foreign_requests(browser, server)
        for page in ("/", "/completions"):
            _show_warm_loads(browser, server, page, asked.loads)
        time.sleep(max(0.0, stored_at + QUIET_SECONDS - time.monotonic()))
        _show_idle_tabs(browser, server, asked.idle_seconds)


# --- figures ------------------------------------------------------------------------------------------


def _show_first_visit(browser: Browser, server: Server, page: str) -> None:
    context = browser.new_context()
    tab = context.new_page()
    sizes = _transferred(context, tab)
    tab.goto(_sign_in_address(server, page), wait_until="networkidle")
    context.close()
    total = sum(sizes.values())
    print(f"first visit of {page}: {total / 1000:.1f} kB in {len(sizes)} requests")


def _show_foreign_requests(browser: Browser, server: Server) -> None:
    context = browser.new_context()
    tab = context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(_sign_in_address(server, "/"), wait_until="networkidle")
    for page in PAGES:
        tab.goto(server.url + page, wait_until="networkidle")
    context.close()
    foreign = [url for url in asked if not url.startswith((f"{server.url}/", *NO_ADDRESS))]
    print(f"requests to other origins, {len(PAGES)} pages: {len(foreign)} of {len(asked)} {foreign or ''}")


def _show_warm_loads(browser: Browser, server: Server, page: str, loads: int) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(_sign_in_address(server, page), wait_until="networkidle")
    tab.goto(server.url + page, wait_until="networkidle")

    taken = []
    for _ in range(loads):
        cpu_ms, seconds = _cpu_of(server, lambda: tab.goto(server.url + page, wait_until="networkidle"))
        tab.goto("about:blank")
        idle_ms, _seconds = _cpu_of(server, lambda seconds=seconds: time.sleep(seconds))  # type: ignore[misc]
        taken.append(cpu_ms - idle_ms)
    context.close()
    print(
        f"server CPU per warm load of {page}: {statistics.median(taken):.2f} ms "
        f"({min(taken):.2f} to {max(taken):.2f} in {loads} loads)"
    )


def _show_idle_tabs(browser: Browser, server: Server, seconds: int) -> None:
    time.sleep(SETTLING_SECONDS)
    alone = _share_of_core(server, seconds)
    context = browser.new_context()
    seen = context.new_page()
    seen.goto(_sign_in_address(server, "/completions"), wait_until="networkidle")
    context.add_init_script(HIDDEN)
    for _ in range(TABS - 1):
        context.new_page().goto(f"{server.url}/completions", wait_until="networkidle")
    time.sleep(SETTLING_SECONDS)
    share = _share_of_core(server, seconds)
    context.close()
    print(f"{TABS} idle tabs, one of them seen: {share:.2f} % of a core; the server without any: {alone:.2f} %")


def _show_filter_changes(browser: Browser, server: Server) -> None:
    context = browser.new_context(locale="en-US", viewport={"width": 1440, "height": 900})
    tab = context.new_page()
    tab.goto(_sign_in_address(server, "/completions"), wait_until="networkidle")
    found: dict[str, list[tuple[float, float]]] = {"facet": [], "no filter again": [], "search": []}
    for name, values in FACETS.items():
        for value in values:
            button = tab.locator(f"ul[aria-label='{name}'] button[title='{value}']")
            found["facet"].append(_changed(server, tab, button.click))
            found["no filter again"].append(_changed(server, tab, button.click))
    box = tab.get_by_role("searchbox")
    for words in SEARCHES:
        found["search"].append(_changed(server, tab, lambda words=words: box.fill(words)))  # type: ignore[misc]
    total = _count(server)
    context.close()
    for kind, changes in found.items():
        times, cpu_ms = [each[0] for each in changes], [each[1] for each in changes]
        p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
        print(
            f"{total} completions, {kind:15} {len(changes):2} changes: rows after p50 {statistics.median(times):.0f}, "
            f"p95 {p95:.0f} ms; server CPU, counts and facets included: {statistics.median(cpu_ms):.0f} ms"
        )


def _changed(server: Server, tab: Page, change: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds until the rows were there, and of the server's CPU until all else was, too."""
    before = _cpu_ms(server)
    tab.evaluate(STOPWATCH)
    change()
    taken: float = tab.evaluate("() => window.taken")
    tab.wait_for_function("() => !document.querySelector('[data-stale=true]')")
    tab.wait_for_load_state("networkidle")
    return taken, _cpu_ms(server) - before


def _count(server: Server) -> str:
    counted = send(server, "GET", "/v1/stillroom/completions/count").json
    return f"{counted['count']:,}{'+' if counted['at_least'] else ''}"


# --- measuring ----------------------------------------------------------------------------------------


def _transferred(context: BrowserContext, tab: Any) -> dict[str, int]:
    """Bytes by request, filled while the tab loads."""
    sizes: dict[str, int] = {}
    session = context.new_cdp_session(tab)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    return sizes


def _cpu_of(server: Server, work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of CPU that the server took meanwhile, and seconds that went by."""
    began, before = time.monotonic(), _cpu_ms(server)
    work()
    return _cpu_ms(server) - before, time.monotonic() - began


def _share_of_core(server: Server, seconds: int) -> float:
    """In percent."""
    cpu_ms, passed = _cpu_of(server, lambda: time.sleep(seconds))
    return cpu_ms / passed / 10


def _cpu_ms(server: Server) -> float:
    """CPU of the server and its descendants so far, user and system."""
    total = 0
    for pid in (server.pid, *children(server.pid)):
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(task.read_text().split()[0])  # nanoseconds; /proc/PID/stat counts in hundredths of a second
    return total / 1e6


# --- what is measured ---------------------------------------------------------------------------------


@contextmanager
def _server() -> Iterator[Server]:
    """A server with stored completions, whose teacher repeats the question."""
    with tempfile.TemporaryDirectory() as folder, ScriptedTeacher(echo) as teacher:
        teachers = {"gpt-4o": {"base_url": teacher.url, "price": PRICE}}
        students = json.dumps({"scratch-small": {"price": {"input": 0.05, "output": 0.2, "training": 0.3}}})
        with Server(Path(folder) / "data", teachers=teachers, students=students) as server:
            _store(server, STORED)
            yield server


def _store(server: Server, count: int) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.key) as client:
        for number in range(count):
            client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "system", "content": "Sort it."}, {"role": "user", "content": f"ticket {number}"}],
                store=True,
                metadata={"app": "benchmark", "kind": f"kind-{number % 7}"},
            )


@contextmanager
def _chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


def _sign_in_address(server: Server, page: str) -> str:
    token = send(server, "POST", "/v1/stillroom/sign_in_tokens").json["token"]
    return f"{server.url}{page}#signin={token}"


if __name__ == "__main__":
    main()
