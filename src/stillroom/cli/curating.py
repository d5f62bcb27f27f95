"""Curation on the command line: its options, its report, and `stillroom distill report FILE`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import typer

from stillroom.cli.options import Json
from stillroom.cli.output import as_json, first_line, note, say, table
from stillroom.curation import Curation, FileRows, Outcome, Report, curate
from stillroom.curation.markdown import TITLES, WHATS

NoDuplicates = Annotated[
    bool, typer.Option("--no-duplicates", help="Leave out rows that say the same as an earlier one.")
]
NearDuplicates = Annotated[
    float | None,
    typer.Option(
        "--near-duplicates",
        metavar="SHARE",
        help="Leave out rows that share so much of their wording with an earlier one: 0.5 to 1; 0.8 is usual.",
    ),
]
NoRefusals = Annotated[bool, typer.Option("--no-refusals", help="Leave out answers in which the model declines.")]
NoTruncated = Annotated[bool, typer.Option("--no-truncated", help="Leave out answers that were cut off.")]
Language = Annotated[
    list[str] | None,
    typer.Option("--language", metavar="CODE", help="Only rows in this language (en, ja ...); may be repeated."),
]
HOW_LONG = "in characters, or with a t in tokens: 500t. May be repeated."
MinPrompt = Annotated[
    list[str] | None, typer.Option("--min-prompt", metavar="LENGTH", help=f"The shortest prompt to keep, {HOW_LONG}")
]
MaxPrompt = Annotated[
    list[str] | None, typer.Option("--max-prompt", metavar="LENGTH", help=f"The longest prompt to keep, {HOW_LONG}")
]
MinAnswer = Annotated[
    list[str] | None, typer.Option("--min-answer", metavar="LENGTH", help=f"The shortest answer to keep, {HOW_LONG}")
]
MaxAnswer = Annotated[
    list[str] | None, typer.Option("--max-answer", metavar="LENGTH", help=f"The longest answer to keep, {HOW_LONG}")
]
BestOf = Annotated[
    str | None,
    typer.Option(
        "--best-of",
        metavar="KEY",
        help="Of several answers to the same prompt keep the one with the largest number under this metadata key.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Make nothing: only report on the rows, and what each check would leave out.")
]

LENGTH = re.compile(r"(\d+)(t?)")


def curation_of(
    *,
    no_duplicates: bool,
    near_duplicates: float | None,
    no_refusals: bool,
    no_truncated: bool,
    languages: list[str] | None,
    lengths: dict[str, list[str] | None],
) -> Curation:
    """The options as one. `lengths` by the option's name: min_prompt, max_prompt, min_answer, max_answer."""
    found = Curation(
        exact_duplicates=no_duplicates,
        near_duplicates=False if near_duplicates is None else near_duplicates,
        refusals=no_refusals,
        truncated=no_truncated,
        languages=languages or None,
    )
    limits = {name: value for option, given in lengths.items() for name, value in _limits(option, given or [])}
    return msgspec.structs.replace(found, **limits)


def as_request(curation: Curation, best_of: str | None) -> dict[str, Any]:
    """The curation as the API takes it; empty when nothing is asked for."""
    asked = {name: value for name, value in msgspec.to_builtins(curation).items() if value not in (False, None)}
    return asked if best_of is None else {**asked, "best_of": {"metadata": best_of}}


