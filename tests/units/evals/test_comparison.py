"""A judge's two verdicts on a pair, and what a report makes of evals that have no teacher."""

from __future__ import annotations

from typing import Any

import pytest

from stillroom.evals.comparison import STUDENT_FIRST, TEACHER_FIRST, Preference, criteria, preference
from stillroom.graders.order import models_of, read


def verdicts(teacher_first: str | None, student_first: str | None) -> list[dict[str, Any]]:
    return [
        {"name": name, "problem": None if label else {"kind": "x"}, "sample": {"label": label} if label else None}
        for name, label in ((TEACHER_FIRST, teacher_first), (STUDENT_FIRST, student_first))
    ]


@pytest.mark.parametrize(
    ("teacher_first", "student_first", "seen"),
    [
        ("second", "first", Preference.WIN),
        ("first", "second", Preference.LOSS),
        ("tie", "tie", Preference.TIE),
        ("first", "first", Preference.TIE),  # it likes what it reads first
        ("second", "second", Preference.TIE),
        ("tie", "first", Preference.TIE),
        ("first", "tie", Preference.TIE),
        (None, "first", None),
        ("second", None, None),
    ],
)
def test_a_preference_counts_only_when_it_survives_the_swap(
    teacher_first: str | None, student_first: str | None, seen: Preference | None
) -> None:
    assert preference(verdicts(teacher_first, student_first)) is seen


def test_without_the_two_criteria_there_is_no_preference() -> None:
    assert preference([{"name": "Same text", "problem": None, "sample": None}]) is None


@pytest.mark.parametrize("judge", [None, "gpt-4o"])
def test_the_criteria_are_ones_that_an_eval_takes(judge: str | None) -> None:
    graders = [read(criterion, param="testing_criteria", in_eval=True) for criterion in criteria(judge)]
    assert {model for grader in graders for model in models_of(grader)} == ({judge} if judge else set())
    assert len({grader.name for grader in graders}) == len(graders)
