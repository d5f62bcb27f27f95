"""How commands print: tables for people, JSON for scripts, errors on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

PIPE_WIDTH = 10_000  # columns when nobody looks: what reads a pipe wants whole values

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def as_json(value: Any) -> None:
    """One JSON value on standard output, and nothing else there."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table, or the sentence that says why there is none."""
    # The first column is what other commands are given, so it is cut last.
    first, *others = columns
    drawn = Table(Column(first, no_wrap=True), *others, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    if drawn.row_count:
        out.print(drawn)
    else:
        err.print(empty)


def say(text: str) -> None:
    out.print(escape(text))


def note(text: str) -> None:
    """Something for the person that is no part of the data."""
    err.print(escape(text))


def fail(text: str) -> None:
    err.print(f"[red]Error:[/red] {escape(text)}")


def when(seconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"


def pairs(metadata: Mapping[str, str] | None) -> str:
    return " ".join(f"{key}={value}" for key, value in (metadata or {}).items())


def first_line(text: Any, letters: int = 60) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= letters else line[: letters - 1] + "…"