def report(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A JSONL file of chat rows.")],
    no_duplicates: NoDuplicates = False,
    near_duplicates: NearDuplicates = None,
    no_refusals: NoRefusals = False,
    no_truncated: NoTruncated = False,
    language: Language = None,
    min_prompt: MinPrompt = None,
    max_prompt: MaxPrompt = None,
    min_answer: MinAnswer = None,
    max_answer: MaxAnswer = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the lines that stay to this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Report on the rows of a local training file, and write those that curation leaves."""
    lengths = {"min_prompt": min_prompt, "max_prompt": max_prompt, "min_answer": min_answer, "max_answer": max_answer}
    curation = curation_of(
        no_duplicates=no_duplicates,
        near_duplicates=near_duplicates,
        no_refusals=no_refusals,
        no_truncated=no_truncated,
        languages=language,
        lengths=lengths,
    )
    if output is None:
        outcome, _ = _curated(file, curation)
    else:
        with _written(output, file) as target:
            outcome, kept = _curated(file, curation)
            _copy_lines(file, target, kept)
        note(f"{len(kept):,} rows written to {output}.")
    if json:
        as_json(msgspec.to_builtins(outcome.report))
    else:
        tell(outcome.report, curation)


def tell(found: Report, curation: Curation) -> None:
    """The report for people, on what the curation was asked to leave out."""
    tokens = found.prompt_tokens + found.answer_tokens
    parts = f": {found.split.training:,} to train on, {found.split.validation:,} to validate with"
    say(f"{found.rows:,} rows, {found.kept:,} stay{parts if found.split.validation else ''}; about {tokens:,} tokens")
    for line in found.notes:
        note(f"Note: {line}")
    if found.left_out:
        rows = [(TITLES[one.reason], f"{one.count:,}", _few(one.examples, one.count)) for one in found.left_out]
        table(("LEFT OUT", "ROWS", "FOR EXAMPLE"), rows, "")
    others = {why: count for why, count in found.found.items() if count and why not in curation.asked}
    if others:
        table(("FOUND, NOT ASKED FOR", "ROWS"), [(TITLES[why], f"{count:,}") for why, count in others.items()], "")
    if found.lengths:
        heads = ("LENGTHS", "LEAST", "5 %", "MEDIAN", "95 %", "MOST")
        lengths = [(WHATS[one.what], *_numbers(one.least, *one.quantiles[::2], one.most)) for one in found.lengths]
        table(heads, lengths, "")
    for title, shares in (("LABEL", found.labels), ("LANGUAGE", found.languages)):
        if shares:
            counts = [(first_line(one.name), f"{one.count:,}", f"{one.count / found.kept:.1%}") for one in shares]
            table((title, "ROWS", "SHARE"), counts, "")


def _limits(option: str, given: list[str]) -> list[tuple[str, int]]:
    found = []
    for text in given:
        length = LENGTH.fullmatch(text)
        if length is None:
            raise typer.BadParameter(
                f"{text!r} is no length; give a number of characters, such as 2000, or of tokens, such as 500t.",
                param_hint=f"--{option.replace('_', '-')}",
            )
        found.append((f"{option}_{'tokens' if length[2] else 'characters'}", int(length[1])))
    return found


def _curated(file: Path, curation: Curation) -> tuple[Outcome, set[int]]:
    """And the lines that stay."""
    with FileRows(file) as rows:
        outcome = curate(rows, curation, names=rows.lines, survey=True)
        return outcome, {rows.lines[number] for number in outcome.training}


@contextmanager
def _written(output: Path, file: Path) -> Iterator[BinaryIO]:
    """What is written becomes the output once all of it is there; opened before anything is read for it."""
    try:
        if output.exists() and output.samefile(file):
            raise typer.BadParameter(f"{output} is the file that is read; name another.", param_hint="--output")
        # What is there and is no file, such as a pipe, must stay where it is.
        is_file = output.is_file() or not output.exists()
        with _replacing(output.resolve()) if is_file else output.open("wb") as target:
            yield target
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written: {error.strerror}.", param_hint="--output") from error


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as target:
            yield target
        if path.exists():
            shutil.copymode(path, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _copy_lines(file: Path, target: BinaryIO, kept: set[int]) -> None:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number in kept:
                target.write(line if line.endswith(b"\n") else line + b"\n")


def _few(names: Sequence[str | int], count: int) -> str:
    return ", ".join(map(str, names)) + (" …" if count > len(names) else "")


def _numbers(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in numbers)
