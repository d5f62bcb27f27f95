"""Many completions at once: selected by mouse, tagged, deleted, brought back, exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from tests.faults.wire import send
from tests.portal.conftest import OpenWindow
from tests.portal.listing import LOADED_ROWS, Listing, store
from tests.portal.words import Words
from tests.support import Server, wait_for

WHALES = [f"whale {number}" for number in range(6)]
MANY = LOADED_ROWS + 40


@pytest.fixture
def listing(portal: Server, open_window: OpenWindow) -> Listing:
    return Listing(open_window(portal).sign_in(), Words("en"))


def count(server: Server, **metadata: str) -> int:
    conditions = urlencode({f"metadata[{key}]": value for key, value in metadata.items()})
    return int(send(server, "GET", f"/v1/stillroom/completions/count?{conditions}").json["count"])


def is_stored(server: Server, completion: str) -> bool:
    return send(server, "GET", f"/v1/chat/completions/{completion}").status == 200


# --- selecting ------------------------------------------------------------------------------------------


def test_a_shift_click_selects_the_range_from_the_row_that_was_clicked_before(portal: Server, listing: Listing) -> None:
    store(portal, WHALES, task="range")
    listing.visit(task="range")
    listing.box("whale 4").click()
    listing.box("whale 2").click(modifiers=["Shift"])
    listing.expect_rows_selected("whale 4", "whale 3", "whale 2")
    listing.box("whale 5").click(modifiers=["Shift"])
    listing.expect_rows_selected("whale 5", "whale 4")
    listing.box("whale 0").click()
    listing.box("whale 5").click()
    listing.expect_selected(2)
    listing.expect_rows_selected("whale 4", "whale 0")


def test_a_click_with_control_selects_a_row_and_a_plain_one_opens_it(portal: Server, listing: Listing) -> None:
    store(portal, WHALES, task="control")
    listing.visit(task="control")
    listing.row("whale 1").click(modifiers=["Control"])
    listing.row("whale 3").click(modifiers=["Control"])
    listing.expect_rows_selected("whale 3", "whale 1")
    expect(listing.panel).to_be_hidden()
    listing.row("whale 2").click()
    expect(listing.panel.get_by_text("whale 2", exact=True).first).to_be_visible()
    listing.expect_rows_selected("whale 3", "whale 1")


def test_everything_that_matches_is_tagged_beyond_what_is_loaded_and_nothing_that_comes_later(
    portal: Server, listing: Listing
) -> None:
    store(portal, (f"whale {number}" for number in range(MANY)), task="all")
    (other,) = store(portal, ["otter"], task="not all")
    listing.visit(task="all")
    listing.expect_match(MANY)
    listing.select_all(MANY)
    store(portal, ["late whale"], task="all")
    expect(listing.page.get_by_role("button", name=listing.words("completions.new", count=1))).to_be_visible()
    tag(listing, seen="yes")
    expect(listing.page.get_by_text(listing.words("completions.tagged", count=MANY))).to_be_visible()
    assert count(portal, task="all", seen="yes") == MANY
    assert count(portal, task="all") == MANY + 1
    assert send(portal, "GET", f"/v1/chat/completions/{other}").json["metadata"] == {"task": "not all"}


def test_everything_that_matches_is_deleted_only_when_asked_twice_and_what_came_meanwhile_stays(
    portal: Server, listing: Listing, tmp_path: Path
) -> None:
    store(portal, (f"whale {number}" for number in range(MANY)), task="all gone")
    listing.visit(task="all gone")
    listing.select_all(MANY)
    late = store(portal, ["late 1", "late 2", "late 3"], task="all gone")
    expect(listing.page.get_by_role("button", name=listing.words("completions.new", count=3))).to_be_visible()
    listing.expect_selected(MANY)
    listing.deed("completions.export").click()
    assert len(download(listing, "training", tmp_path)) == MANY
    listing.deed("common.delete").click()
    dialog = listing.page.get_by_role("dialog", name=listing.words("completions.delete_title", size=MANY))
    dialog.get_by_role("button", name=listing.words("common.cancel"), exact=True).click()
    assert count(portal, task="all gone") == MANY + 3
    listing.deed("common.delete").click()
    dialog.get_by_role("button", name=listing.words("completions.delete_deed", size=MANY), exact=True).click()
    expect(listing.page.get_by_text(listing.words("completions.removed", count=MANY))).to_be_visible(timeout=20_000)
    assert count(portal, task="all gone") == 3
    assert all(is_stored(portal, completion) for completion in late)
    expect(listing.row("late 3")).to_be_visible()
    expect(listing.row("whale 0")).to_be_hidden()


def test_the_wizard_is_told_where_everything_that_was_selected_ends(portal: Server, listing: Listing) -> None:
    newest = store(portal, (f"whale {number}" for number in range(MANY)), task="all distilled")[-1]
    listing.visit(task="all distilled")
    listing.select_all(MANY)
    store(portal, ["late whale"], task="all distilled")
    listing.deed("completions.distill").click()
    expect(listing.page).to_have_url(re.compile(f"/distill\\?.*up_to={newest}"))
    expect(listing.page.get_by_text(listing.words("distill.condition_up_to", id=newest), exact=True)).to_be_visible()


def test_a_row_taken_out_of_all_that_match_leaves_what_is_loaded_and_says_so(portal: Server, listing: Listing) -> None:
    store(portal, (f"whale {number}" for number in range(MANY)), task="all but")
    listing.visit(task="all but")
    listing.select_all(MANY)
    told = listing.page.get_by_text(listing.words("completions.only_loaded"), exact=True)
    expect(told).to_be_hidden()
    listing.box(f"whale {MANY - 1}").click()
    expect(told).to_be_visible()
    bar = listing.page.get_by_role("region", name=listing.words("completions.selection"))
    left = int(re.findall(r"\d+", bar.get_by_role("status").first.inner_text())[0])
    assert 0 < left < LOADED_ROWS
    bar.get_by_role("button", name=listing.words("completions.select_all", size=MANY)).click()
    listing.expect_selected(MANY)
    expect(told).to_be_hidden()


def test_rows_that_arrive_while_some_are_selected_wait_to_be_shown(portal: Server, listing: Listing) -> None:
    store(portal, WHALES, task="held")
    listing.visit(task="held")
    listing.box("whale 1").click()
    store(portal, ["late whale"], task="held")
    arrived = listing.page.get_by_role("button", name=listing.words("completions.new", count=1))
    expect(arrived).to_be_visible()
    expect(listing.row("late whale")).to_be_hidden()
    arrived.click()
    expect(listing.row("late whale")).to_be_visible()
    listing.expect_rows_selected("whale 1")


# --- tagging and deleting ---------------------------------------------------------------------------------


def tag(listing: Listing, **metadata: str) -> None:
    words = listing.words
    listing.deed("completions.tag").click()
    dialog = listing.page.get_by_role("dialog")
    ((key, value),) = metadata.items()
    dialog.get_by_role("textbox", name=words("completions.key"), exact=True).fill(key)
    dialog.get_by_role("textbox", name=words("completions.value"), exact=True).fill(value)
    dialog.get_by_role("button", name=words("completions.tag_apply"), exact=True).click()
    expect(dialog).to_be_hidden()


def test_a_tag_is_seen_in_the_rows_that_were_selected_and_in_no_other(portal: Server, listing: Listing) -> None:
    store(portal, WHALES, task="tag")
    listing.visit(task="tag")
    listing.box("whale 1").click()
    listing.box("whale 2").click(modifiers=["Shift"])
    tag(listing, seen="twice")
    expect(listing.row("whale 1").get_by_text("twice", exact=True)).to_be_visible()
    expect(listing.row("whale 2").get_by_text("twice", exact=True)).to_be_visible()
    assert count(portal, task="tag", seen="twice") == 2


def begin_deletion(listing: Listing) -> None:
    listing.box("whale 1").click()
    listing.box("whale 3").click(modifiers=["Shift"])
    listing.deed("common.delete").click()
    for name in ("whale 1", "whale 2", "whale 3"):
        expect(listing.row(name)).to_be_hidden()
    expect(listing.page.get_by_text(listing.words("completions.deleting_ids", count=3))).to_be_visible()


def test_a_deletion_that_is_undone_deletes_nothing(portal: Server, listing: Listing) -> None:
    whales = store(portal, WHALES, task="undone")
    listing.visit(task="undone")
    begin_deletion(listing)
    listing.page.get_by_role("button", name=listing.words("common.undo"), exact=True).click()
    for name in WHALES:
        expect(listing.row(name)).to_be_visible()
    assert wait_for(lambda: newest_action(portal)["status"] == "cancelled")
    assert newest_action(portal)["done"] == 0
    assert all(is_stored(portal, whale) for whale in whales)


def test_a_deletion_that_is_not_undone_deletes_what_was_selected(portal: Server, listing: Listing) -> None:
    whales = store(portal, WHALES, task="deleted")
    listing.visit(task="deleted")
    begin_deletion(listing)
    assert all(is_stored(portal, whale) for whale in whales)  # as long as it can be undone
    expect(listing.page.get_by_text(listing.words("completions.removed", count=3))).to_be_visible()
    listing.expect_match(3)
    assert [is_stored(portal, whale) for whale in whales] == [True, False, False, False, True, True]
    listing.page.reload()
    expect(listing.row("whale 0")).to_be_visible()
    expect(listing.row("whale 2")).to_be_hidden()


def test_what_is_being_deleted_stays_hidden_when_the_page_is_opened_again_and_can_still_be_undone(
    portal: Server, listing: Listing
) -> None:
    whales = store(portal, WHALES, task="reload")
    listing.visit(task="reload")
    begin_deletion(listing)
    listing.page.reload()
    expect(listing.row("whale 0")).to_be_visible()
    expect(listing.page.get_by_text(listing.words("completions.deleting_ids", count=3))).to_be_visible()
    expect(listing.row("whale 2")).to_be_hidden()
    undo = listing.page.get_by_role("button", name=listing.words("common.undo"), exact=True)
    expect(undo).to_have_count(1)
    undo.click()
    expect(listing.row("whale 2")).to_be_visible()
    assert all(is_stored(portal, whale) for whale in whales)


def test_what_is_deleted_while_another_page_is_looked_at_does_not_come_back(portal: Server, listing: Listing) -> None:
    store(portal, WHALES, task="away")
    listing.visit(task="away")
    begin_deletion(listing)
    listing.page.get_by_role("link", name=listing.words("usage.title"), exact=True).click()
    expect(listing.grid).to_be_hidden()
    listing.page.go_back()
    expect(listing.row("whale 0")).to_be_visible()
    expect(listing.row("whale 2")).to_be_hidden()
    expect(listing.page.get_by_role("button", name=listing.words("common.undo"), exact=True)).to_have_count(1)
    expect(listing.page.get_by_text(listing.words("completions.removed", count=3))).to_be_visible(timeout=15_000)
    listing.expect_match(3)
    expect(listing.row("whale 2")).to_be_hidden()


def test_rows_that_were_deleted_elsewhere_leave_the_list_when_it_is_looked_at_again(
    portal: Server, listing: Listing
) -> None:
    whales = store(portal, WHALES, task="elsewhere")
    listing.visit(task="elsewhere")
    listing.expect_match(6)
    send(portal, "DELETE", f"/v1/chat/completions/{whales[2]}")
    listing.page.evaluate("document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))")
    expect(listing.row("whale 2")).to_be_hidden()
    expect(listing.row("whale 3")).to_be_visible()
    listing.expect_match(5)


def newest_action(server: Server) -> dict[str, Any]:
    found: list[dict[str, Any]] = send(server, "GET", "/v1/stillroom/bulk_actions?limit=1").json["data"]
    return found[0]


# --- exporting ------------------------------------------------------------------------------------------


def download(listing: Listing, form: str, folder: Path) -> list[str]:
    """The lines of what the open dialog gives."""
    dialog = listing.page.get_by_role("dialog", name=listing.words("completions.export_title"))
    dialog.get_by_role("radio", name=re.compile(f"^{re.escape(listing.words(f'completions.export_{form}'))}")).check()
    name = listing.words("common.download")
    with listing.page.expect_download() as begun:
        dialog.get_by_role("button", name=name).or_(dialog.get_by_role("link", name=name)).click()
    begun.value.save_as(folder / "export.jsonl")
    expect(dialog).to_be_hidden()
    assert begun.value.suggested_filename.endswith(".jsonl")
    return (folder / "export.jsonl").read_text(encoding="utf-8").splitlines()


def selection(server: Server, **meant: Any) -> list[str]:
    """The lines of the training file that the same selection makes."""
    made = send(server, "POST", "/v1/stillroom/selections", meant).json
    return send(server, "GET", f"/v1/files/{made['training_file']['id']}/content").body.decode().splitlines()


def test_the_export_of_a_filter_has_the_lines_of_its_selection(
    portal: Server, listing: Listing, tmp_path: Path
) -> None:
    store(portal, (f"whale {number}" for number in range(MANY)), task="export")
    listing.visit(task="export")
    listing.page.get_by_role("button", name=listing.words("completions.export"), exact=True).click()
    lines = download(listing, "training", tmp_path)
    assert len(lines) == MANY
    assert sorted(lines) == sorted(selection(portal, filter={"metadata": {"task": "export"}}))


def test_the_export_of_rows_has_the_lines_of_their_selection(portal: Server, listing: Listing, tmp_path: Path) -> None:
    whales = store(portal, [*WHALES, *(f"otter {number}" for number in range(12))], task="export rows")
    listing.visit(task="export rows")
    listing.box("whale 3").click()
    listing.box("otter 9").click(modifiers=["Shift"])
    listing.deed("completions.export").click()
    lines = download(listing, "training", tmp_path)
    assert len(lines) == 13
    assert sorted(lines) == sorted(selection(portal, ids=whales[3:16]))


def test_the_export_of_all_that_is_kept_names_each_completion(portal: Server, listing: Listing, tmp_path: Path) -> None:
    whales = store(portal, WHALES, task="export all")
    listing.visit(task="export all")
    listing.page.get_by_role("button", name=listing.words("completions.export"), exact=True).click()
    kept = [json.loads(line) for line in download(listing, "full", tmp_path)]
    assert [one["id"] for one in kept] == whales
    assert [one["request"]["messages"][-1]["content"] for one in kept] == WHALES
