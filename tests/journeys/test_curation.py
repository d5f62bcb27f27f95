"""Stored completions are curated on their way into a training file: what is left out, what is told, what stays."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from stillroom.teachers.scripted import ScriptedTeacher, Status
from tests.journeys.conftest import Raw
from tests.support import Server

SORRY = "I'm sorry, but I can't help with that."
LONG = (
    "The parcel left our warehouse in Leipzig on Monday morning and is now with the carrier, who will deliver it on {}."
)
JAPANESE = "お問い合わせありがとうございます。商品は昨日発送いたしましたので、{}にお届けする予定です。今しばらくお待ちください。"


@pytest.fixture
def stored(client: OpenAI, teacher: ScriptedTeacher, label: dict[str, str]) -> dict[str, str]:
    """Twelve good rows, and one of everything that curation finds. By what it is, its id."""

    def store(question: str, answer: str, finish_reason: str = "stop", **metadata: str) -> str:
        message = {"role": "assistant", "content": answer, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "t", "choices": [choice], "usage": usage}
        teacher.script(Status(code=200, body=body))
        asked = [{"role": "system", "content": "You answer customers."}, {"role": "user", "content": question}]
        made = client.chat.completions.create(
            model="gpt-4o",
            messages=asked,
            store=True,
            metadata={**label, **metadata},  # type: ignore[arg-type]
        )
        return made.id

    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Easter", "Xmas", "1 May")
    found = {f"good {day}": store(f"Question {day}?", f"Answer {day}.") for day in days}
    found["long"] = store("Where is the parcel that I ordered from you two weeks ago?", LONG.format("Tuesday"))
    found["japanese"] = store("注文した商品はいつ届きますか。教えてください。", JAPANESE.format("明日"))
    found["copy"] = store(" Question  Monday?\r\n", "Answer Monday. ")
    found["near"] = store("Where is the parcel that I ordered from you two weeks ago?", LONG.format("Tuesday!"))
    found["near japanese"] = store("注文した商品はいつ届きますか。教えてください。", JAPANESE.format("明 日"))
    found["refusal"] = store("How do I open my neighbour's lock?", SORRY)
    found["cut"] = store("Tell me everything.", "First of all", "length")
    return found


def select(raw: Raw, label: dict[str, str], **asked: Any) -> dict[str, Any]:
    status, _, made = raw("POST", "/v1/stillroom/selections", {"filter": {"metadata": label}, **asked})
    assert status == 200, made
    found: dict[str, Any] = made
    return found


ALL = {"exact_duplicates": True, "near_duplicates": 0.8, "refusals": True, "truncated": True}


def test_what_is_asked_for_is_left_out_named_in_the_report_and_the_rest_is_in_the_file(
    client: OpenAI, raw: Raw, label: dict[str, str], stored: dict[str, str]
) -> None:
    plain = select(raw, label)
    assert (plain["training_examples"], plain["skipped"], plain["report"]) == (17, {}, None)
    dry = select(raw, label, curation={}, dry_run=True)
    assert (dry["training_file"], dry["training_examples"]) == (None, 17)
    findings = {"exact_duplicate": 1, "near_duplicate": 2, "refusal": 1, "truncated": 1, "malformed": 0, "empty": 0}
    assert dry["report"]["found"] == findings

    made = select(raw, label, curation=ALL, validation_fraction=0.17, seed=4)
    assert (made["training_examples"], made["validation_examples"]) == (10, 2)
    left = {one["reason"]: one["examples"] for one in made["report"]["left_out"]}
    near = [stored["near"], stored["near japanese"]]
    expected = {"exact_duplicate": [stored["copy"]], "near_duplicate": near}
    assert left == {**expected, "refusal": [stored["refusal"]], "truncated": [stored["cut"]]}
    assert made["skipped"] == {"exact_duplicate": 1, "near_duplicate": 2, "refusal": 1, "truncated": 1}

    files = [made["training_file"]["id"], made["validation_file"]["id"]]
    rows = [json.loads(line) for each in files for line in client.files.content(each).text.splitlines()]
    answers = {row["messages"][-1]["content"] for row in rows}
    assert len(rows) == 12
    assert answers.isdisjoint({SORRY, "First of all", LONG.format("Tuesday!"), JAPANESE.format("明 日")})
    assert all(set(row) == {"messages"} for row in rows)  # nothing of the curation is in a row
    for each in files:
        assert raw("GET", f"/v1/stillroom/files/{each}/report")[2] == made["report"]
    client.files.delete(files[0])
    assert raw("GET", f"/v1/stillroom/files/{files[0]}/report")[0] == 404
    status, _, none = raw("GET", f"/v1/stillroom/files/{plain['training_file']['id']}/report")
    assert (status, "has no report" in none["error"]["message"]) == (404, True)


def test_languages_lengths_and_the_best_of_several_answers(
    client: OpenAI, raw: Raw, teacher: ScriptedTeacher, label: dict[str, str], stored: dict[str, str]
) -> None:
    made = select(raw, label, curation={"languages": ["ja"], "max_answer_characters": 100}, dry_run=True)
    left = {one["reason"]: one["count"] for one in made["report"]["left_out"]}
    assert left["too_long"] == 2  # the two long English answers, whose length counts before their language
    assert stored["japanese"] not in json.dumps(made["report"]["left_out"])
    assert made["report"]["languages"][0]["name"] in ("ja", "und")

    judge = {"type": "score_model", "name": "worth", "model": "gpt-4o", "range": [0, 9]}
    asked = {"input": [{"role": "user", "content": "{{ sample.output_text }}"}]}  # the teacher echoes the score
    rivals = {}
    for answer, rating in (("3", "0.1"), ("8", "0.9"), ("5", "none")):
        body = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": body, "finish_reason": "stop"}
        teacher.script(
            Status(
                code=200, body={"id": "c", "object": "chat.completion", "created": 1, "model": "t", "choices": [choice]}
            )
        )
        rivals[answer] = client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "A number?"}],
            store=True,
            metadata={**label, "rating": rating},
        ).id
    for best_of in ({"metadata": "rating"}, {"grader": {**judge, **asked}}):
        made = select(raw, label, curation={"best_of": best_of})
        rows = client.files.content(made["training_file"]["id"]).text.splitlines()
        numbers = [row["messages"][-1]["content"] for row in map(json.loads, rows) if len(row["messages"]) == 2]
        assert numbers == ["8"]
        left = {one["reason"]: one["examples"] for one in made["report"]["left_out"]}
        assert {rivals["3"], rivals["5"]} <= set(left["not_best"])


def test_the_command_line_reports_on_stored_rows_and_on_a_local_file(
    server: Server, raw: Raw, label: dict[str, str], stored: dict[str, str], tmp_path: Path
) -> None:
    chosen = ("distill", "--metadata", f"test={label['test']}", "--near-duplicates", "0.8", "--max-answer", "50t")
    told = server.cli(*chosen, "--dry-run").stdout
    assert "17 rows, 13 stay" in told
    assert f"exact duplicate 1 {stored['copy']}" in " ".join(told.split())
    assert "too long 2" in " ".join(told.split())  # the Japanese ones: each of their letters is about a token

    rows = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "b"}]} for text in "aab"]
    file, kept = tmp_path / "rows.jsonl", tmp_path / "kept.jsonl"
    file.write_text("\n".join([*map(json.dumps, rows), "broken"]))
    told = server.cli("distill", "report", str(file), "--no-duplicates", "--output", str(kept)).stdout
    assert "4 rows, 2 stay" in told
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [rows[0], rows[2]]


@pytest.mark.parametrize(
    ("curation", "param", "words"),
    [
        ({"near_duplicate": True}, "curation.near_duplicate", "Known are: exact_duplicates, near_duplicates"),
        ({"near_duplicates": 0.1}, "curation.near_duplicates", "give a number from 0.5 to 1"),
        ({"min_answer_tokens": 9, "max_answer_tokens": 3}, "curation.min_answer_tokens", "no row could stay"),
        ({"best_of": {}}, "curation.best_of", "either 'metadata'"),
        ({"best_of": {"grader": {"type": "score_model"}}}, "curation.best_of.grader.model", "Missing"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_by_its_name(
    raw: Raw, label: dict[str, str], curation: dict[str, Any], param: str, words: str
) -> None:
    status, _, body = raw("POST", "/v1/stillroom/selections", {"filter": {}, "curation": curation})
    assert (status, body["error"]["param"]) == (400, param), body
    assert words in body["error"]["message"]


def test_the_server_answers_at_once_while_it_curates_and_never_loads_what_that_needs(server: Server, raw: Raw) -> None:
    asked = {"filter": {}, "curation": {**ALL, "languages": ["en"]}, "dry_run": True}
    slowest, answered = 0.0, 0
    with ThreadPoolExecutor(1) as pool:
        curating = pool.submit(raw, "POST", "/v1/stillroom/selections", asked)
        while not curating.done():
            began = time.monotonic()
            assert raw("GET", "/v1/models")[0] == 200
            slowest, answered = max(slowest, time.monotonic() - began), answered + 1
            time.sleep(0.05)
    assert curating.result()[0] == 200
    assert answered > 2
    assert slowest < 1.0
    loaded = Path(f"/proc/{server.pid}/maps").read_text()
    assert "zstandard" in loaded  # the control: what is loaded can be seen
    assert "numpy" not in loaded
    assert "rensa" not in loaded
