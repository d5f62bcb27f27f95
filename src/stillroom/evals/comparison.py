"""The criteria that put a student beside its teacher, and how a judge's preference is read from them.

A judge that compares two answers favours a position, so each pair is shown twice, the answers
swapped. The student wins (or loses) when it is preferred (or not) both times; all else is a tie.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

FIRST, SECOND, TIE = "first", "second", "tie"
TEACHER_FIRST = "Preferred by the judge (teacher's answer first)"
STUDENT_FIRST = "Preferred by the judge (student's answer first)"
SAME_MEANING = "Same meaning (judge)"
SAME_TEXT = "Same text"
JUDGED = (SAME_MEANING, TEACHER_FIRST, STUDENT_FIRST)
"""What a judge is asked of a pair. Nobody is asked when both answers are the same: they mean the same, and tie."""
TEACHER_SAID = "{{ item.output_text }}\nTool calls: {{ item.output_tools }}"
STUDENT_SAID = "{{ sample.output_text }}\nTool calls: {{ sample.output_tools }}"


class Preference(enum.StrEnum):
    """What a judge makes of a pair of answers, seen from the student."""

    WIN = "win"
    TIE = "tie"
    LOSS = "loss"


def criteria(judge: str | None) -> list[dict[str, Any]]:
    """Testing criteria for an eval over stored completions; with a judge, its opinion too."""
    found = [
        {
            "type": "string_check",
            "name": SAME_TEXT,
            "operation": "eq",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.output_text }}",
        },
        _similarity("Similar spelling (fuzzy match 0.9)", "fuzzy_match", 0.9),
        _similarity("Shared wording (ROUGE-L 0.7)", "rouge_l", 0.7),
    ]
    if judge is not None:
        found += [_same_meaning(judge), _preferred(judge, teacher_first=True), _preferred(judge, teacher_first=False)]
    return found


def preference(results: Iterable[Mapping[str, Any]]) -> Preference | None:
    """The judge's preference; None when it was not asked, or could not say."""
    labels = {one["name"]: (one["sample"] or {}).get("label") for one in results if one["problem"] is None}
    if labels.get(TEACHER_FIRST) is None or labels.get(STUDENT_FIRST) is None:
        return None
    seen = (labels[TEACHER_FIRST], labels[STUDENT_FIRST])
    if seen == (SECOND, FIRST):
        return Preference.WIN
    return Preference.LOSS if seen == (FIRST, SECOND) else Preference.TIE


def _similarity(name: str, metric: str, threshold: float) -> dict[str, Any]:
    return {
        "type": "text_similarity",
        "name": name,
        "evaluation_metric": metric,
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.output_text }}",
        "pass_threshold": threshold,
    }


def _same_meaning(judge: str) -> dict[str, Any]:
    asked = (
        "Say how far the second answer means the same as the first: 1 when a reader would act on both alike, "
        "0 when they contradict each other or answer different questions. Wording, length and order do not count."
    )
    return {
        "type": "score_model",
        "name": SAME_MEANING,
        "model": judge,
        "range": [0, 1],
        "pass_threshold": 0.7,
        "sampling_params": {"temperature": 0},
        "input": [
            {"role": "system", "content": asked},
            {"role": "user", "content": _pair(TEACHER_SAID, STUDENT_SAID)},
        ],
    }


def _preferred(judge: str, *, teacher_first: bool) -> dict[str, Any]:
    asked = (
        "Two answers to the same request are shown. Say which one serves the request better: 'first', 'second', or "
        "'tie' when neither does. Judge correctness and whether it does what was asked; do not favour length, style "
        "or the order they are shown in."
    )
    pair = (TEACHER_SAID, STUDENT_SAID) if teacher_first else (STUDENT_SAID, TEACHER_SAID)
    return {
        "type": "label_model",
        "name": TEACHER_FIRST if teacher_first else STUDENT_FIRST,
        "model": judge,
        "labels": [FIRST, SECOND, TIE],
        "passing_labels": [SECOND, TIE] if teacher_first else [FIRST, TIE],
        "input": [{"role": "system", "content": asked}, {"role": "user", "content": _pair(*pair)}],
    }


def _pair(first: str, second: str) -> str:
    return f"Request:\n{{{{ item.input }}}}\n\nFirst answer:\n{first}\n\nSecond answer:\n{second}"
