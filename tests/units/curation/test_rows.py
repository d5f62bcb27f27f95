"""Single rows: refusals, lengths, languages, rows that are none; and the report of them all."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.cli import curating
from stillroom.cli.curating import curation_of
from stillroom.curation import Curation, FileRows, Report, curate, markdown, plots
from stillroom.curation.texts import about_tokens, shingles
from stillroom.errors import InvalidRequest, MissingExtra
from tests.units.curation.test_duplicates import left_out, row

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I cannot assist with this request.",
    "Sorry, but I am unable to provide instructions for picking locks.",
    "I can't comply with that.",
    "As an AI language model, I don't have opinions on politics.",
    "Unfortunately, I won't be able to continue with this conversation.",
    "I must decline to answer that.",
    "申し訳ありませんが、そのご依頼にはお応えできません。",
    "申し訳ございませんが、その内容についてはお手伝いすることができません。",
    "すみません、その質問にはお答えできません。",
    "その情報を提供することはできません。",
    "AIアシスタントとして、そのような内容を作成することはできません。",
    "<think>They ask for a lock.</think>I can't help with that.",
]
ANSWERS = [
    "I'm sorry to hear that your parcel is late. It will arrive on Monday.",
    "Sorry, we cannot refund shipping costs after 30 days.",
    "The customer wrote: I'm sorry, but I can't help with that.",
    "You cannot help with that until the form is signed.",
    "Unfortunately the shop is closed on Sundays.",
    "As a teacher, I have seen this often.",
    "申し訳ありませんが、現在在庫がございません。来週入荷予定です。",
    "この商品は返品できません。",
    "この機種は充電器に対応できません。",
    "AIカメラは夜間には使用できません。",
    "As an AI engineer you must know this.",
    "We cannot provide any refund after 30 days.",
    "明日お届けできます。",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals_are_known_by_how_they_begin(answer: str) -> None:
    assert left_out([row("?", answer)], refusals=True) == {0: "refusal"}
    assert left_out([row("?", answer)]) == {}


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_that_regret_or_quote_are_no_refusals(answer: str) -> None:
    assert left_out([row("?", answer)], refusals=True) == {}


def test_refusals_by_field_by_finish_reason_and_by_ones_own_phrases() -> None:
    declined = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "-", "refusal": "No."}]}
    rows = [
        declined,
        row("?", "Sure:", finish_reason="content_filter"),
        row("?", "Nope. Not me."),
        row("?", REFUSALS[0]),
    ]
    assert left_out(rows, refusals=True) == {0: "refusal", 1: "refusal", 3: "refusal"}
    own = left_out(rows, refusals=True, refusal_phrases=["nope"])
    assert own == {0: "refusal", 1: "refusal", 2: "refusal"}


def test_lengths_count_characters_and_about_tokens_of_prompt_and_answer() -> None:
    rows = [row("x" * 40, "y" * 8), row("x" * 41, "y" * 8), row("x" * 40, "y" * 7), row("荷" * 20, "物" * 2)]
    system = row("x" * 20, "y" * 8, {"role": "system", "content": "z" * 20})
    limits = {"max_prompt_characters": 40, "min_answer_characters": 8}
    assert left_out([*rows, system], **limits) == {1: "too_long", 2: "too_short", 3: "too_short", 4: "too_long"}
    assert left_out(rows, max_prompt_tokens=10) == {1: "too_long", 3: "too_long"}
    assert left_out(rows, min_answer_tokens=2, max_answer_tokens=2) == {}


def test_the_command_lines_lengths_are_characters_or_tokens_and_nothing_else() -> None:
    none: dict[str, Any] = dict.fromkeys(("near_duplicates", "languages"))
    off = dict.fromkeys(("no_duplicates", "no_refusals", "no_truncated"), False)
    asked = curation_of(**off, **none, lengths={"max_answer": ["2000", "500t"], "min_prompt": None})
    assert asked == Curation(max_answer_characters=2000, max_answer_tokens=500)
    with pytest.raises(typer.BadParameter, match="'long' is no length"):
        curation_of(**off, **none, lengths={"max_answer": ["long"]})


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_every_text_has_tokens_and_pieces(text: str) -> None:
    assert 0 <= about_tokens(text) <= len(text)
    assert bool(text.strip()) == bool(about_tokens(text.strip()))
    assert shingles(text) == shingles(text.upper().lower()) or not text.isascii()


def test_rows_of_another_language_are_left_out_and_those_too_short_to_tell_stay() -> None:
    rows = [
        row("Where is my parcel? I ordered it two weeks ago.", "It will arrive on Monday morning."),
        row("Wo ist mein Paket? Ich habe es vor zwei Wochen bestellt.", "Es kommt am Montag bei Ihnen an."),
        row("荷物が届きません。いつ届きますか。", "月曜日の午前中にお届けする予定です。"),
        row("?", "refund"),
        row("{}", '{"a": 1}'),
    ]
    assert left_out(rows, languages=["en"]) == {1: "language", 2: "language"}
    with pytest.raises(InvalidRequest, match="'english'"):
        left_out(rows, languages=["english"])


def test_without_the_extra_languages_are_refused_with_the_command_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match=r"stillroom\[distill\]"):
        left_out([row("a", "b")], languages=["en"])
    assert left_out([row("a", "b")], near_duplicates=True) == {}


HOSTILE: list[Any] = [
    None,
    7,
    "text",
    [],
    {},
    {"messages": None},
    {"messages": []},
    {"messages": [1, 2]},
    {"messages": [{"role": "user", "content": "no answer"}]},
    {"messages": [{"role": "assistant"}]},
    {"messages": [{"role": "assistant", "content": " \n"}]},
    {
        "messages": [
            {"role": 3, "content": {"a": object}},
            {"role": "assistant", "content": [None, 4, {"text": 5}, "x"]},
        ]
    },
    {"messages": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "\udfff ok"}], "tools": 3},
    {"messages": [{"role": "assistant", "content": "calls", "tool_calls": [None, {"function": 3}, 7]}]},
    {"messages": [{"role": "assistant", "content": "calls", "tool_calls": 7}], "finish_reason": ["stop"]},
    {"input": {"messages": 3}, "preferred_output": {}},
    {
        "input": {"messages": [{"role": "user", "content": "?"}]},
        "preferred_output": [{"role": "assistant", "content": "!"}],
    },
    row("x " * 200_000, "y"),
    row("", "0"),
]
EVERYTHING = {
    "exact_duplicates": True,
    "near_duplicates": 0.8,
    "refusals": True,
    "truncated": True,
    "languages": ["en"],
}


def test_hostile_rows_are_told_and_nothing_breaks() -> None:
    outcome = curate(HOSTILE, Curation(**EVERYTHING), validation_fraction=0.5, scores=[None] * len(HOSTILE))
    counts = Counter(outcome.reasons.values())
    assert (counts["malformed"], counts["empty"]) == (10, 2)
    assert len(outcome.training) + len(outcome.validation) + len(outcome.reasons) == len(HOSTILE)
    assert "1 rows are so long" in markdown(outcome.report)
    assert msgspec.json.decode(msgspec.json.encode(outcome.report), type=Report) == outcome.report


def test_a_files_broken_lines_are_rows_that_are_told_by_their_number(tmp_path: Path) -> None:
    good = msgspec.json.encode(row("a", "b"))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + good + b"\r\n\n{broken\n" + good + b"\n[" + b"[" * 100_000 + b"\n\xff\xfe\n" + good
    )
    with FileRows(path) as rows:
        outcome = curate(rows, Curation(exact_duplicates=True), names=rows.lines)
    told = {left.reason: left.examples for left in outcome.report.left_out}
    assert told == {"malformed": [3, 5, 6], "exact_duplicate": [4, 7]}
    assert outcome.training == [0]


def test_the_report_counts_lengths_labels_and_groups_and_can_be_drawn(tmp_path: Path) -> None:
    answers = ["refund"] * 30 + ["shipping|*"] * 10
    rows = [row("x" * (number + 1), answer) for number, answer in enumerate(answers)] + [row("x", "refund")] * 2
    report = curate(rows, Curation(exact_duplicates=True), validation_fraction=0.25, seed=1).report
    assert (report.rows, report.kept, report.split.training, report.split.validation) == (42, 40, 30, 10)
    assert report.labels is not None
    assert [(one.name, one.count) for one in report.labels] == [("refund", 30), ("shipping|*", 10)]
    (prompts,) = (one for one in report.lengths if one.what == "prompt_characters")
    assert (prompts.least, prompts.most, prompts.mean) == (1, 40, 20.5)
    assert [(one.least, one.below, one.count) for one in prompts.histogram] == [
        *((1, 2, 1), (2, 5, 3), (5, 10, 5), (10, 20, 10), (20, 50, 21)),
    ]
    (duplicates,) = report.duplicates
    assert (duplicates.groups, duplicates.rows) == (1, 2)
    assert (duplicates.largest[0].stays, duplicates.largest[0].examples) == (1, [41, 42])
    page = markdown(report)
    assert "| exact duplicate | 2 | 41, 42 |" in page
    assert "| shipping\\|\\* | 10 | 25.0% |" in page
    drawn = plots.draw(report, tmp_path)
    assert [path.name for path in drawn] == ["lengths.png", "labels.png", "left_out.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def written(tmp_path: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return path


def test_what_stays_of_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = written(tmp_path, [row("a", "b"), row("a", "b"), row("c", "d")])
    before, link = file.read_bytes(), tmp_path / "link.jsonl"
    link.symlink_to(file)
    for itself in (file, tmp_path / "." / "rows.jsonl", link):
        with pytest.raises(typer.BadParameter, match="is the file that is read; name another"):
            curating.report(file, no_duplicates=True, output=itself)
    for nowhere in (tmp_path / "none" / "x.jsonl", tmp_path, file / "x.jsonl"):
        with pytest.raises(typer.BadParameter, match="cannot be written"):
            curating.report(file, no_duplicates=True, output=nowhere)
    kept = written(tmp_path, ["what was there"], "kept.jsonl")
    with pytest.raises(InvalidRequest):
        curating.report(file, near_duplicates=7, output=kept)
    assert b"what was there" in kept.read_bytes()
    curating.report(file, no_duplicates=True, output=kept)
    assert kept.read_bytes() == b"".join(msgspec.json.encode(row(*said)) + b"\n" for said in ("ab", "cd"))
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "link.jsonl", "kept.jsonl"}


def test_the_command_line_tells_beside_what_is_left_out_only_what_was_not_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each long row is Japanese as well, and counts as too long."""
    japanese = row("荷物が届きません。いつ届きますか。" * 5, "月曜日の午前中にお届けする予定です。")
    file = written(tmp_path, [japanese, row("?", REFUSALS[0]), row("?", "b")])
    curating.report(file, language=["en"], max_prompt=["40"])
    told = capsys.readouterr().out
    assert ("too long 1 1" in " ".join(told.split()), "other language" in told) == (True, False)
    assert "FOUND, NOT ASKED FOR ROWS refusal 1" in " ".join(told.split())
    curating.report(file, language=["en"], max_prompt=["40"], no_refusals=True)
    assert "NOT ASKED FOR" not in capsys.readouterr().out


@pytest.mark.parametrize(("others", "share"), [(0, "100 %"), (1, "99.9 %"), (20, "98 %")])
def test_one_answer_for_nearly_all_rows_is_noted_with_its_share(others: int, share: str) -> None:
    rows = [row(str(number), "no" if number < others else "yes") for number in range(1001 if others == 1 else 1000)]
    notes = curate(rows, Curation()).report.notes
    assert notes == [f"{share} of the answers are 'yes': a student that always says so would look good."]
