"""The data report: what was left out and why, and what the rows that stay look like."""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stillroom.curation.order import Reason

Name = str | int
EXAMPLES = 5
LARGEST_GROUPS = 10
LABELS = 50
"""More distinct answers are no labels."""
ROWS_A_LABEL = 5
"""And so many rows must have each, on average."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STEPS = (1, 2, 5)
EDGES = [0, *(step * 10**power for power in range(8) for step in STEPS)]
MEASURED = ("prompt_characters", "answer_characters", "prompt_tokens", "answer_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is remembered of one row. `label`: its answer, if that is short; None otherwise."""

    prompt: bytes
    digest: bytes
    prompt_characters: int
    answer_characters: int
    prompt_tokens: int
    answer_tokens: int
    label: str | None
    language: str | None


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """`examples`: the names of the first few."""

    reason: str
    count: int
    examples: list[Name]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A row that stays, and the duplicates of it that do not; of these, `examples` names the first few."""

    stays: Name
    left_out: int
    examples: list[Name]


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    reason: str
    groups: int
    rows: int
    largest: list[Group]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """So many values are at least `least` and below `below`."""

    least: int
    below: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """`quantiles`: the values below which 5, 25, 50, 75 and 95 % of the rows are."""

    what: str
    least: int
    most: int
    mean: float
    quantiles: list[int]
    histogram: list[Bin]


@dataclass(frozen=True, kw_only=True)
class Share:
    name: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Split:
    """`groups`: rows that are never separated count as one; `largest_group`: the rows of the largest."""

    training: int
    validation: int
    seed: int
    groups: int
    largest_group: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of the rows that had a score, and of those among them that stay."""

    scored: int
    least: float
    most: float
    mean: float
    mean_of_kept: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it is about the rows that stay, but for `rows`, `left_out`, `found` and `duplicates`."""

    rows: int
    kept: int
    left_out: list[LeftOut]
    found: dict[str, int]
    """How many rows each check finds, those that were not asked for included, as far as they were made."""
    duplicates: list[Duplicates]
    lengths: list[Lengths]
    labels: list[Share] | None
    """When the answers have few distinct values: how many rows have each, the commonest first."""
    languages: list[Share] | None
    """None when languages were not looked at; "und" could not be told."""
    prompt_tokens: int
    """Estimated, of all rows together."""
    answer_tokens: int
    split: Split
    scores: Scores | None
    notes: list[str]


def report(
    facts: Sequence[Facts | None],
    *,
    reasons: Mapping[int, Reason],
    found: Mapping[Reason, int],
    stays: Mapping[Reason, Mapping[int, int]],
    names: Sequence[Name],
    split: Split,
    scores: Sequence[float | None] | None,
    notes: Sequence[str],
) -> Report:
    """`reasons` and `stays`: by row number, why it is left out and which row stays in its place."""
    kept = [known for number, known in enumerate(facts) if known is not None and number not in reasons]
    told = [*notes, *_notes_on(kept, split)]
    return Report(
        rows=len(facts),
        kept=len(kept),
        left_out=_left_out(reasons, names),
        found={reason.value: count for reason, count in found.items()},
        duplicates=[_duplicates(reason, pairs, names) for reason, pairs in stays.items() if pairs],
        lengths=[_lengths(what, [getattr(known, what) for known in kept]) for what in MEASURED] if kept else [],
        labels=_labels(kept),
        languages=_shares(known.language for known in kept) if kept and kept[0].language is not None else None,
        prompt_tokens=sum(known.prompt_tokens for known in kept),
        answer_tokens=sum(known.answer_tokens for known in kept),
        split=split,
        scores=_scores(scores, reasons) if scores is not None else None,
        notes=told,
    )


def _left_out(reasons: Mapping[int, Reason], names: Sequence[Name]) -> list[LeftOut]:
    by_reason: dict[Reason, list[int]] = defaultdict(list)
    for number in sorted(reasons):
        by_reason[reasons[number]].append(number)
    return [
        LeftOut(reason=reason.value, count=len(numbers), examples=[names[number] for number in numbers[:EXAMPLES]])
        for reason in Reason
        if (numbers := by_reason.get(reason))
    ]


def _duplicates(reason: Reason, stays: Mapping[int, int], names: Sequence[Name]) -> Duplicates:
    groups: dict[int, list[int]] = defaultdict(list)
    for number, first in stays.items():
        groups[first].append(number)
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:LARGEST_GROUPS]
    return Duplicates(
        reason=reason.value,
        groups=len(groups),
        rows=len(stays),
        largest=[
            Group(
                stays=names[first],
                left_out=len(others),
                examples=[names[number] for number in sorted(others)[:EXAMPLES]],
            )
            for first, others in largest
        ],
    )


def _lengths(what: str, values: list[int]) -> Lengths:
    values.sort()
    return Lengths(
        what=what,
        least=values[0],
        most=values[-1],
        mean=sum(values) / len(values),
        quantiles=[values[round(share * (len(values) - 1))] for share in QUANTILES],
        histogram=_histogram(values),
    )


def _histogram(values: Sequence[int]) -> list[Bin]:
    """Of sorted values: steps of 1, 2, 5, 10, 20 ..., from the first that has some to the last."""
    at = [bisect.bisect_left(values, edge) for edge in EDGES]
    bins = [
        Bin(least=least, below=below, count=after - before)
        for least, below, before, after in zip(EDGES, EDGES[1:], at, at[1:], strict=False)
    ]
    filled = [place for place, one in enumerate(bins) if one.count]
    return bins[filled[0] : filled[-1] + 1] if filled else []


def _labels(kept: Sequence[Facts]) -> list[Share] | None:
    if not kept or any(known.label is None for known in kept):
        return None
    distinct = {known.label for known in kept}
    if len(distinct) > LABELS or len(distinct) * ROWS_A_LABEL > len(kept):
        return None
    return _shares(known.label for known in kept)


def _shares(values: Iterable[str | None]) -> list[Share]:
    counted = Counter(value for value in values if value is not None)
    return [Share(name=name, count=count) for name, count in sorted(counted.items(), key=lambda one: (-one[1], one[0]))]


def _scores(scores: Sequence[float | None], reasons: Mapping[int, Reason]) -> Scores | None:
    known = {number: score for number, score in enumerate(scores) if score is not None}
    if not known:
        return None
    kept = [score for number, score in known.items() if number not in reasons]
    return Scores(
        scored=len(known),
        least=min(known.values()),
        most=max(known.values()),
        mean=sum(known.values()) / len(known),
        mean_of_kept=sum(kept) / len(kept) if kept else None,
    )


def _notes_on(kept: Sequence[Facts], split: Split) -> list[str]:
    notes = []
    if len({known.prompt for known in kept}) * 2 < len(kept):
        notes.append(
            "Less than half of the prompts differ. Several answers to one prompt teach that any of them will do."
        )
    if (labels := _labels(kept)) and labels[0].count > 0.9 * len(kept):
        share = 1000 * labels[0].count // len(kept) / 10  # rounded down: 100 % are all
        notes.append(
            f"{share:g} % of the answers are {labels[0].name!r}: a student that always says so would look good."
        )
    if split.largest_group * 10 > len(kept) and split.groups > 1 and split.largest_group > 10:
        notes.append(
            f"{split.largest_group} rows have so similar prompts that the split keeps them together; the validation set may "
            "be smaller, or less like the rest, than asked."
        )
    return notes
