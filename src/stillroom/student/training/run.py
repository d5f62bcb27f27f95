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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stillroom.errors import ConfigurationError, TrainingFailed
from stillroom.student.bases.base_models import Student, digest_of, open_base, open_untuned
from stillroom.student.bases.checkpoint import BaseReference, DroppedPrompt
from stillroom.student.bases.precision import is_quantized
from stillroom.student.chats.examples import (
    AnyRow,
    encode_rows,
    encode_rows_cut,
    read_pairs,
    read_questions,
    read_rows,
    system_prompt_of,
    without_system_prompt,
)
from stillroom.student.chats.template import ChatTemplate, Lesson, Question, examples_of
from stillroom.student.child import as_child, failure_of, is_alone_by_mistake, is_first
from stillroom.student.events import Emit
from stillroom.student.hyperparameters import (
    FROM_NOTHING,
    Hyperparameters,
    LongRows,
    MethodType,
    SystemPrompt,
    long_rows_of,
    resolve,
    soft_label_weight_of,
    without_effect,
)
from stillroom.student.training.fsdp import is_sharded, shard
from stillroom.student.training.loop import Run, train
from stillroom.student.training.processes import Processes
from stillroom.student.training.story import Story
from stillroom.student.training.targets import labelled_tokens


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What spec.json says."""

    base: BaseReference
    training_file: Path
    validation_file: Path | None
    hyperparameters: Hyperparameters
    seed: int
    threads: int
    checkpoint_seconds: float
    model_name: str
    method: MethodType = MethodType.SUPERVISED
    teacher: BaseReference | None = None
    """Who judges what the student says, where the method asks; None: itself."""
    memory_bytes: int | None = None
    """How much memory each process may take; None: as much as the machine has free when it begins."""
    integrations: tuple[Mapping[str, Any], ...] = ()
    """Where else its figures are shown: see `record`."""
    processes: int = 1
    """How many compute the run together on this machine; whoever starts them by another launcher decides himself."""
    sharding: bool = False
    """Whether each holds a shard of weights, gradients and optimizer state, or all of them."""


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
    data = _data(spec, teacher)
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
    encode = partial(_encoded, spec=spec, template=student.template, context_tokens=context_tokens, warn=warn)
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
        dropped_prompt=_dropped(data, student),
        soft_label_positions=_labelled_share(spec, data, lessons),
    )


@dataclass(frozen=True, kw_only=True)
class _Data:
    """What a run's files say."""

    rows: Sequence[AnyRow[Any]]
    valid_rows: Sequence[AnyRow[Any]]
    dropped_prompt: str | None
    """What all rows began with."""


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


def _data(spec: Spec, teacher: Student | None) -> _Data:
    read = _reader(spec.method, teacher)
    rows = read(spec.training_file)
    valid_rows = read(spec.validation_file, param="validation_file") if spec.validation_file else []
    if spec.hyperparameters.system_prompt is not SystemPrompt.DROP:
        return _Data(rows=rows, valid_rows=valid_rows, dropped_prompt=None)
    prompt = system_prompt_of(rows)
    return _Data(
        rows=without_system_prompt(rows, prompt),
        valid_rows=without_system_prompt(valid_rows, prompt, param="validation_file"),
        dropped_prompt=prompt,
    )


def _reader(method: MethodType, teacher: Student | None) -> Callable[..., Sequence[AnyRow[Any]]]:
    match method:
        case MethodType.SUPERVISED:
            return read_rows
        case MethodType.DPO:
            return read_pairs
        case MethodType.ON_POLICY:
            return partial(read_questions, teacher=teacher.template if teacher else None)


def _dropped(data: _Data, student: Student) -> DroppedPrompt | None:
    """The prompt, and how much shorter the first row's prompt is without it."""
    if data.dropped_prompt is None:
        return None
    asked = data.rows[0].asked
    system = {"role": "system", "content": data.dropped_prompt}
    with_it, without = (len(student.template.encode_prompt(messages)) for messages in ([system, *asked], asked))
    return DroppedPrompt(text=data.dropped_prompt, tokens=max(0, with_it - without))


def _labelled_share(spec: Spec, data: _Data, lessons: Sequence[Lesson]) -> float | None:
    """Of trained tokens, those with a teacher's distribution; None where they have no weight. Raises TrainingFailed
    when it would be nothing: a run that was to learn from them must not end as one that did not."""
    if not _soft(spec):
        return None
    found = [labelled_tokens(example) for example in examples_of(lessons)]
    if share := sum(labelled for labelled, _ in found) / sum(trained for _, trained in found):
        return share
    have = sum(row.has_logprobs for row in data.rows)
    why = (
        f"{have} of {len(data.rows)} rows have `logprobs`, but at no token do they tell of the text that is trained "
        "there, with what else the teacher held likely (top_logprobs): they may be another answer's"
        if have
        else f"none of the {len(data.rows)} rows has `logprobs` on an assistant message"
    )
    raise TrainingFailed(
        f"'soft_label_weight' is {_soft(spec):g}, and there are no soft labels to weigh: {why}. Capture them "
        "(top_logprobs under [teachers]), or leave 'soft_label_weight' out.",
        code="soft_labels_missing",
        param="training_file",
    )


def _soft(spec: Spec) -> float:
    """What soft labels weigh; 0 where the method has no use for them."""
    return soft_label_weight_of(spec.hyperparameters) if spec.method is MethodType.SUPERVISED else 0.0


def _encoded(
    rows: Sequence[AnyRow[Any]],
    *,
    param: str,
    spec: Spec,
    template: ChatTemplate,
    context_tokens: int,
    warn: Callable[[str], None],
) -> list[Any]:
    encode: Callable[..., list[Any]] = encode_rows
    if long_rows_of(spec.hyperparameters) is LongRows.TRUNCATE:
        encode = partial(encode_rows_cut, warn=warn)
    return encode(rows, template, context_tokens=context_tokens, param=param, labelled=_soft(spec) > 0)


def read_spec(folder: Path) -> Spec:
    """The spec of a run's folder; a missing or wrong field is named."""
    path = folder / "spec.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if unknown := sorted(set(values) - {each.name for each in fields(Spec)}):
            raise ValueError(f"there is no '{unknown[0]}' among what a run may be told")
        return Spec(
            base=BaseReference(**values["base"]),
            training_file=Path(values["training_file"]),
            validation_file=Path(values["validation_file"]) if values.get("validation_file") else None,
            hyperparameters=Hyperparameters.from_json(values["hyperparameters"]),
            seed=int(values["seed"]),
            threads=int(values["threads"]),
            checkpoint_seconds=float(values["checkpoint_seconds"]),
            model_name=str(values["model_name"]),
            method=MethodType(values.get("method") or MethodType.SUPERVISED),
            teacher=BaseReference(**values["teacher"]) if values.get("teacher") else None,
            memory_bytes=int(values["memory_bytes"]) if values.get("memory_bytes") else None,
            processes=int(values.get("processes") or 1),
            integrations=tuple(values.get("integrations") or ()),
            sharding=bool(values.get("sharding")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be used: {_problem(error)}.") from error


def _problem(error: Exception) -> str:
    match error:
        case OSError():
            return f"{error.strerror}"
        case KeyError():
            return f"it lacks {error}"
        case json.JSONDecodeError():
            return f"it is not JSON ({error})"
        case _:
            return str(error)


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
