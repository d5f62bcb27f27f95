"""One process of a run, often the only one: `python -m stillroom.student.training.run FOLDER` trains what its spec.json says.

    {"base": {"name", "path" (null: built in), "revision", and maybe "precision", "quantization"},
     "method" ("supervised", "dpo", "on_policy"; absent: supervised), "teacher" (of on_policy: a base as above; absent:
     the student itself, with the row's answer at hand), "training_file", "validation_file" (or null), "hyperparameters": {...} (see `hyperparameters`; all may
     be left out), "seed", "threads", "checkpoint_seconds", "model_name",
     "memory_bytes" (how much each process may take; absent or null: what the machine has free),
     "processes" (how many compute it together; absent: one),
     "integrations" (where its figures are shown besides; absent: nowhere),
     "sharding" (true: weights and optimizer state lie in shards across them, see `fsdp`)}

Standard output carries events, one JSON object a line, and nothing else:

    started     hyperparameters (what each became), total_steps, examples, valid_examples, parameters,
                trainable_parameters, resumed_from_step, soft_label_positions (the share of trained tokens with a
                teacher's distribution; null where none were asked for), dropped_prompt (text, tokens; or null)
    step        step, total_steps, epoch (from 0), train_* and valid_* figures, learning_rate, tokens_per_second,
                rewards_margin (dpo alone)
    checkpoint  step, epoch (from 1), path, metrics, dropped_prompt
    message     level (info, warn), message
    then one of done (trained_tokens, path, metrics_csv, dropped_prompt), stopped (step), error (code, message, param)

After a kill the run goes on from its last resume state and may repeat events of steps it had reported;
their figures are the same. Exit codes: 0 done or stopped (SIGTERM, SIGINT), 1 an error, 3 the parent is gone
(standard input, a pipe, has ended; or a parent that wrote to it, whatever, has been silent for 20 s). An exit 1
without an error event is a bug, its traceback on standard error.

`launch` starts as many as the spec asks for (torchrun and accelerate can, too); from outside they are seen as one.

Owns the process: streams, signals, the parent's pipe (`measure` is such a child too). Training itself is `loop`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stillroom.errors import ConfigurationError, TrainingFailed
from stillroom.student.bases.base_models import Student, digest_of, open_base, open_untuned
from stillroom.student.bases.precision import is_quantized
from stillroom.student.chats.template import Lesson, Question, examples_of
from stillroom.student.child import as_child, failure_of, is_alone_by_mistake, is_first
from stillroom.student.events import Emit
from stillroom.student.hyperparameters import FROM_NOTHING, Hyperparameters, MethodType, resolve, without_effect
from stillroom.student.training.data import dropped_prompt_of, encoded, labelled_share, read_data
from stillroom.student.training.fsdp import is_sharded, shard
from stillroom.student.training.loop import Run, train
from stillroom.student.training.processes import Processes
from stillroom.student.training.spec import Spec, read_spec
from stillroom.student.training.story import Story


def main(arguments: list[str]) -> int:
    return as_child("stillroom.student.training.run", arguments, run)


def run(folder: Path, emit: Emit, stopping: threading.Event) -> None:
    """One training run in one folder, which tells its story."""
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}. A run's has its spec.json in it.")
    with Story(folder, emit, failure=failure_of, is_kept=is_first()) as story:
        opened, spec = open_run(folder, story.emit), read_spec(folder)
        story.describe(opened, (spec.training_file, spec.validation_file), asked=spec.hyperparameters)
        train(opened, emit=story.emit, stop=stopping.is_set)
        opened.processes.leave()


def open_run(folder: Path, emit: Emit) -> Run:
    """The run that a folder's spec describes: base opened, rows encoded, numbers chosen; no step taken."""
    spec = read_spec(folder)
    processes = Processes.joined()
    torch.set_num_threads(max(1, spec.threads // processes.on_this_machine))
    teacher = _teacher(spec)
    data = read_data(spec, teacher)
    with processes.first_then_others():
        student = open_base(
            spec.base,
            texts=lambda: (text for row in data.rows for text in row.texts()),
            tokenizer_folder=folder / "tokenizer",
            wanted=spec.hyperparameters,
            method_type=spec.method,
            seed=spec.seed,
        )
    processes.take_from_first([each for each in student.model.parameters() if each.requires_grad])
    _check_judges(teacher, student)
    if spec.sharding and processes.count > 1:
        _shard(student, processes, emit)

    def warn(message: str) -> None:
        emit({"type": "message", "level": "warn", "message": message})

    if is_alone_by_mistake():
        warn("accelerate has started one process only: without a GPU it starts several with --multi_gpu.")
    for note in (*student.notes, *without_effect(spec.hyperparameters, student.method), *_doubts(spec, student)):
        warn(note)
    context_tokens = min(each.context_tokens for each in (student, teacher) if each)
    encode = partial(encoded, spec=spec, template=student.template, context_tokens=context_tokens, warn=warn)
    lessons = encode(data.rows, param="training_file")
    valid = encode(data.valid_rows, param="validation_file") if data.valid_rows else []
    return Run(
        folder=folder,
        student=student,
        model_name=spec.model_name,
        train=lessons,
        valid=valid,
        numbers=resolve(spec.hyperparameters, num_examples=len(lessons), method=student.method),
        seed=spec.seed,
        checkpoint_seconds=spec.checkpoint_seconds,
        fingerprint=_fingerprint(spec, student, [*lessons, *valid]),
        memory_bytes=spec.memory_bytes,
        processes=processes,
        integrations=spec.integrations,
        teacher=teacher,
        dropped_prompt=dropped_prompt_of(data, student.template),
        soft_label_positions=labelled_share(spec, data, lessons),
    )


def _teacher(spec: Spec) -> Student | None:
    """The model that judges what the student says, not to be trained; None where there is none."""
    if spec.method is not MethodType.ON_POLICY or spec.teacher is None:
        return None
    teacher = open_untuned(spec.teacher)
    teacher.model.requires_grad_(False)
    return teacher


def _doubts(spec: Spec, student: Student) -> Iterator[str]:
    if spec.method is MethodType.ON_POLICY and spec.teacher is None and student.method.origin.from_nothing:
        yield (
            "A student that started from nothing has not learned to follow an answer that it is shown, and is its own "
            "teacher here. Expect little; a `teacher` of the same tokenizer can teach it."
        )


def _check_judges(teacher: Student | None, student: Student) -> None:
    if teacher and teacher.template.tokenizer.get_vocab() != student.template.tokenizer.get_vocab():
        raise TrainingFailed(
            f"{teacher.base.name} cannot judge what {student.base.name} says token by token: their tokenizers differ. "
            "Choose a teacher of the same family, or imitate its answers, with soft labels if it tells them.",
            param="method.on_policy.teacher",
        )


def _shard(student: Student, processes: Processes, emit: Emit) -> None:
    """Leaves each process a part of the student, and says so. Raises ConfigurationError where that cannot be."""
    if student.method.type is MethodType.ON_POLICY:
        raise ConfigurationError(
            "A student in shards cannot answer by itself, as the method on_policy wants. Remove `sharding` under "
            "[training]; each process then has all of it.",
            param="sharding",
        )
    if is_quantized(student.base.quantization):
        raise ConfigurationError(
            f"{student.base.name} is opened in 4 bits, which cannot lie in shards. Remove `sharding` under [training]; "
            "each process then has all of it.",
            param="sharding",
        )
    shard(student.model, processes.mesh())
    message = f"Each of {processes.count} processes holds a shard of weights, gradients and optimizer state."
    if _lacks_muon(student):
        message += " All weights are trained by AdamW, as Muon needs whole matrices: the loss will fall differently."
    emit({"type": "message", "level": "info", "message": message})


def _lacks_muon(student: Student) -> bool:
    return student.method.recipe is FROM_NOTHING and is_sharded(student.model)


def _fingerprint(spec: Spec, student: Student, lessons: Sequence[Lesson]) -> str:
    """Changes with anything that changes the weights; threads, names, places and intervals may differ after a restart.

    What is trained on goes in as tokens: a changed template or tokenizer is another run.
    """
    tokens = hashlib.sha256()
    for row in examples_of(lessons):
        tokens.update(len(row.ids).to_bytes(8, "little") + row.ids.tobytes() + row.mask)
        if row.labels:
            for part in (row.labels.places_S, row.labels.tokens_SK, row.labels.chances_SK):
                tokens.update(part.tobytes())
    for lesson in lessons:
        if isinstance(lesson, Question):
            tokens.update(lesson.taught.tobytes())
    # The base as it was named may be a fine-tune with a base of its own; what the hub had is known by its commit.
    bases = [digest_of(spec.base), digest_of(student.base), spec.base.precision, spec.base.quantization]
    decisive = [bases, _chosen(spec.hyperparameters), spec.seed, tokens.hexdigest()]
    if spec.method is not MethodType.SUPERVISED:
        decisive += [spec.method, digest_of(spec.teacher) if spec.teacher else None]
    if _lacks_muon(student):
        decisive.append("AdamW")
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _chosen(options: Hyperparameters) -> dict[str, Any]:
    """But for what is left as it is by default: an option that a later version adds strands no run that is under way."""
    given = asdict(options)
    return {field.name: given[field.name] for field in fields(options) if given[field.name] != field.default}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
