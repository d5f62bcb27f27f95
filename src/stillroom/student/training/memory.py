"""How many tokens one pass may compute: planned before the first step, from what the machine has free.

What a pass keeps for its way back is not guessed from the architecture but measured, on a short row. Owns the
plan and what counts as running out of memory; the trainer keeps to it.
"""

from __future__ import annotations

import resource
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from stillroom.errors import TrainingFailed
from stillroom.student.chats.template import Example
from stillroom.student.training.fsdp import gathered_bytes, own_part
from stillroom.student.training.objective import CHUNK_LOGITS, Objective
from stillroom.student.training.packing import Passes, padded

FEWEST_TOKENS = 256
"""Below that, a step's passes do little but start and end."""
USED_SHARE = 0.8
"""Of what is free: the rest is for what nobody planned."""
ON_THE_WAY_BACK = 1.25
"""What a pass needs at most, in what it keeps: gradients of one layer's values exist beside them."""
LOGITS_AT_ONCE = 3
"""Where all logits of a pass exist at once: they, their gradients by chunk, and these together."""
STATES_OF_ADAMW = 2
GIGABYTE = 1e9
RAISE = "Let it use more (memory_gb under [training], or memory_bytes). "

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Of a model that is trained, in bytes."""

    fixed: int
    """Gradients, the optimizer's state and a chunk of logits: what does not grow with the pass."""
    per_token: float
    per_token_recomputed: float


def plan(
    objective: Objective, *, longest: Example, most_tokens: int, limit_bytes: int | None, processes: int = 1
) -> Passes:
    """The largest passes that fit, or what there is room for with every layer computed twice.

    `limit_bytes` is what the whole process may use; None: what is free now, of which as many `processes` take
    a share. Raises TrainingFailed (out_of_memory) when the longest row fits in neither way.
    """
    needs, free = needs_of(objective), free_bytes(objective, limit_bytes) // (1 if limit_bytes else processes)
    room = USED_SHARE * free - needs.fixed
    row = len(longest.ids)
    if room >= row * needs.per_token:
        return Passes(max_tokens=_rounded(room / needs.per_token, most_tokens))
    if room >= row * needs.per_token_recomputed:
        return Passes(max_tokens=_rounded(room / needs.per_token_recomputed, most_tokens), recomputed=True)
    wanted = (needs.fixed + row * needs.per_token_recomputed) / USED_SHARE
    raise TrainingFailed(
        f"Line {longest.line}, the longest, has {row} tokens; training on it takes about {_gigabytes(wanted)} of memory, "
        f"and {_left(free, limit_bytes)}. {RAISE if limit_bytes else ''}Shorten or leave out the longest rows, or use a "
        "smaller base model.",
        code="out_of_memory",
        param="training_file",
    )


def _left(free: float, limit_bytes: int | None) -> str:
    if limit_bytes:
        return f"of the {_gigabytes(limit_bytes)} that it may use, {_gigabytes(max(0, free))} are left"
    return f"{_gigabytes(max(0, free))} are free"


def _gigabytes(size: float) -> str:
    return f"{size / GIGABYTE:.2f} GB"


def needs_of(objective: Objective) -> Needs:
    """Measured on two short rows, so that what does not depend on the length drops out."""
    model = objective.model
    trained = sum(own_part(each).nbytes for each in model.parameters() if each.requires_grad)
    kept = [_kept_bytes(objective, tokens) for tokens in (64, 192)]
    per_token = (kept[1] - kept[0]) / 128
    config = model.config.get_text_config()
    layer_input = config.hidden_size * model.dtype.itemsize
    logits = 0 if objective.chunks_logits else LOGITS_AT_ONCE * config.vocab_size * model.dtype.itemsize
    return Needs(
        # What a pass keeps however short it is: weights rounded for it, where they are.
        fixed=trained * (1 + STATES_OF_ADAMW)
        + 4 * 4 * CHUNK_LOGITS
        + gathered_bytes(model)
        + max(0, int(kept[0] - 64 * per_token)),
        per_token=per_token * ON_THE_WAY_BACK + logits,
        per_token_recomputed=(per_token / config.num_hidden_layers + layer_input * config.num_hidden_layers)
        * ON_THE_WAY_BACK
        + logits,
    )


def free_bytes(objective: Objective, limit_bytes: int | None) -> int:
    """What this process may still take on the model's device."""
    device = next(objective.model.parameters()).device
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        free -= torch.cuda.memory_allocated(device)
        return min(free, limit_bytes - torch.cuda.memory_allocated(device)) if limit_bytes else free
    free = min([int(psutil.virtual_memory().available), *left_in_groups()])
    return min(free, limit_bytes - int(psutil.Process().memory_info().rss)) if limit_bytes else free


def left_in_groups(root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> Iterator[int]:
    """What the memory limits of this process's control groups (version 2) leave: containers and services have one."""
    own = next((line[3:] for line in _lines(membership) if line.startswith("0::")), "")
    for folder in (root / own.lstrip("/"), *(root / own.lstrip("/")).parents):
        limit = next(iter(_lines(folder / "memory.max")), "max")
        if limit.isdigit():
            used = int(next(iter(_lines(folder / "memory.current")), "0"))
            # Pages of files that nobody has asked for lately count as used, and are given back first.
            files = next((line for line in _lines(folder / "memory.stat") if line.startswith("inactive_file ")), "x 0")
            yield int(limit) - used + int(files.split()[1])


def peak_bytes(device: torch.device) -> int:
    """The most this process has used so far: of the accelerator's memory, or of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _peak_resident_bytes()


def _kept_bytes(objective: Objective, tokens: int) -> int:
    """What a pass over one row of so many tokens keeps for its way back, parameters not counted."""
    model = objective.model
    parameters = {own_part(each).untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    row = Example(ids=array("i", [0] * tokens), mask=bytes(tokens - 1) + b"\1")
    with saved_tensors_hooks(note, lambda tensor: tensor), objective.rounding():
        hidden_ND = objective.hidden(padded([row]).to(next(model.parameters()).device))
    del hidden_ND
    return sum(kept.values())


def _rounded(tokens: float, most: int) -> int:
    """Down to a power of two: what is free changes from start to start, and need not change the passes."""
    return max(FEWEST_TOKENS, min(most, 1 << (int(tokens).bit_length() - 1)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _peak_resident_bytes() -> int:
    """Linux tells it of this process; what getrusage tells counts what its parent held when it was started, too."""
    line = next((line for line in _lines(STATUS) if line.startswith("VmHWM:")), None)
    if line is not None:
        return int(line.split()[1]) * 1024
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
