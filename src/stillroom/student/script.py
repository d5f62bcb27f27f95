"""Fine-tuning and asking in a few lines, for scripts and notebooks: the same runs that jobs are, in this process.

    from stillroom.student.script import fine_tune, open_student

    model = fine_tune("runs/tickets", training_file="tickets.jsonl", base="Qwen/Qwen3-0.6B", lora_rank=8)
    print(open_student(model).answer([{"role": "user", "content": "My invoice is wrong."}]))

Owns nothing but the way in: what a run is made of is in `run`, and a folder that holds half a run goes on from there.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stillroom.errors import TrainingFailed
from stillroom.student.bases.base_models import SCRATCH_SMALL, Student, open_artefact
from stillroom.student.hyperparameters import MethodType
from stillroom.student.training.run import run

Event = Mapping[str, Any]


def fine_tune(
    folder: str | Path,
    *,
    training_file: str | Path,
    validation_file: str | Path | None = None,
    base: str = SCRATCH_SMALL,
    method: str = MethodType.SUPERVISED,
    teacher: str | None = None,
    revision: str | None = None,
    precision: str = "auto",
    quantization: str = "none",
    seed: int = 0,
    threads: int | None = None,
    memory_bytes: int | None = None,
    checkpoint_seconds: float = 30.0,
    on_event: Callable[[Event], None] = lambda event: None,
    **hyperparameters: Any,
) -> Path:
    """Trains, and gives the folder of the model. `base` is "scratch-small", a folder or a hub id; `method` and
    hyperparameters are those of a job ("dpo", `n_epochs`, `soft_label_weight`, ...); `teacher` is that of "on_policy", a
    folder or a hub id. `on_event` sees what a job child reports: see `run`.

    Ctrl-C stops it behind a step, with its state saved, and the same call goes on.

    Raises StillroomError: BaseModelUnusable, InvalidTrainingFile, InvalidRequest, TrainingFailed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "base": {"name": base, "path": None if base == SCRATCH_SMALL else base, "revision": revision}
        | {"precision": precision, "quantization": quantization},
        "method": method,
        "teacher": {"name": teacher, "path": teacher, "revision": None} if teacher else None,
        "training_file": str(Path(training_file).resolve()),
        "validation_file": str(Path(validation_file).resolve()) if validation_file else None,
        "hyperparameters": hyperparameters,
        "seed": seed,
        "threads": threads or os.cpu_count() or 1,
        "memory_bytes": memory_bytes,
        "checkpoint_seconds": checkpoint_seconds,
        "model_name": folder.name,
    }
    _check_is_same_run(folder / "spec.json", spec)
    (folder / "spec.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    made: list[Path] = []

    def take(event: Event) -> None:
        if event["type"] == "done":
            made.append(Path(event["path"]))
        on_event(event)

    stopping = threading.Event()
    with _interrupted_between_steps(stopping):
        run(folder, take, stopping)
    if not made:
        raise KeyboardInterrupt(f"The run has saved its state; the same call goes on with {folder}.")
    return made[0]


def _check_is_same_run(path: Path, spec: dict[str, Any]) -> None:
    """Before anything of the run that the folder holds is overwritten."""
    if not path.is_file():
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    held.setdefault("method", MethodType.SUPERVISED)  # the first runs do not tell
    for name in ("base", "method", "teacher", "training_file", "validation_file", "hyperparameters", "seed"):
        if held.get(name) != spec[name]:
            raise TrainingFailed(
                f"{path.parent} holds a run with another {name}: {held.get(name)}, not {spec[name]}. "
                "Give this one a folder of its own.",
                param=name,
            )


@contextmanager
def _interrupted_between_steps(stopping: threading.Event) -> Iterator[None]:
    """Ctrl-C lets the run finish its step and save its state."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, lambda *_: stopping.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def open_student(folder: str | Path) -> Answerer:
    """A model folder of ours, ready to answer."""
    return Answerer(open_artefact(Path(folder)))


class Answerer:
    """One student in this process, one answer at a time, greedily: for a look, not for traffic."""

    def __init__(self, student: Student) -> None:
        self.student = student

    @torch.inference_mode()
    def answer(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Any] = (), max_tokens: int = 512) -> str:
        """The likeliest answer's text."""
        template = self.student.template
        prompt = template.encode_prompt(messages, tools)
        model: Any = self.student.model.eval()
        ids_1T = torch.tensor([prompt], device=next(model.parameters()).device)
        found_1T = model.generate(
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=list(template.end_ids),
            pad_token_id=template.end_ids[0],
        )
        return template.decode(found_1T[0, len(prompt) :].tolist())
