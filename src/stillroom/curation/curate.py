"""Curates rows: reads each once for what concerns it alone, and a second time only where rows must be compared.

In memory are some hundred bytes a row, and no texts but short answers, which may be labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stillroom.curation import reporting
from stillroom.curation.answers import is_refusal
from stillroom.curation.best import Score, not_best
from stillroom.curation.duplicates import Found, near_duplicates, together
from stillroom.curation.languages import Detect, detector, is_there
from stillroom.curation.order import LIKELY, Curation, Reason
from stillroom.curation.reporting import Facts, Name, Report
from stillroom.curation.splitting import held_out_of
from stillroom.curation.texts import Said, about_tokens, said

LABEL_LETTERS = 100  # a longer answer is no label


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the rows, by their numbers from 0."""

    training: list[int]
    validation: list[int]
    reasons: dict[int, str]
    """Why each of the others is left out."""
    rivals: list[int]
    """Those that stay beside another answer to the same prompt."""
    report: Report


@dataclass(kw_only=True)
class _Judged:
    """What is known of the rows so far. `applies`: all that speaks against a row alone, where something does."""

    facts: list[Facts | None]
    applies: dict[int, list[Reason]] = field(default_factory=dict)
    reasons: dict[int, Reason] = field(default_factory=dict)
    """Why rows are left out."""
    found: dict[Reason, int] = field(default_factory=dict)
    """How many rows each check finds, asked for or not."""
    groups: dict[Reason, dict[int, int]] = field(default_factory=dict)
    """By reason, which row stays in the place of each that is left out."""
    notes: list[str] = field(default_factory=list)

    def left(self) -> list[int]:
        return [number for number, known in enumerate(self.facts) if known and number not in self.reasons]


def curate(
    rows: Sequence[Any],
    order: Curation,
    *,
    names: Sequence[Name] | None = None,
    scores: Sequence[Score] | None = None,
    validation_fraction: float = 0.0,
    seed: int = 0,
    survey: bool = False,
) -> Outcome:
    """Which rows stay, which of them to validate with, and a report. Rows are read up to three times and must
    be the same each time. `names`: what the report calls them; 1, 2, 3 ... by default. `scores`: of the rows with
    the same prompt only the one with the best stays. `survey`: the report also says what the checks that were
    not asked for would find. Raises InvalidRequest, and MissingExtra when languages cannot be told here."""
    order.check()
    judged = _read(rows, order, _detector(order, survey))
    _leave_out_alone(judged, order)
    _leave_out_copies(judged, order)
    if scores is not None:
        _leave_out_beaten(judged, scores)
    texts = _Texts(rows)
    if order.threshold is not None or survey:
        _leave_out_similar(judged, order, texts)
    left, prompts = judged.left(), _prompts(judged)
    # Most splits need no comparison: the second reading is for those that do.
    groups = together(texts, left, prompts, order.held_together) if validation_fraction else [[each] for each in left]
    held_out = set(held_out_of(groups, validation_fraction, seed))
    training = [number for number in left if number not in held_out]
    report = reporting.report(
        judged.facts,
        reasons=judged.reasons,
        found=judged.found,
        stays=judged.groups,
        names=names if names is not None else range(1, len(rows) + 1),
        split=reporting.Split(
            training=len(training),
            validation=len(held_out),
            seed=seed,
            groups=len(groups),
            largest_group=max(map(len, groups), default=0),
        ),
        scores=scores,
        notes=judged.notes,
    )
    answers = Counter(prompts[number] for number in left)
    return Outcome(
        training=training,
        validation=sorted(held_out),
        reasons={number: reason.value for number, reason in judged.reasons.items()},
        rivals=[number for number in left if answers[prompts[number]] > 1],
        report=report,
    )


