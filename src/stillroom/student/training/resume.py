"""States of a run to go on from: all that the rest of it depends on.

    resume/step-000375/    state.safetensors    trained weights, optimizer, what the method keeps, generators
                           manifest.json        format, progress, sums of the file beside it and of itself
    resume/plan.json       how the run's steps are computed, from before its first

A state counts only as exactly what was written, under the name it was written for; the newest such state
is used. Others are set aside (`unusable-step-000375`), not deleted: one may be of an older version that can
still go on from it. With none left the run begins anew, which costs time and nothing else, as the same run
ends with the same weights. A state of *another* run stays where it is and the run is refused.

Owns the format: a change of what is in it, a field of Progress or Passes too, needs a new FORMAT. Knows models and
optimizers as things with tensors; the order of training is `loop`'s.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from stillroom.errors import TrainingFailed
from stillroom.student.bases.checkpoint import (
    clear_drafts,
    keep_last,
    sha256_of,
    step_folder,
    step_folders,
    write_folder,
)
from stillroom.student.training.fsdp import cut_like, whole
from stillroom.student.training.packing import Passes

FORMAT = 3
STATES_KEPT = 2
TENSORS, MANIFEST = "state.safetensors", "manifest.json"
PLAN = "plan.json"
KEPT = "kept."


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, in the parts that are no tensors."""

    step: int
    """Optimizer steps done."""
    fingerprint: str
    """Of everything that decides the run's weights: a state of another run is never continued."""
    metrics: dict[str, Any]
    """The last step's figures, for the next checkpoint's report."""
    passes: Passes
    """How its steps are computed: what rounds as before gives the same weights."""


class _Unusable(Exception):
    """A state that must not be continued; says why, as the end of a sentence about it."""


def save_resume_state(
    folder: Path,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    progress: Progress,
    *,
    kept: Mapping[str, Tensor],
    writes: bool = True,
) -> None:
    """Keeps the state as the newest of the last two; `kept` is what a method wants to find again. Raises DiskFull or OSError; what was kept before stays then.

    Of several processes all must come here, as each may have a shard of it, and one `writes`.
    """
    state = step_folder(folder, progress.step)
    gathered = chain(_model_tensors(model), _optimizer_tensors(model, optimizers))
    tensors = {name: tensor for name, tensor in gathered if writes} | _generators()
    tensors |= {f"{KEPT}{name}": tensor.cpu() for name, tensor in kept.items()}
    if not writes or state.exists():
        return  # it is where we began, or what somebody who runs the same run beside us has written

    def write(to: Path) -> None:
        save_file(tensors, to / TENSORS)
        content = {"format": FORMAT, **asdict(progress), "sha256": {TENSORS: sha256_of(to / TENSORS)}}
        (to / MANIFEST).write_bytes(_sealed(content))

    write_folder(state, write)
    keep_last(folder, STATES_KEPT)


def load_resume_state(
    folder: Path,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    *,
    kept: dict[str, Tensor],
    fingerprint: str,
    warn: Callable[[str], None],
) -> Progress | None:
    """Puts the newest usable state into model, optimizers, `kept` and generators; None when the run begins at its
    beginning.

    Raises TrainingFailed when the state is another run's.
    """
    clear_drafts(folder)
    states = step_folders(folder)
    for state in reversed(states):
        try:
            progress = _progress_of(state)
            _check_is_of(fingerprint, progress, folder)
            tensors = load_file(state / TENSORS)
            _check_fits(tensors, model)
        except _Unusable as problem:
            _set_aside(state)
            warn(f"The saved state {state.name} {problem}; it is not used.")
            continue
        _restore_model(model, tensors)
        _restore_optimizers(model, optimizers, tensors)
        kept.update({name.removeprefix(KEPT): each for name, each in tensors.items() if name.startswith(KEPT)})
        _restore_generators(tensors)
        return progress
    if states:
        warn("No saved state can be used: the run begins anew. It takes longer and ends with the same weights.")
    return None


def keep_plan(folder: Path, fingerprint: str, passes: Passes) -> None:
    """Writes down how a run's steps are computed, before the first: one that loses its states, or is killed before it
    has any, and begins anew is then computed as it was, whatever memory is free by then."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{PLAN}.part"
    draft.write_bytes(_sealed({"fingerprint": fingerprint, **asdict(passes)}))
    draft.rename(folder / PLAN)


def kept_plan(folder: Path, fingerprint: str) -> Passes | None:
    """None where there is none, or not of this run, or it is not as it was written."""
    try:
        written = (folder / PLAN).read_bytes()
        content = dict(json.loads(written))
        content.pop("seal")
        if _sealed(content) != written or content.pop("fingerprint") != fingerprint:
            return None
        return Passes(**content)
    except (OSError, ValueError, TypeError, KeyError):
        return None


# --- what a state is worth -------------------------------------------------------------------------


def _progress_of(state: Path) -> Progress:
    """What the state's manifest says, once everything in the folder has proved to be as it was written."""
    content = _manifest_of(state)
    sums = content.pop("sha256")
    if not (state / TENSORS).is_file():
        raise _Unusable(f"is damaged: {TENSORS} is missing")
    if sha256_of(state / TENSORS) != sums[TENSORS]:
        raise _Unusable(f"is damaged: {TENSORS} is not as it was written")
    progress = Progress(**{**content, "passes": Passes(**content["passes"])})
    if state != step_folder(state.parent, progress.step):
        raise _Unusable(f"is damaged: it was written as that of step {progress.step}")
    return progress


