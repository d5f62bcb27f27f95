"""The data report's plots, by matplotlib: lengths, labels, what was left out. `python -m stillroom.curation.plots
REPORT.json FOLDER` draws them in a process of their own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import msgspec

from stillroom.curation.markdown import TITLES, WHATS
from stillroom.curation.reporting import Lengths, Report

INCHES = (7.0, 3.0)
DOTS_AN_INCH = 120
COLOUR = "#2f6fde"
MOST_BARS = 20
LETTERS = 30


def draw(report: Report, folder: Path) -> list[Path]:
    """One PNG each for the lengths, and for labels and reasons where there are some."""
    made = []
    if report.lengths:
        made.append(_lengths(report.lengths, folder / "lengths.png"))
    if report.labels:
        shown = report.labels[:MOST_BARS]
        names = [_short(one.name) for one in shown]
        made.append(_bars(names, [one.count for one in shown], "Labels", folder / "labels.png"))
    if report.left_out:
        names = [TITLES[one.reason] for one in report.left_out]
        made.append(_bars(names, [one.count for one in report.left_out], "Left out", folder / "left_out.png"))
    return made


def _lengths(lengths: Sequence[Lengths], path: Path) -> Path:
    shown = [one for one in lengths if one.what.endswith("_characters")]
    figure, frames = plt.subplots(1, len(shown), figsize=INCHES, squeeze=False, layout="constrained")
    for frame, one in zip(frames[0], shown, strict=True):
        frame.bar(range(len(one.histogram)), [each.count for each in one.histogram], color=COLOUR, width=0.9)
        frame.set_xticks(range(len(one.histogram)), [f"{each.least:,}" for each in one.histogram], rotation=60)
        frame.set_title(WHATS[one.what], fontsize=10)
        frame.set_ylabel("rows")
        frame.tick_params(labelsize=8)
    return _saved(figure, path)


def _bars(names: Sequence[str], counts: Sequence[int], title: str, path: Path) -> Path:
    height = 1.0 + 0.25 * len(names)
    figure, frame = plt.subplots(figsize=(INCHES[0], height), layout="constrained")
    frame.barh(range(len(names)), counts, color=COLOUR)
    frame.set_yticks(range(len(names)), names)
    frame.invert_yaxis()
    frame.set_title(title, fontsize=10)
    frame.set_xlabel("rows")
    frame.tick_params(labelsize=8)
    return _saved(figure, path)


def _saved(figure: plt.Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DOTS_AN_INCH)
    plt.close(figure)
    return path


def _short(text: str) -> str:
    """Dollar signs would begin a formula."""
    line = " ".join(text.split()).replace("$", r"\$")
    return line if len(line) <= LETTERS else line[:LETTERS] + "…"


if __name__ == "__main__":
    draw(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Report), Path(sys.argv[2]))
