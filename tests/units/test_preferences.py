"""Preference pairs out of what is stored and out of eval runs: which answers meet, and what is left out and why."""

from __future__ import annotations

from typing import Any

import pytest

from stillroom import jobs
from stillroom.assembly import Platform
from stillroom.completions import table
from stillroom.datasets import check, preferences
from stillroom.datasets.preferences import Found
from stillroom.errors import InvalidRequest
from stillroom.evals import order, record
from stillroom.evals.items import Laid
from stillroom.evals.preferences import of_runs
from stillroom.evals.table import KIND, Run
from tests.units.evals.test_record import CHECK, found
from tests.units.test_selection import rows_of, store

PROJECT = 1
TEACHER, STUDENT = table.Filter(model="gpt-4o"), table.Filter(model="student")
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def said(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def both(platform: Platform, count: int, first: int = 0) -> None:
    """The student answers so many questions, then the teacher does, each otherwise."""
    for model in ("student", "gpt-4o"):
        for i in range(first, first + count):
            store(platform, f"q{i}", model=model, message=said(f"{model} {i}"))


def pairs(platform: Platform) -> Found:
    return preferences.of_stored(platform.database, PROJECT, TEACHER, STUDENT)


def made(platform: Platform, found: Found, **options: Any) -> list[dict[str, Any]]:
    written = preferences.write(platform.files, PROJECT, found, **options)
    check.check_file(platform.files.path(PROJECT, written.training_file.id))
    return rows_of(platform, written.training_file.id)


def test_the_teachers_answer_is_preferred_to_the_students_to_the_same_conversation(platform: Platform) -> None:
    both(platform, 12)
    found = pairs(platform)
    rows = made(platform, found)
    assert (found.count, found.skipped, len(rows)) == (12, {}, 12)
    asked = [{"role": "system", "content": "shout"}, {"role": "user", "content": "q3"}]
    assert rows[3] == {
        "input": {"messages": asked},
        "preferred_output": [said("gpt-4o 3")],
        "non_preferred_output": [said("student 3")],
    }
    assert found.told["models"] == {"gpt-4o": 12}


def test_what_makes_no_pair_is_counted_by_its_reason(platform: Platform) -> None:
    both(platform, 10)
    store(platform, "alone")
    store(platform, "same", model="student", message=said("Same. "))
    store(platform, "same", message=said("Same."))
    store(platform, "cut", model="student")
    store(platform, "cut", message=said("Cu"), finish_reason="length")
    store(platform, "late", status=table.Status.INCOMPLETE)
    store(platform, "mute", message=said(None))
    for model in ("student", "gpt-4o"):
        begun = [{"role": "user", "content": "prefilled"}, {"role": "assistant", "content": "{"}]
        store(platform, "", model=model, message=said(f"{model}}}"), messages=begun)
    found = pairs(platform)
    assert found.count == 10
    assert found.skipped == {
        "no_counterpart": 2,  # `alone`, and the student's answer to `cut`
        "same_answer": 1,
        "cut_short": 1,
        "incomplete": 1,
        "empty": 1,
        "prefilled": 2,
    }
    assert len(made(platform, found)) == 10


def test_other_tools_make_another_conversation_and_calls_are_answers(platform: Platform) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    both(platform, 9)
    store(platform, "q", model="student", message=said("I cannot."), tools=TOOLS)
    assert pairs(platform).count == 9
    store(platform, "q", message=said("No tools."))
    assert pairs(platform).count == 9
    store(platform, "q", message=said(None, tool_calls=[call]), tools=TOOLS)
    row = made(platform, pairs(platform))[-1]
    assert row["input"]["tools"] == TOOLS
    assert row["preferred_output"] == [{"role": "assistant", "tool_calls": [call]}]


def test_of_several_answers_the_newest_meets_the_newest_and_none_is_used_twice(platform: Platform) -> None:
    for model in ("gpt-4o", "student"):
        for text in ("old", "older", "newest")[: 3 if model == "gpt-4o" else 2]:
            store(platform, "q", model=model, message=said(f"{model} {text}"))
    both(platform, 9)
    found = pairs(platform)
    rows = [row for row in made(platform, found) if row["input"]["messages"][1]["content"] == "q"]
    texts = [(row["preferred_output"][0]["content"], row["non_preferred_output"][0]["content"]) for row in rows]
    assert texts == [("gpt-4o newest", "student older"), ("gpt-4o older", "student old")]
    assert found.skipped == {"no_counterpart": 1}


def test_people_choose_by_metadata_whoever_answered(platform: Platform) -> None:
    for i in range(10):
        better, worse = ("gpt-4o", "student") if i % 2 else ("student", "gpt-4o")
        store(platform, f"q{i}", model=better, message=said("good"), metadata={"preference": "preferred"})
        store(platform, f"q{i}", model=worse, message=said("bad"), metadata={"preference": "rejected"})
    sides = [table.Filter(metadata={"preference": value}) for value in ("preferred", "rejected")]
    chosen = preferences.of_stored(platform.database, PROJECT, sides[0], sides[1])
    assert {row["preferred_output"][0]["content"] for row in made(platform, chosen)} == {"good"}
    assert chosen.told["models"] == {"gpt-4o": 5, "student": 5}


def test_a_conversation_is_on_one_side_of_the_split(platform: Platform) -> None:
    both(platform, 20)
    for i in range(20):
        store(platform, f"q{i}", model="student", message=said("again"))
        store(platform, f"q{i}", message=said("better again"))
    found = pairs(platform)
    written = preferences.write(platform.files, PROJECT, found, validation_fraction=0.25, seed=3)
    assert written.validation_file is not None
    assert (written.pairs, written.validation_pairs) == (30, 10)
    sides = [rows_of(platform, file.id) for file in (written.training_file, written.validation_file)]
    asked = [{row["input"]["messages"][1]["content"] for row in rows} for rows in sides]
    assert not asked[0] & asked[1]


def test_nine_pairs_are_too_few_and_the_reasons_are_told(platform: Platform) -> None:
    both(platform, 9)
    store(platform, "alone")
    with pytest.raises(InvalidRequest) as refused:
        preferences.write(platform.files, PROJECT, pairs(platform))
    assert refused.value.code == "invalid_n_examples"
    assert refused.value.message == (
        "There are 9 preference pairs; a fine-tuning job needs at least 10. "
        "Of what was looked at: 1 had no counterpart in the same conversation."
    )


# --- eval runs ----------------------------------------------------------------------------------------


def ran(platform: Platform, *items: dict[str, Any]) -> Run:
    """A run on given answers that has succeeded, with these items."""
    config = {"data_source_config": {"type": "stored_completions"}, "testing_criteria": [CHECK]}
    definition = platform.evals.create(PROJECT, order.parse_eval(config))
    asked = order.parse_run(
        {"data_source": {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {}}]}}},
        definition.data_source_config,
    )
    run = platform.evals.start(PROJECT, "key-1", definition.id, asked)
    claim = platform.writer.write(lambda c: jobs.claim(c, "worker", [KIND]))
    assert claim is not None
    platform.writer.write(lambda c: record.record_start(c, claim, Laid(total=len(items))))
    rows = [{**item, "number": number} for number, item in enumerate(items)]
    platform.writer.write(lambda c: record.record_items(c, claim, rows))
    platform.writer.write(lambda c: record.finish(c, claim))
    return run


