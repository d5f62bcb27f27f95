"""A student whose weights, gradients and optimizer state lie in shards, one in each process: FSDP2.

Torch's `fully_shard` gathers a layer's weights when it is computed and lets them go again, forwards and backwards.
For that to happen the model must be called as a whole, by all processes equally often. What comes out is what
processes with full copies compute.

Owns how a model is cut, and what it takes to read and write a sharded tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cuts all its parameters, in place: those of a layer are gathered together, and what is in no layer at once.

    To be called before there is an optimizer.
    """
    causal = _causal(model)
    for layer in _layers(causal):
        fully_shard(layer, mesh=mesh)
    # Without being told, the outermost keeps what it has gathered until a backward pass, and there may be none.
    fully_shard(causal, mesh=mesh, reshard_after_forward=True)
    for module in _units(causal):
        # The gradient of a sum is the sum of gradients, not their mean. And gloo can only add.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def is_sharded(model: nn.Module) -> bool:
    return isinstance(_causal(model), FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Of a sharded one, all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def cut_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, which all processes have, in shards where `pattern` is and has its shape."""
    if not isinstance(pattern, DTensor) or tensor.shape != pattern.shape:
        return tensor
    # Nobody is asked for it (None): each takes its part from what it has.
    return distribute_tensor(tensor.to(pattern.device), pattern.device_mesh, pattern.placements, src_data_rank=None)


def whole_weights(model: nn.Module, *, kept: bool) -> dict[str, Tensor] | None:
    """The trained weights by name, to be saved; None where the model can be saved as it is. All processes must ask,
    and the one that has it `kept` gets it."""
    if not is_sharded(model):
        return None
    weights = ((name, whole(each.detach()).cpu()) for name, each in model.named_parameters() if each.requires_grad)
    return {name: weight for name, weight in weights if kept}


def gathered_bytes(model: nn.Module) -> int:
    """The most that is gathered at a time: what is in no layer, a layer, and the next one."""
    if not is_sharded(model):
        return 0
    causal = _causal(model)
    layers = [_bytes(layer) for layer in _layers(causal)]
    return _bytes(causal) - sum(layers) + 2 * max(layers, default=0)


def _bytes(module: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in module.parameters())


def _causal(model: nn.Module) -> nn.Module:
    """Below an adapter's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _layers(causal: nn.Module) -> list[nn.Module]:
    """The modules that transformers says must not be split."""
    assert isinstance(causal, PreTrainedModel)
    names = causal._no_split_modules or ()
    return [module for module in causal.modules() if type(module).__name__.removeprefix("FSDP") in names]


def _units(causal: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in causal.modules() if isinstance(module, FSDPModule))
