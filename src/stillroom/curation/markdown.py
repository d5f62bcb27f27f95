"""The data report as Markdown, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stillroom.curation.reporting import Duplicates, LeftOut, Lengths, Name, Report, Share

TITLES = {
    "malformed": "no chat row that ends with an answer",
    "empty": "empty answer",
    "refusal": "refusal",
    "truncated": "cut off",
    "too_short": "too short",
    "too_long": "too long",
    "language": "other language",
    "exact_duplicate": "exact duplicate",
    "not_best": "a better answer to the same prompt is there",
    "near_duplicate": "near-duplicate",
}
WHATS = {
    "prompt_characters": "prompt, characters",
    "answer_characters": "answer, characters",
    "prompt_tokens": "prompt, tokens (estimated)",
    "answer_tokens": "answer, tokens (estimated)",
}
LETTERS = 60
MOST_SHARES = 20


def markdown(report: Report) -> str:
    """A page of its own; the plots, if there are any, are not in it."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield from ("# Data report", "")
    yield f"{report.rows:,} rows, {report.kept:,} kept: {report.split.training:,} to train on, " + (
        f"{report.split.validation:,} to validate with (seed {report.split.seed})."
    )
    tokens = report.prompt_tokens + report.answer_tokens
    yield f"About {tokens:,} tokens, {report.answer_tokens:,} of them in answers."
    yield from (line for note in report.notes for line in ("", f"> {note}"))
    if report.left_out:
        yield from ("", "## Left out", "")
        yield from _table(("why", "rows", "for example"), [_left_out(one) for one in report.left_out])
    for duplicates in report.duplicates:
        yield from _duplicates(duplicates)
    if report.lengths:
        yield from ("", "## Lengths of the rows that stay", "")
        heads = ("", "least", "5 %", "25 %", "median", "75 %", "95 %", "most", "mean")
        yield from _table(heads, [_lengths(one) for one in report.lengths])
    for title, shares in (("Labels", report.labels), ("Languages", report.languages)):
        if shares:
            yield from ("", f"## {title}", "")
            yield from _table(("", "rows", "share"), _shares(shares, report.kept))
    if report.scores is not None:
        yield from ("", "## Scores", "")
        kept = "-" if report.scores.mean_of_kept is None else f"{report.scores.mean_of_kept:.3f}"
        yield (
            f"{report.scores.scored:,} rows have a score, from {report.scores.least:g} to {report.scores.most:g}; "
            + (f"mean {report.scores.mean:.3f}, of those that stay {kept}.")
        )


def _left_out(one: LeftOut) -> Sequence[str]:
    return (TITLES[one.reason], f"{one.count:,}", _names(one.examples, one.count))


def _duplicates(found: Duplicates) -> Iterator[str]:
    kind = TITLES[found.reason]
    yield from ("", f"## Groups: {kind}", "", f"{found.rows:,} rows in {found.groups:,} groups; the largest:", "")
    rows = [(str(one.stays), f"{one.left_out:,}", _names(one.examples, one.left_out)) for one in found.largest]
    yield from _table(("first row", "others", "for example"), rows)


def _lengths(one: Lengths) -> Sequence[str]:
    numbers = [one.least, *one.quantiles, one.most, round(one.mean)]
    return (WHATS[one.what], *(f"{number:,}" for number in numbers))


def _shares(shares: Sequence[Share], kept: int) -> list[Sequence[str]]:
    shown = [(_cell(one.name), f"{one.count:,}", f"{one.count / kept:.1%}") for one in shares[:MOST_SHARES]]
    others = sum(one.count for one in shares[MOST_SHARES:])
    return [*shown, ("(others)", f"{others:,}", f"{others / kept:.1%}")] if others else [*shown]


def _names(names: Sequence[Name], count: int) -> str:
    more = " …" if count > len(names) else ""
    return ", ".join(map(str, names)) + more


def _cell(text: str) -> str:
    """One line, and nothing that Markdown would read as a sign of its own."""
    line = " ".join(text.split())
    short = line if len(line) <= LETTERS else line[:LETTERS] + "…"
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>|#" else letter for letter in short)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(['---', *['---:'] * (len(heads) - 1)])}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
