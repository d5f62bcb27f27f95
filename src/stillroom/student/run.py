"""The job child: `python -m stillroom.student.run FOLDER` trains what FOLDER/spec.json says.

    {"base": {"name", "path" (null: built in), "revision"}, "training_file", "validation_file" (or null),
     "hyperparameters": {"n_epochs", "batch_size", "learning_rate_multiplier"}, "seed", "threads",
     "checkpoint_seconds", "model_name"}

Standard output carries events, one JSON object a line, and nothing else:

    started     hyperparameters (numbers), total_steps, examples, valid_examples, parameters,
                trainable_parameters, resumed_from_step
    step        step, total_steps, epoch (from 0), train_* and valid_* figures, learning_rate, tokens_per_second
    checkpoint  step, epoch (from 1), path, metrics
    message     level (info, warn), message
    then one of done (trained_tokens, path, metrics_csv), stopped (step), error (code, message, param)

After a kill the run goes on from its last resume state and may repeat events of steps it had reported;
their figures are the same. Exit codes: 0 done or stopped (SIGTERM), 1 an error, 3 the parent is gone
(standard input has ended). An exit 1 without an error event is a bug, its traceback on standard error.

Owns the process: streams, signals, the parent's pipe (`measure` is such a child too). Training itself is `loop`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers.utils import logging as transformers_logging

from stillroom.errors import ConfigurationError, StillroomError
from stillroom.student.adapters import Lora
from stillroom.student.base_models import open_base
from stillroom.student.checkpoint import BaseReference
from stillroom.student.examples import encode_rows, read_rows
from stillroom.student.hyperparameters import Hyperparameters, resolve
from stillroom.student.loop import Emit, Run, train

EXIT_ERROR, EXIT_PARENT_GONE = 1, 3


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


Work = Callable[[Path, Emit, threading.Event], None]


def main(arguments: list[str]) -> int:
    return as_child("stillroom.student.run", arguments, run)


def as_child(name: str, arguments: list[str], work: Work) -> int:
    """Does the work on the folder that `python -m name` was given, as a child with the streams, signals
    and exit codes described above."""
    if len(arguments) != 1:
        sys.stderr.write(f"usage: python -m {name} FOLDER\n")
        return 2
    emit = _events_on(_taken_stdout())
    transformers_logging.disable_progress_bar()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    try:
        work(Path(arguments[0]), emit, stopping)
    except (StillroomError, MemoryError, RuntimeError) as error:
        failure = _failure(error)
        if failure is None:
            raise
        traceback.print_exc()
        emit(failure)
        return EXIT_ERROR
    return 0


def run(folder: Path, emit: Emit, stopping: threading.Event) -> None:
    """One training run in one folder."""
    train(open_run(folder, emit), emit=emit, stop=stopping.is_set)


def open_run(folder: Path, emit: Emit) -> Run:
    """The run that a folder's spec describes: base opened, rows encoded, numbers chosen; no step taken."""
    spec = read_spec(folder)
    torch.set_num_threads(spec.threads)
    rows = read_rows(spec.training_file)
    valid_rows = read_rows(spec.validation_file, param="validation_file") if spec.validation_file else []
    student = open_base(
        spec.base,
        texts=lambda: (text for row in rows for text in row.texts()),
        tokenizer_folder=folder / "tokenizer",
        lora=Lora(),
        seed=spec.seed,
    )
    for note in student.notes:
        emit({"type": "message", "level": "warn", "message": note})
    context = student.context_tokens
    examples = encode_rows(rows, student.template, context_tokens=context)
    valid = (
        encode_rows(valid_rows, student.template, context_tokens=context, param="validation_file") if valid_rows else []
    )
    return Run(
        folder=folder,
        student=student,
        model_name=spec.model_name,
        train=examples,
        valid=valid,
        numbers=resolve(spec.hyperparameters, num_examples=len(examples), training=student.training),
        seed=spec.seed,
        checkpoint_seconds=spec.checkpoint_seconds,
        fingerprint=_fingerprint(spec),
    )


def read_spec(folder: Path) -> Spec:
    """The spec of a run's folder; a missing or wrong field is named."""
    path = folder / "spec.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Spec(
            base=BaseReference(**values["base"]),
            training_file=Path(values["training_file"]),
            validation_file=Path(values["validation_file"]) if values.get("validation_file") else None,
            hyperparameters=Hyperparameters.from_json(values["hyperparameters"]),
            seed=int(values["seed"]),
            threads=int(values["threads"]),
            checkpoint_seconds=float(values["checkpoint_seconds"]),
            model_name=str(values["model_name"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error!r}.") from error


def _fingerprint(spec: Spec) -> str:
    """Changes with anything that changes the weights; threads, names and intervals may differ after a restart."""
    files = [_sha256(path) if path else None for path in (spec.training_file, spec.validation_file)]
    decisive = [asdict(spec.base), asdict(spec.hyperparameters), spec.seed, files]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _failure(error: Exception) -> dict[str, Any] | None:
    """The error as an event; None when it is our own mistake."""
    if isinstance(error, StillroomError):
        return {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        message = "The job needs more memory than there is. Use a smaller batch_size, shorter rows or a smaller base."
        return {"type": "error", "code": "out_of_memory", "message": message, "param": "batch_size"}
    return None


def _taken_stdout() -> TextIO:
    """The real standard output; whatever libraries print there goes to standard error from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return events


def _events_on(stream: TextIO) -> Emit:
    def emit(event: Mapping[str, Any]) -> None:
        stream.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()

    return emit


def _exit_with_parent() -> None:
    """Ends the process as soon as the pipe from the parent closes, whatever the process is doing."""
    while os.read(0, 4096):
        pass
    os._exit(EXIT_PARENT_GONE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