def answered(question: str, answer: str | None, reference: str, *, passed: bool, **more: Any) -> dict[str, Any]:
    output = [] if answer is None else [said(answer)]
    return {
        **found(0, passed),
        "item": {"input": [{"role": "user", "content": question}], **more},
        "sample": {"output": output, "error": None},
        "reference": {"model": "gpt-4o", "message": said(reference, refusal=None)},
        "agrees": answer == reference,
    }


def test_a_runs_pairs_are_what_the_model_answered_otherwise_than_the_teacher(platform: Platform) -> None:
    wrong = [answered(f"q{i}", "wrong", "right", passed=False, tools=TOOLS) for i in range(10)]
    prefilled = answered("begun", "wrong", "right", passed=False)
    prefilled["item"]["input"].append(said("ri"))
    run = ran(
        platform,
        *wrong,
        wrong[0],
        answered("good", "right", "right", passed=True),
        answered("otherwise", "as right", "right", passed=True),
        answered("mute", None, "right", passed=False),
        prefilled,
        {**found(0, False), "item": {}, "sample": {"output": [said("x")], "error": None}, "reference": None},
    )
    all_of_them = of_runs(platform.evals, [run])
    assert all_of_them.count == 11
    assert all_of_them.skipped == {"repeated": 1, "agrees": 1, "unanswered": 1, "no_reference": 1, "prefilled": 1}
    failed = of_runs(platform.evals, [run], failed_only=True)
    assert (failed.count, failed.skipped["passed"]) == (10, 1)
    rows = made(platform, failed)
    assert rows[0] == {
        "input": {"messages": [{"role": "user", "content": "q0"}], "tools": TOOLS},
        "preferred_output": [said("right")],
        "non_preferred_output": [said("wrong")],
    }
