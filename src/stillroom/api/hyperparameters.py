"""What "auto" resolves to, told before a job runs, by the rule that its trainer goes by."""

from __future__ import annotations

from typing import Any

from stillroom import fine_tuning
from stillroom.api.wire import Call, Reply, whole_number
from stillroom.errors import InvalidRequest
from stillroom.student.hyperparameters import method_of, reasons, resolve

MOST_EXAMPLES = 100_000_000
TARGETS, LORA_DEFAULT = "lora_targets", "all-linear"


def resolved(call: Call) -> Reply:
    """What "auto" resolves to for a `model` and a `training_file` (or so many `examples`), and why; the `method`
    ("supervised" unless told) and what is asked for besides, by the names of `Hyperparameters`, are taken into
    account."""
    model = call.query.get("model")
    if not model:
        raise InvalidRequest("Missing required parameter: 'model'.", param="model", code="missing_required_parameter")
    kind, asked = fine_tuning.method_asked(_body(call))
    base, examples = _examples(call, model)
    wanted = fine_tuning.wanted_of(asked)
    method = method_of(wanted, call.platform.fine_tuning.origin_of(call.project, model, base), kind)
    numbers = resolve(wanted, num_examples=examples, method=method)
    body = {
        "object": "stillroom.hyperparameters",
        "model": model,
        "examples": examples,
        "method": kind.value,
        "training": method.training.value,
        "values": numbers.shown(),
        "why": reasons(wanted, numbers, num_examples=examples, method=method),
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
    order = fine_tuning.parse_order({"model": model, "training_file": file_id, **_method(call)})
    base = call.platform.fine_tuning.base_of(call.project, model)
    call.platform.fine_tuning.check_files(call.project, order)
    return base, call.platform.files.get(call.project, file_id).examples or 0


def _body(call: Call) -> dict[str, Any]:
    """What a job's body would have of it."""
    return {**_method(call), "hyperparameters": _asked(call)}


def _method(call: Call) -> dict[str, Any]:
    return {"method": {"type": call.query["method"]}} if "method" in call.query else {}


def _asked(call: Call) -> dict[str, Any]:
    """What the query asks for besides "auto", as the numbers that a job's body would have."""
    names = fine_tuning.Hyperparameters.__struct_fields__
    asked = {name: _number(call.query[name]) for name in names if name in call.query}
    targets = call.query.get(TARGETS, LORA_DEFAULT)
    return asked if targets in ("auto", LORA_DEFAULT) else {**asked, TARGETS: targets.split(",")}


def _number(text: str) -> Any:
    whole = whole_number(text)
    if whole is not None:
        return whole
    try:
        return float(text)
    except ValueError:
        return text
