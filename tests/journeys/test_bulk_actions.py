"""Many stored completions at once: tagged, deleted, undone and taken elsewhere."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from openai import OpenAI

from stillroom import ids
from tests.faults.wire import connect, send
from tests.journeys.conftest import Raw
from tests.support import Server, wait_for

BULK = "/v1/stillroom/completions/bulk"
EXPORT = "/v1/stillroom/completions/export"
ACTIONS = "/v1/stillroom/bulk_actions"


def capture(client: OpenAI, pairs: dict[str, str], count: int, system: str = "be brief") -> list[str]:
    """Stores so many completions; gives their ids, oldest first."""
    return [
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "system", "content": system}, {"role": "user", "content": f"問い{n}"}],
            store=True,
            metadata=pairs,
        ).id
        for n in range(count)
    ]


def ask(raw: Raw, body: dict[str, Any]) -> dict[str, Any]:
    status, _, action = raw("POST", BULK, body)
    assert status == 200, action
    return dict(action)


def ended(raw: Raw, action: dict[str, Any]) -> dict[str, Any]:
    """The action once it has ended."""

    def look() -> dict[str, Any] | None:
        now = raw("GET", f"{ACTIONS}/{action['id']}")[2]
        return now if now["status"] not in ("waiting", "running") else None

    return dict(wait_for(look, pause=0.05))


def carried_out(raw: Raw, body: dict[str, Any]) -> dict[str, Any]:
    action = ended(raw, ask(raw, body))
    assert action["status"] == "succeeded", action
    assert action["error"] is None
    assert action["finished_at"] >= action["created_at"]
    return action


def metadata_of(client: OpenAI, pairs: dict[str, str]) -> dict[str, dict[str, str]]:
    return {item.id: dict(item.metadata or {}) for item in client.chat.completions.list(metadata=pairs, limit=100)}


def query(server: Server, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(server.data / "stillroom.db")) as database:
        return database.execute(statement, values).fetchall()


def wrong_counts(server: Server) -> list[Any]:
    """Kept counts that counting does not give, and metadata that is not inverted as it is shown."""
    return query(
        server,
        "SELECT 'pair', id, count FROM metadata_pairs p "
        "WHERE count != (SELECT count(*) FROM completion_metadata WHERE pair = p.id) OR count < 1 "
        "UNION ALL SELECT 'prefix', id, \"references\" FROM prefixes f "
        'WHERE "references" != (SELECT count(*) FROM completions WHERE prefix = f.id) OR "references" < 1 '
        "UNION ALL SELECT 'row', number, metadata FROM completions c WHERE metadata != '{}' AND EXISTS ("
        "  SELECT key, value FROM json_each(c.metadata) EXCEPT SELECT p.key, p.value FROM completion_metadata m "
        "  JOIN metadata_pairs p ON p.id = m.pair WHERE m.completion = c.number) "
        "UNION ALL SELECT 'link', m.completion, m.pair FROM completion_metadata m "
        "JOIN metadata_pairs p ON p.id = m.pair JOIN completions c ON c.number = m.completion "
        "WHERE json_extract(c.metadata, '$.\"' || p.key || '\"') IS NOT p.value",
    )


# --- tagging --------------------------------------------------------------------------------------------


def test_a_tag_by_filter_reaches_every_match_and_nothing_else(
    server: Server, client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    some = capture(client, {**label, "tone": "dry"}, 3)
    others = capture(client, {**label, "tone": "warm"}, 2)
    changes = {"reviewed": "yes", "tone": None}
    action = carried_out(raw, {"action": "tag", "filter": {"metadata": {**label, "tone": "dry"}}, "metadata": changes})
    assert (action["matched"], action["done"], action["skipped"]) == (3, 3, 0)
    assert metadata_of(client, label) == {
        **{one: {**label, "reviewed": "yes"} for one in some},
        **{one: {**label, "tone": "warm"} for one in others},
    }
    assert list(metadata_of(client, {**label, "reviewed": "yes"})) == some
    assert metadata_of(client, {**label, "tone": "dry"}) == {}
    assert wrong_counts(server) == []


def test_completions_that_would_have_too_many_pairs_stay_as_they_are_and_are_counted(
    server: Server, client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    full = capture(client, {**label, **{f"k{n}": "v" for n in range(15)}}, 2)
    (short,) = capture(client, label, 1)
    before = metadata_of(client, label)
    tag = {"action": "tag", "filter": {"metadata": label}}
    action = carried_out(raw, {**tag, "metadata": {"more": "1"}})
    assert (action["matched"], action["done"], action["skipped"]) == (3, 1, 2)
    assert action["skipped_because"] == {"not_found": 0, "too_many_pairs": 2}
    assert metadata_of(client, label) == {**before, short: {**label, "more": "1"}}
    # What takes away as much as it adds fits.
    action = carried_out(raw, {**tag, "metadata": {"more": "2", "k0": None}})
    assert (action["done"], action["skipped"]) == (3, 0)
    assert all(metadata_of(client, label)[one]["more"] == "2" for one in (*full, short))
    assert wrong_counts(server) == []


def test_of_two_tags_the_later_wins(client: OpenAI, raw: Raw, label: dict[str, str]) -> None:
    capture(client, label, 3)
    tag = {"action": "tag", "filter": {"metadata": label}}
    first, second = (ask(raw, {**tag, "metadata": {"turn": turn}}) for turn in ("first", "second"))
    assert ended(raw, first)["status"] == ended(raw, second)["status"] == "succeeded"
    assert {pairs["turn"] for pairs in metadata_of(client, label).values()} == {"second"}


# --- deleting -------------------------------------------------------------------------------------------


def test_ids_are_deleted_and_those_that_are_not_there_are_counted(
    server: Server, client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    made = capture(client, label, 4, system=f"only here {label['test']}")
    client.chat.completions.delete(made[0])
    never = ids.completion_id(12345)
    action = carried_out(raw, {"action": "delete", "ids": [made[2], made[0], made[1], never, made[1]]})
    assert (action["matched"], action["done"], action["skipped"]) == (4, 2, 2)
    assert action["skipped_because"] == {"not_found": 2, "too_many_pairs": 0}
    assert list(metadata_of(client, label)) == [made[3]]
    assert wrong_counts(server) == []


def test_what_only_deleted_completions_shared_goes_with_them(
    server: Server, client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    capture(client, label, 2, system=f"only here {label['test']}")
    (number,) = {row[0] for row in query(server, "SELECT prefix FROM completions ORDER BY number DESC LIMIT 2")}
    pair = "SELECT id FROM metadata_pairs WHERE value = ?"
    assert len(query(server, "SELECT id FROM prefixes WHERE id = ?", number)) == 1
    assert len(query(server, pair, label["test"])) == 1
    carried_out(raw, {"action": "delete", "filter": {"metadata": label}})
    assert query(server, "SELECT id FROM prefixes WHERE id = ?", number) == []
    assert query(server, pair, label["test"]) == []
    assert wrong_counts(server) == []


def test_a_deletion_undone_within_its_window_has_touched_nothing(
    client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    made = capture(client, label, 2)
    action = ask(raw, {"action": "delete", "filter": {"metadata": label}, "undo_seconds": 60})
    assert action["status"] == "waiting"
    assert 60 <= action["starts_at"] - action["created_at"] <= 61
    assert (action["matched"], action["done"], action["finished_at"]) == (2, 0, None)
    # Whatever is asked for later need not wait for it.
    carried_out(raw, {"action": "tag", "ids": made, "metadata": {"seen": "yes"}})
    status, _, undone = raw("POST", f"{ACTIONS}/{action['id']}/cancel")
    assert (status, undone["status"], undone["done"]) == (200, "cancelled", 0)
    assert undone["finished_at"] is not None
    assert list(metadata_of(client, label)) == made
    status, _, again = raw("POST", f"{ACTIONS}/{action['id']}/cancel")
    assert (status, again["error"]["code"]) == (409, "conflict")


def test_what_is_stored_after_the_asking_is_never_touched(client: OpenAI, raw: Raw, label: dict[str, str]) -> None:
    capture(client, label, 2)
    action = ask(raw, {"action": "delete", "filter": {"metadata": label}, "undo_seconds": 1})
    later = capture(client, label, 1)
    done = ended(raw, action)
    assert (done["status"], done["matched"], done["done"]) == ("succeeded", 2, 2)
    assert list(metadata_of(client, label)) == later


def test_up_to_leaves_out_what_came_between_the_looking_and_the_asking(
    client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    seen = capture(client, label, 3)
    came = capture(client, label, 3)
    until = {"metadata": label, "up_to": seen[-1]}
    action = carried_out(raw, {"action": "tag", "filter": until, "metadata": {"seen": "yes"}})
    assert (action["matched"], action["done"]) == (3, 3)
    assert list(metadata_of(client, {**label, "seen": "yes"})) == seen
    carried_out(raw, {"action": "delete", "filter": until})
    assert list(metadata_of(client, label)) == came
    # The completion that it names need not be there any more.
    assert carried_out(raw, {"action": "delete", "filter": until})["matched"] == 0
    carried_out(raw, {"action": "delete", "filter": {"metadata": label}})
    assert metadata_of(client, label) == {}


def test_an_action_says_by_itself_which_completions_it_is_about(
    client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    first, last = capture(client, label, 2)
    wait = {"action": "delete", "undo_seconds": 60}
    by_ids = ask(raw, {**wait, "ids": [last, first]})
    by_filter = ask(raw, {**wait, "filter": {"metadata": label, "search": "x"}})
    by_end = ask(raw, {**wait, "filter": {"metadata": label, "up_to": first}})
    meant = []
    for action in (by_ids, by_filter, by_end):
        _, _, shown = raw("GET", f"{ACTIONS}/{action['id']}")
        meant.append((shown["filter"], shown["ids"]))
        raw("POST", f"{ACTIONS}/{action['id']}/cancel")
    assert meant == [
        (None, [first, last]),
        ({"metadata": label, "search": "x", "up_to": last}, None),
        ({"metadata": label, "up_to": first}, None),
    ]


def test_a_search_is_acted_on_only_when_all_of_it_can_be_found(client: OpenAI, raw: Raw, label: dict[str, str]) -> None:
    capture(client, label, 5)
    action = carried_out(raw, {"action": "delete", "filter": {"search": "問い", "metadata": label}})
    assert (action["matched"], action["done"]) == (5, 5)
    assert metadata_of(client, label) == {}


def test_the_last_action_is_listed_first(client: OpenAI, raw: Raw, label: dict[str, str]) -> None:
    made = capture(client, label, 1)
    tag = {"action": "tag", "ids": made}
    first, second = (carried_out(raw, {**tag, "metadata": {"n": n}}) for n in "12")
    _, _, page = raw("GET", f"{ACTIONS}?limit=1")
    assert ([action["id"] for action in page["data"]], page["has_more"]) == ([second["id"]], True)
    _, _, rest = raw("GET", f"{ACTIONS}?limit=1&after={second['id']}")
    assert [action["id"] for action in rest["data"]] == [first["id"]]
    assert raw("GET", f"{ACTIONS}/bulk-none")[0] == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"action": "delete"}, "filter"),
        ({"action": "delete", "filter": {}, "ids": ["chatcmpl-00000000001"]}, "filter"),
        ({"action": "delete", "ids": []}, "ids"),
        ({"action": "delete", "ids": ["nonsense"]}, "ids"),
        ({"action": "delete", "ids": ["chatcmpl-00000000001"] * 10_001}, "ids"),
        ({"action": "delete", "filter": {"colour": "red"}}, "filter.colour"),
        ({"action": "delete", "filter": {"status": "odd"}}, "filter.status"),
        ({"action": "delete", "filter": {"up_to": "nonsense"}}, "up_to"),
        ({"action": "delete", "filter": {}, "metadata": {"a": "b"}}, "metadata"),
        ({"action": "delete", "filter": {}, "undo_seconds": 61}, "undo_seconds"),
        ({"action": "tag", "filter": {}}, "metadata"),
        ({"action": "tag", "filter": {}, "metadata": {}}, "metadata"),
        ({"action": "tag", "filter": {}, "metadata": {"k" * 65: None}}, "metadata"),
        ({"action": "tag", "filter": {}, "metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"action": "tag", "filter": {}, "metadata": {str(n): None for n in range(17)}}, "metadata"),
        ({"action": "tag", "filter": {}, "metadata": {"a": "b"}, "undo_seconds": 5}, "undo_seconds"),
        ({"action": "burn", "filter": {}}, "action"),
    ],
)
def test_what_cannot_be_meant_is_refused(raw: Raw, body: dict[str, Any], param: str) -> None:
    status, _, answer = raw("POST", BULK, body)
    assert (status, answer["error"]["param"]) == (400, param), answer


# --- exporting ------------------------------------------------------------------------------------------


def filter_query(pairs: dict[str, str], **more: str) -> str:
    given = {**{f"metadata[{key}]": value for key, value in pairs.items()}, **more}
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in given.items())


def test_an_export_for_training_is_the_selections_file_line_for_line(
    server: Server, client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    capture(client, label, 12)
    # Left out by both: an answer with nothing in it.
    capture_empty = {"model": "gpt-4o", "messages": [{"role": "user", "content": ""}], "store": True, "metadata": label}
    raw("POST", "/v1/chat/completions", capture_empty)
    _, _, made = raw("POST", "/v1/stillroom/selections", {"filter": {"metadata": label}})
    file = client.files.content(made["training_file"]["id"]).content
    answer = send(server, "GET", f"{EXPORT}?{filter_query(label)}&format=training")
    assert answer.body == file
    assert len(file.splitlines()) == 12
    assert made["skipped"] == {"empty": 1}
    assert answer.headers["content-disposition"].startswith('attachment; filename="completions-training-')
    assert answer.headers["content-type"] == "application/jsonl"
    posted = send(server, "POST", EXPORT, {"filter": {"metadata": label}, "format": "training"})
    assert posted.body == file


def test_a_full_export_has_all_that_is_kept_oldest_first(server: Server, client: OpenAI, label: dict[str, str]) -> None:
    made = capture(client, label, 3)
    rows = [json.loads(line) for line in send(server, "GET", f"{EXPORT}?{filter_query(label)}").body.splitlines()]
    assert [row["id"] for row in rows] == made
    assert rows[1]["request"]["messages"][1] == {"role": "user", "content": "問い1"}
    assert rows[1]["response"]["choices"][0]["message"]["content"] == "問い1"
    assert (rows[1]["metadata"], rows[1]["status"], rows[1]["model"]) == (label, "completed", "gpt-4o")
    some = send(server, "POST", EXPORT, {"ids": [made[2], made[0]], "format": "full"}).body.splitlines()
    assert [json.loads(line)["id"] for line in some] == [made[0], made[2]]


def test_what_is_searched_for_in_japanese_is_exported(
    server: Server, client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    made = capture(client, label, 3)
    path = f"{EXPORT}?{filter_query(label, search='い2')}"
    found = wait_for(lambda: send(server, "GET", path).body, pause=0.05)
    assert [json.loads(line)["id"] for line in found.splitlines()] == [made[2]]


def test_an_export_of_nothing_is_empty_and_a_wrong_one_an_error(server: Server, label: dict[str, str]) -> None:
    empty = send(server, "GET", f"{EXPORT}?{filter_query(label)}")
    assert (empty.status, empty.body) == (200, b"")
    for path in (f"{EXPORT}?format=xml", f"{EXPORT}?colour=red", f"{EXPORT}?created_after=x"):
        assert send(server, "GET", path).status == 400, path
    assert send(server, "POST", EXPORT, {"format": "full"}).error["param"] == "filter"


def test_who_leaves_during_an_export_leaves_nothing_open(
    server: Server, client: OpenAI, raw: Raw, label: dict[str, str]
) -> None:
    for n in range(24):
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"{n}" + "x" * 1_000_000}]}
        assert raw("POST", "/v1/chat/completions", {**body, "store": True, "metadata": label})[0] == 200
    opened = Path(f"/proc/{server.pid}/fd")
    before = len([*opened.iterdir()])
    for _ in range(20):  # more than there are connections to read with
        with closing(connect(server)) as leaving:
            leaving.request("GET", f"{EXPORT}?{filter_query(label)}", headers={"authorization": f"Bearer {server.key}"})
            assert leaving.getresponse().read(1000)
    assert client.chat.completions.list(metadata=label, limit=1).data
    wait_for(lambda: len([*opened.iterdir()]) <= before + 8)
    carried_out(raw, {"action": "delete", "filter": {"metadata": label}})
