"""The processes that compute a run together, each with a copy of the student, seen from one of them.

Each computes a part of every step's examples; gradients are summed before the update, so that all make the same
one, and the run is the run of one process but for rounding. What all must agree on goes through here. A process
that is alone does nothing of it.

`launch`, torchrun or accelerate starts them; accelerate's PartialState joins them (gloo on CPUs, NCCL on GPUs).
Knows tensors, not models.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from stillroom.errors import ConfigurationError, StillroomError
from stillroom.student.child import MEETING
from stillroom.student.training.objective import Sums

BUCKET_BYTES = 64 * 2**20
"""Of gradients summed in one message: beside them, as much memory again."""
PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: the first may be writing a large checkpoint."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Those of one run. Without arguments, there is this one alone."""

    rank: int = 0
    count: int = 1
    on_this_machine: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where what they tell each other has to lie."""

    @classmethod
    def joined(cls) -> Processes:
        """All that were started together, as the environment tells; waits until they are there.

        Raises ConfigurationError when there are more than GPUs.
        """
        count = int(os.environ.get("WORLD_SIZE") or 1)
        if count == 1:
            return cls()
        on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE") or count)
        gpus = torch.cuda.device_count()
        if 0 < gpus < on_this_machine:
            raise ConfigurationError(
                f"{on_this_machine} training processes were started and there are {gpus} GPUs: each needs one of its "
                "own. Start fewer (`processes` under [training]).",
                param="processes",
            )
        state = PartialState(cpu=gpus == 0, timeout=PATIENCE, **_meeting(count))
        return cls(rank=state.process_index, count=count, on_this_machine=on_this_machine, device=state.device)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that reports and writes."""
        return self.rank == 0

    def leave(self) -> None:
        """At the end of a run that went well: no process ends while another still talks to it."""
        if self.count > 1:
            self.wait()
            distributed.destroy_process_group()

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """For what one must do before the others may: where the first writes a file that all then read."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def mesh(self) -> DeviceMesh:
        """All of them in a row, for tensors that lie in shards."""
        return init_device_mesh(self.device.type, (self.count,))

    # --- what is not the same everywhere -------------------------------------------------------------

    def together(self, work: Callable[[], Result]) -> list[Result]:
        """What `work` gives in each process, by rank; an error of ours in one of them is raised in all."""
        if self.count == 1:
            return [work()]
        own: Result | StillroomError
        try:
            own = work()
        except StillroomError as error:
            own = error
        results: list[Any] = [None] * self.count
        distributed.all_gather_object(results, own)
        for result in results:
            if isinstance(result, StillroomError):
                raise result
        return results

    def any(self, flag: bool) -> bool:
        """Whether it holds in any of them."""
        return self.largest(flag) > 0

    def largest(self, number: float) -> float:
        if self.count == 1:
            return number
        return float(self._reduced(torch.tensor([number], dtype=torch.float64), distributed.ReduceOp.MAX))

    def added(self, sums: Sums) -> Sums:
        if self.count == 1:
            return sums
        own = torch.tensor([sums.loss, sums.correct, sums.tokens, sums.computed], dtype=torch.float64)
        loss, correct, tokens, computed = self._reduced(own, distributed.ReduceOp.SUM).tolist()
        return Sums(loss=loss, correct=correct, tokens=tokens, computed=int(computed))

    def _reduced(self, numbers: Tensor, how: distributed.ReduceOp.RedOpType) -> Tensor:
        reduced = numbers.to(self.device)
        distributed.all_reduce(reduced, how)
        return reduced

    # --- what has to be the same everywhere -------------------------------------------------------------

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Puts the first process's values into the tensors of all."""
        if self.count == 1:
            return
        for bucket in _buckets([each.detach() for each in tensors]):
            _exchange(bucket, lambda flat: distributed.broadcast(flat, src=0))

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Each parameter's gradients from all processes, added up in the same order everywhere.

        One that has a gradient nowhere keeps none.
        """
        if self.count == 1:
            return
        has_one = torch.tensor([float(each.grad is not None) for each in parameters])
        used = self._reduced(has_one, distributed.ReduceOp.MAX).tolist()
        gradients = [_gradient_of(each) for each, is_used in zip(parameters, used, strict=True) if is_used]
        for bucket in _buckets(gradients):
            _exchange(bucket, distributed.all_reduce)

    def draw_apart(self, seed: int, step: int) -> None:
        """What this step draws (dropout) differs from process to process, and is the same in a run that was resumed."""
        if self.count > 1:
            digest = hashlib.blake2b(f"{seed} {step} {self.rank}".encode(), digest_size=8).digest()
            torch.manual_seed(int.from_bytes(digest, "little") >> 1)


def _meeting(count: int) -> dict[str, Any]:
    """Over the launcher's file; without one over MASTER_ADDR and MASTER_PORT, as torch does by itself."""
    file = os.environ.get(MEETING)
    if not file:
        return {}
    return {"init_method": f"file://{file}", "rank": int(os.environ["RANK"]), "world_size": count}


def _gradient_of(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In order, each of one kind of number and of not much more than BUCKET_BYTES."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(each.nbytes for each in bucket) >= BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _exchange(bucket: Sequence[Tensor], exchange: Callable[[Tensor], Any]) -> None:
    """Does the exchange on all tensors of the bucket at once."""
    flat = torch.cat([each.flatten() for each in bucket])
    exchange(flat)
    for tensor, changed in zip(bucket, torch.split(flat, [each.numel() for each in bucket]), strict=True):
        tensor.copy_(changed.view_as(tensor))


ALONE = Processes()
