"""Best of n: of several answers to the same prompt, the one with the best score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isnan
from typing import Any

from stillroom.curation.texts import said

Score = float | None


def choose(rows: Sequence[Any], scores: Sequence[Score]) -> list[int]:
    """The rows that stay, in order: of each prompt the one with the highest score, the first of equal ones. A
    row without a score (None) stays only where no answer to its prompt has one; a malformed row is no answer
    to anything and stays."""
    prompts: dict[int, bytes] = {}
    for number, row in enumerate(rows):
        if (texts := said(row)) is not None:
            prompts[number] = texts.prompt_digest
    beaten = not_best(prompts, scores)
    return [number for number in range(len(rows)) if number not in beaten]


def not_best(prompts: Mapping[int, bytes], scores: Sequence[Score]) -> dict[int, int]:
    """Which rows have a better answer to the same prompt, and which answer that is. `prompts`: by row number."""
    best: dict[bytes, int] = {}
    for number, prompt in prompts.items():
        if prompt not in best or _value(scores[number]) > _value(scores[best[prompt]]):
            best[prompt] = number
    return {number: best[prompt] for number, prompt in prompts.items() if best[prompt] != number}


def _value(score: Score) -> float:
    return -inf if score is None or isnan(score) else score