class _Texts:
    """The rows' texts, of rows that are known to have some."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __call__(self, number: int) -> Said:
        texts = said(self._rows[number])
        assert texts is not None
        return texts


def _detector(order: Curation, survey: bool) -> Detect | None:
    if order.languages is not None:
        return detector(order.languages)
    return detector() if survey and is_there() else None


def _read(rows: Sequence[Any], order: Curation, detect: Detect | None) -> _Judged:
    judged = _Judged(facts=[])
    for number in range(len(rows)):
        texts = said(rows[number])
        judged.facts.append(None if texts is None else _facts(texts, detect))
        if against := _against(texts, judged.facts[number], order):
            judged.applies[number] = against
    judged.found = dict.fromkeys((Reason.MALFORMED, Reason.EMPTY, Reason.REFUSAL, Reason.TRUNCATED), 0)
    for reason in (reason for against in judged.applies.values() for reason in against):
        judged.found[reason] = judged.found.get(reason, 0) + 1
    return judged


def _facts(texts: Said, detect: Detect | None) -> Facts:
    before = f"{texts.system}\n{texts.prompt}" if texts.system else texts.prompt
    answer = texts.answer.strip()
    return Facts(
        prompt=texts.prompt_digest,
        digest=texts.digest,
        prompt_characters=len(before),
        answer_characters=len(texts.answer),
        prompt_tokens=about_tokens(before),
        answer_tokens=about_tokens(texts.answer),
        label=answer if len(answer) <= LABEL_LETTERS else None,
        language=detect(texts) if detect is not None else None,
    )


def _against(texts: Said | None, facts: Facts | None, order: Curation) -> list[Reason]:
    """Everything that speaks against a row alone, asked for or not, in the order in which it counts."""
    if texts is None or facts is None:
        return [Reason.MALFORMED]
    if not texts.answer.strip():
        return [Reason.EMPTY]
    against = {
        Reason.REFUSAL: is_refusal(texts, order.refusal_phrases),
        Reason.TRUNCATED: texts.finish_reason == "length",
        Reason.TOO_SHORT: _is_beyond(facts, order, "min", -1),
        Reason.TOO_LONG: _is_beyond(facts, order, "max", 1),
        Reason.LANGUAGE: order.languages is not None and facts.language not in (*order.languages, "und"),
    }
    return [reason for reason, speaks in against.items() if speaks]


def _is_beyond(facts: Facts, order: Curation, which: str, sign: int) -> bool:
    for part in ("prompt_characters", "answer_characters", "prompt_tokens", "answer_tokens"):
        limit = getattr(order, f"{which}_{part}")
        if limit is not None and sign * getattr(facts, part) > sign * limit:
            return True
    return False


def _leave_out_alone(judged: _Judged, order: Curation) -> None:
    asked = order.asked
    for number, against in judged.applies.items():
        if applied := [reason for reason in against if reason in asked]:
            judged.reasons[number] = applied[0]


def _leave_out_copies(judged: _Judged, order: Curation) -> None:
    first: dict[bytes, int] = {}
    stays: dict[int, int] = {}
    for number in judged.left():
        digest = _known(judged, number).digest
        if first.setdefault(digest, number) != number:
            stays[number] = first[digest]
    _settle(judged, Reason.EXACT_DUPLICATE, stays, asked=Reason.EXACT_DUPLICATE in order.asked)


def _leave_out_beaten(judged: _Judged, scores: Sequence[Score]) -> None:
    prompts = {number: _known(judged, number).prompt for number in judged.left()}
    _settle(judged, Reason.NOT_BEST, not_best(prompts, scores), asked=True)


def _leave_out_similar(judged: _Judged, order: Curation, texts: _Texts) -> None:
    copies = judged.groups[Reason.EXACT_DUPLICATE]
    different = [number for number in judged.left() if number not in copies]
    found = near_duplicates(texts, different, _prompts(judged), order.threshold or LIKELY)
    judged.notes += _notes(found)
    _settle(judged, Reason.NEAR_DUPLICATE, found.of, asked=Reason.NEAR_DUPLICATE in order.asked)


def _settle(judged: _Judged, reason: Reason, stays: Mapping[int, int], *, asked: bool) -> None:
    judged.found[reason] = len(stays)
    judged.groups[reason] = dict(stays)
    if asked:
        judged.reasons |= dict.fromkeys(stays, reason)


def _notes(found: Found) -> list[str]:
    notes = []
    if found.too_long:
        notes.append(f"{found.too_long} rows are so long that they were compared for exact duplicates only.")
    if found.crowded:
        notes.append(
            f"{found.crowded} rows have prompts that are similar to very many others, so not all were compared; their "
            "prompts may share a form. Curate one task at a time."
        )
    return notes


def _prompts(judged: _Judged) -> list[bytes]:
    return [known.prompt if known else b"" for known in judged.facts]


def _known(judged: _Judged, number: int) -> Facts:
    known = judged.facts[number]
    assert known is not None
    return known
