"""What "auto" resolves to, told before a job runs, by the rule that its trainer goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from stillroom import fine_tuning
from stillroom.api.wire import Call, Reply, whole_number
from stillroom.errors import InvalidRequest
from stillroom.student.hyperparameters import Hyperparameters, Training, reasons, resolve
from stillroom.student.manifest import training_on
from stillroom.worker.fine_tune import base_reference

MOST_EXAMPLES = 100_000_000


def resolved(call: Call) -> Reply:
    """What "auto" resolves to for a `model` and a `training_file` (or so many `examples`), and why; what is
    asked for besides (`n_epochs`, `batch_size`, `learning_rate_multiplier`) is taken into account."""
    model = call.query.get("model")
    if not model:
        raise InvalidRequest("Missing required parameter: 'model'.", param="model", code="missing_required_parameter")
    asked = fine_tuning.hyperparameters_of({"hyperparameters": _asked(call)})
    base, examples = _examples(call, model)
    training = _training(call, model, base)
    wanted = Hyperparameters.from_json(msgspec.to_builtins(asked))
    numbers = resolve(wanted, num_examples=examples, training=training)
    names = fine_tuning.Hyperparameters.__struct_fields__
    body = {
        "object": "stillroom.hyperparameters",
        "model": model,
        "examples": examples,
        "training": training.value,
        "values": {name: getattr(numbers, name) for name in names},
        "why": reasons(wanted, numbers, num_examples=examples, training=training),
        "total_steps": numbers.total_steps,
    }
    return Reply(body=body)


def _examples(call: Call, model: str) -> tuple[str, int]:
    """The model's base, and how many rows a job would train on."""
    file_id = call.query.get("training_file")
    examples = call.number("examples", f"a whole number from 1 to {MOST_EXAMPLES}", least=1, most=MOST_EXAMPLES)
    if (file_id is None) == (examples is None):
        raise InvalidRequest("Give either 'training_file' or 'examples'.", param="training_file")
    if examples is not None:
        return call.platform.fine_tuning.base_of(call.project, model), examples
    assert file_id is not None
    order = fine_tuning.parse_order({"model": model, "training_file": file_id})
    base = call.platform.fine_tuning.check(call.project, order)
    return base, call.platform.files.get(call.project, file_id).examples or 0


def _training(call: Call, model: str, base: str) -> Training:
    path = base_reference(call.platform, call.project, model, base)["path"]
    return training_on(Path(path).expanduser() if path else None)


def _asked(call: Call) -> dict[str, Any]:
    """What the query asks for besides "auto", as the numbers that a job's body would have."""
    names = fine_tuning.Hyperparameters.__struct_fields__
    return {name: _number(call.query[name]) for name in names if name in call.query}


def _number(text: str) -> Any:
    whole = whole_number(text)
    if whole is not None:
        return whole
    try:
        return float(text)
    except ValueError:
        return text
