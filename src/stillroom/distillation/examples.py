"""Labels to training files: the student's rows, curated, split, and written where a job finds them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from stillroom import auth, curation
from stillroom.assembly import Platform
from stillroom.curation import Curation, Report
from stillroom.datasets.selection import MINIMUM
from stillroom.distillation import prompts
from stillroom.distillation.journal import Journal, Label
from stillroom.distillation.problems import DistillationFailed
from stillroom.distillation.rows import TRAINING, VALIDATION, Row
from stillroom.distillation.spec import DPO, Spec
from stillroom.errors import NotFound

PLOTS = "stillroom.curation.plots"  # a process of its own: it draws
PLOTTING_SECONDS = 120
PURPOSE = "fine-tune"
FILTERED, LENGTH = "content_filter", "length"  # how answers end that were not said to their end


@dataclass(frozen=True, kw_only=True)
class Files:
    """What the student is trained on, by the ids of the files API. `digest` is that of their bytes."""

    training: str
    validation: str | None
    training_rows: int
    validation_rows: int
    cut_short: int
    """So many of the rows end where the answer might not be longer."""
    alike: int
    """Of pairs: so many rows make none, because teacher and student said the same."""
    report: Report
    digest: str


def write(spec: Spec, journal: Journal, platform: Platform) -> Files:
    """The files of the run's labels; the same ones, when they are there. Raises DistillationFailed when too few
    rows are left."""
    order = spec.curation
    training, report, held_out = _curated(spec, journal, TRAINING, order, spec.validation_fraction)
    validation = _curated(spec, journal, VALIDATION, order, 0.0)[0] if spec.validation is not None else held_out
    if len(training) < MINIMUM:
        raise DistillationFailed(
            f"{len(training)} rows are left to train on, of {report.rows} with an answer; a fine-tuning job needs at least "
            f"{MINIMUM}. Left out: {_left_out(report)}. See {journal.folder}.",
            param="source",
        )
    if spec.validation is not None:  # rows of its own, which curation did not hold out
        report = replace(report, split=replace(report.split, validation=len(validation)))
    cut_short = sum(row.get("finish_reason") == LENGTH for row in (*training, *validation))
    data = journal.write_rows("training.jsonl", map(_bare, training))
    held = journal.write_rows("validation.jsonl", map(_bare, validation)) if validation else b""
    _write_report(journal.folder, report, draw=order != Curation())
    digest = hashlib.sha256(data + b"\0" + held).hexdigest()
    return Files(
        training=_file(platform, journal, spec, f"{spec.name}.jsonl", data),
        validation=_file(platform, journal, spec, f"{spec.name}-validation.jsonl", held) if held else None,
        training_rows=len(training),
        validation_rows=len(validation),
        cut_short=cut_short,
        alike=sum(map(_is_alike, journal.labels.values())),
        report=report,
        digest=digest,
    )


def _curated(
    spec: Spec, journal: Journal, part: str, order: Curation, fraction: float
) -> tuple[list[dict[str, Any]], Report, list[dict[str, Any]]]:
    """The part's rows that stay, what is told of them, and those of them that are held out."""
    rows, names = [], []
    for row in journal.rows:
        if row.part == part and (example := _example(spec, row, journal.labels.get(row.name))) is not None:
            rows.append(example)
            names.append(row.name)
    found = curation.curate(rows, order, names=names, validation_fraction=fraction, seed=spec.seed)
    kept, held_out = ([rows[number] for number in numbers] for numbers in (found.training, found.validation))
    return kept, found.report, held_out


def _example(spec: Spec, row: Row, label: Label | None) -> dict[str, Any] | None:
    """The student's row; None without an answer, or where a pair would have the same answer twice."""
    if spec.teacher is None:
        return {"messages": list(row.messages), **row.more}
    if label is None or label.failed is not None:
        return None
    ended = {"finish_reason": reason} if (reason := _worst_end(label)) else {}
    if spec.method != DPO:
        return {**prompts.answered(row, label.said, spec.reasoning), **ended}
    if label.rejected is None or _is_alike(label):
        return None
    preferred = prompts.answered(row, label.said, spec.reasoning)["messages"][-1:]
    asked = {
        "messages": prompts.as_asked(row.messages),
        **{name: row.more[name] for name in ("tools",) if name in row.more},
    }
    return {"input": asked, "preferred_output": preferred, "non_preferred_output": [label.rejected], **ended}


def _worst_end(label: Label) -> str | None:
    """Why the answers ended, where one of them did not end by itself."""
    ends = {said.finish_reason for said in label.said}
    return next((end for end in (FILTERED, LENGTH) if end in ends), None)


def _is_alike(label: Label) -> bool:
    return label.rejected is not None and bool(label.said) and label.rejected == label.said[0].message


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only curation reads."""
    return {name: value for name, value in row.items() if name != "finish_reason"}


def _file(platform: Platform, journal: Journal, spec: Spec, name: str, data: bytes) -> str:
    """The file's id, which is its content's, so that a run that was killed meanwhile makes no second one."""
    content = hashlib.sha256(f"{journal.state.run}/{name}/".encode() + data).hexdigest()
    file_id = f"file-{content[:24]}"
    try:
        return platform.files.get(auth.DEFAULT_PROJECT, file_id).id
    except NotFound:
        prepared = platform.files.prepare(file_id, auth.DEFAULT_PROJECT, name, PURPOSE, iter([data]))
        platform.writer.write(lambda connection: platform.files.add(connection, prepared))
    return file_id


def _write_report(folder: Path, report: Report, *, draw: bool) -> None:
    (folder / "report.md").write_text(curation.markdown(report), encoding="utf-8")
    path = folder / "report.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if draw and find_spec("matplotlib") is not None:
        command: Sequence[str] = [sys.executable, "-m", PLOTS, str(path), str(folder)]
        subprocess.run(command, check=False, capture_output=True, timeout=PLOTTING_SECONDS)


def _left_out(report: Report) -> str:
    return ", ".join(f"{each.count} {each.reason}" for each in report.left_out) or "none"


def shown(report: Report) -> dict[str, Any]:
    """The report as JSON has it."""
    return dict(json.loads(msgspec.json.encode(report)))
