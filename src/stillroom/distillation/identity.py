"""What a run is the same by: whether a file, perhaps changed, still asks for the labels and for the model that are there."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import msgspec

from stillroom.config import Settings
from stillroom.distillation.spec import DPO, Reasoning, Source, Spec


def asks_of(spec: Spec, settings: Settings) -> str:
    """What decides the labels. Not where the teacher is, which may move, nor how many are asked at once."""
    teacher = settings.teachers.get(spec.teacher or "")
    return _digest(
        [
            spec.teacher,
            teacher.model if teacher else None,
            asdict(spec.prompting),
            spec.inference,
            [spec.samples, spec.judge],
            spec.reasoning is Reasoning.SUMMARISE,
            spec.asks_logprobs,
            spec.student if spec.method == DPO else None,
            [_source(source) for source in (spec.training, spec.validation) if source is not None],
        ]
    )


def makes_of(spec: Spec) -> str:
    """What decides the model, the labels given."""
    return _digest(
        [
            spec.student,
            spec.suffix,
            spec.method,
            spec.judged_by,
            spec.hyperparameters,
            spec.learning_rate,
            spec.seed,
            spec.curation,
            spec.reasoning,
            spec.validation_fraction,
        ]
    )


def _source(source: Source) -> Any:
    """The source, by what is in it."""
    told = {**asdict(source), "path": None}
    if source.path is None:
        return told
    files = sorted(path for path in source.path.rglob("*") if path.is_file()) if source.path.is_dir() else [source.path]
    sums = []
    for path in files:
        with path.open("rb") as file:
            name = path.relative_to(source.path).as_posix() if path != source.path else ""
            sums.append([name, hashlib.file_digest(file, "sha256").hexdigest()])
    return {**told, "files": sums}


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