def _manifest_of(state: Path) -> dict[str, Any]:
    """Its content but for the format, which is ours."""
    try:
        written = (state / MANIFEST).read_bytes()
        content = dict(json.loads(written))
        format_ = content["format"]
        seal = content.pop("seal", None)
    except FileNotFoundError as error:
        raise _Unusable(f"is damaged: {MANIFEST} is missing") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _Unusable(f"is damaged: {MANIFEST} cannot be read") from error
    # Format 1 had no seal; later ones have, so that a version is believed only when it was written.
    if format_ != 1 and (seal is None or _sealed(content) != written):
        raise _Unusable(f"is damaged: {MANIFEST} is not as it was written")
    if format_ != FORMAT:
        raise _Unusable(
            f"was written by another version of stillroom (format {format_}; this one reads {FORMAT}), which could go "
            "on from it"
        )
    del content["format"]
    return content


def _check_is_of(fingerprint: str, progress: Progress, folder: Path) -> None:
    if progress.fingerprint != fingerprint:
        raise TrainingFailed(
            f"{folder.parent} holds a run with another file, base model, seed or other hyperparameters. "
            "Give the job a folder of its own."
        )


def _check_fits(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Another version of a library may name or cut weights otherwise."""
    shapes = {_of_model(name): parameter.shape for name, parameter in _trained(model)}
    found = {name: tensor.shape for name, tensor in tensors.items() if name.startswith(_of_model(""))}
    if shapes != found:
        name = next(name for name in {**shapes, **found} if shapes.get(name) != found.get(name))
        raise _Unusable(
            f"does not fit the model: {name} is {_shape(found, name)} there and {_shape(shapes, name)} here"
        )


def _shape(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "missing"


def _set_aside(state: Path) -> None:
    """Under a name that is never taken for a state, so that it does not count as one of those kept."""
    aside = state.with_name(f"unusable-{state.name}")
    if aside.is_dir():
        shutil.rmtree(aside)
    state.rename(aside)


def _sealed(content: Mapping[str, Any]) -> bytes:
    """The content as JSON with a sum of itself: only these very bytes are accepted when it is read again."""
    seal = hashlib.sha256(_json(content)).hexdigest()
    return _json({**content, "seal": seal})


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


# --- what is in it -----------------------------------------------------------------------------------


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _of_model(name: str) -> str:
    return f"model.{name}"


def _model_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((_of_model(name), _saved(parameter)) for name, parameter in _trained(model))


def _restore_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _trained(model):
            parameter.copy_(cut_like(tensors[_of_model(name)], parameter))


def _optimizer_tensors(model: nn.Module, optimizers: Sequence[Optimizer]) -> Iterator[tuple[str, Tensor]]:
    """By the parameters' names: their numbers may change with the order in which a library lists them."""
    names = {parameter: name for name, parameter in _trained(model)}
    return (
        (f"optimizer.{key}.{names[parameter]}", _saved(value))
        for optimizer in optimizers
        for parameter in _parameters_of(optimizer)
        for key, value in optimizer.state[parameter].items()
    )


def _restore_optimizers(model: nn.Module, optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    names = {parameter: name for name, parameter in _trained(model)}
    states: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, key, parameter_name = name.split(".", 2)
            states.setdefault(parameter_name, {})[key] = tensor
    for optimizer in optimizers:
        state = {
            index: {key: cut_like(value, parameter) for key, value in states[names[parameter]].items()}
            for index, parameter in enumerate(_parameters_of(optimizer))
            if names[parameter] in states
        }
        # The groups are built anew by every run; the rate of each step is computed from its number.
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """In the order in which the optimizer numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _generators() -> dict[str, Tensor]:
    """Torch's generators: training draws from no others."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"generator.cpu": torch.get_rng_state()} | {
        f"generator.cuda.{index}": state for index, state in enumerate(devices)
    }


def _restore_generators(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["generator.cpu"])
    for index in range(torch.cuda.device_count()):
        # The run may go on with more devices than it began with, or on a machine that has none.
        if (state := tensors.get(f"generator.cuda.{index}")) is not None:
            torch.cuda.set_rng_state(state, index)


def _saved(tensor: Tensor) -> Tensor:
    return whole(tensor.detach()).cpu().contiguous()
