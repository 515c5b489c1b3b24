"""Sharded training (FSDP version 2): each process holds a shard of trained weights, optimizer state and average.

Validation and saving run the networks on one process alone, which sharded networks do not allow. So a copy of the
objective is sharded and trained. The networks themselves hold no trained weights; they are lent whole ones while they
are used. Frozen weights are whole in each process, shared by both.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin, broadcast
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only


class Shares:
    """The objective, sharded as `plugin` says: train `self.objective` with `optimizer`, which now holds its parameters.

    The states of both are whole when saved and loaded, so that a checkpoint does not depend on the number of processes.
    Raises ValueError for what cannot be sharded.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimizer: Optimizer,
        plugin: FullyShardedDataParallelPlugin,
        accelerator: Accelerator,
    ):
        if any(module._compiled_call_impl for module in objective.modules()):
            raise ValueError("compile does not work under FSDP; set compile=false")
        if not type(optimizer).__module__.startswith("torch."):
            raise ValueError(f"{type(optimizer).__name__} does not work under FSDP; set optimizer.class=AdamW")
        configs = [getattr(module, "config", None) for module in objective.modules()]
        if any(getattr(config, "backend", None) == "reversible" for config in configs):
            raise ValueError("backend reversible does not work under FSDP; set network.backend=checkpoint")
        objective.to(accelerator.device)
        self.owners = [p for p in objective.parameters() if p.requires_grad]
        broadcast([owner.detach() for owner in self.owners])
        same = {id(tensor): tensor for tensor in chain(objective.parameters(), objective.buffers())}
        self.objective = copy.deepcopy(objective, same)  # other modules around the same tensors
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        frozen = {p for p in objective.parameters() if not p.requires_grad}
        for layer in layers(self.objective, plugin.transformer_cls_names_to_wrap or ()):
            again = plugin.reshard_after_forward
            fully_shard(layer, mesh=mesh, reshard_after_forward=again, ignored_params=frozen)
        fully_shard(self.objective, mesh=mesh, ignored_params=frozen)
        self.shares = [p for p in self.objective.parameters() if p.requires_grad]
        share_of = dict(zip(self.owners, self.shares, strict=True))
        for group in optimizer.param_groups:
            group["params"] = [share_of[owner] for owner in group["params"]]
        self.take_back()
        self.objective.register_state_dict_post_hook(lambda _, state, *__: state.update(whole(state)))
        self.objective.register_load_state_dict_pre_hook(load_shares)
        optimizer.register_state_dict_post_hook(lambda _, state: whole(state))
        optimizer.register_load_state_dict_pre_hook(load_optimizer_shares)

    @contextmanager
    def lent(self, averages: list[EMAModel], _) -> Iterator[None]:
        """Context in which the networks hold the averaged weights or, without an average, the trained ones.

        Only the main process's networks do, but all processes have to take part.
        """
        self.give(averages[0].shadow_params if averages else self.shares, torch.distributed.get_rank() == 0)
        try:
            yield
        finally:
            self.take_back()

    def give(self, shares: Iterable[Any], here: bool = True) -> None:
        """Gather all `shares` into the networks of this process if `here`; every process has to take part."""
        for owner, share in zip(self.owners, shares, strict=True):
            tensor = share.detach().full_tensor()
            if here:
                owner.data = tensor

    def take_back(self) -> None:
        for owner in self.owners:
            owner.data = owner.new_empty(0)


class SharedAverage(EMAModel):
    """diffusers' average of weights, for sharded ones; its state is whole."""

    def state_dict(self) -> dict:
        return whole(super().state_dict())

    def load_state_dict(self, state: dict) -> None:
        pairs = zip(state["shadow_params"], self.shadow_params, strict=True)
        super().load_state_dict(state | {"shadow_params": [share_like(tensor, share) for tensor, share in pairs]})


def layers(objective: nn.Module, names: tuple[str, ...] | list[str]) -> list[nn.Module]:
    """The modules of the named classes that hold trained parameters, inner ones first.

    Each is gathered only while it runs, so all processes have to call it equally often. Raises ValueError if there is
    none.
    """
    found = [
        module
        for module in objective.modules()
        if type(module).__name__ in names and any(p.requires_grad for p in module.parameters())
    ]
    if not found:
        kinds = sorted({type(module).__name__ for module in objective.modules()})
        raise ValueError(
            f"fsdp_transformer_layer_cls_to_wrap names no layer that learns here; choose among {', '.join(kinds)}"
        )
    return found[::-1]


@torch.no_grad()
def whole(state: dict) -> dict:
    """The state with whole tensors instead of shards, on the CPU of the main process.

    All processes have to take part; the others get empty tensors.
    """
    is_main = torch.distributed.get_rank() == 0

    def gathered(share: DTensor) -> Tensor:
        tensor = share.full_tensor()
        return tensor.to("cpu", copy=True) if is_main else tensor.new_empty(0)

    return tree_map_only(DTensor, gathered, state)


def share_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a whole tensor, sharded as `like` is.

    Where `like` is not sharded or has another shape, the tensor is returned unchanged.
    """
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def load_shares(module: nn.Module, state: dict, prefix: str, *_) -> None:
    parameters = dict(module.named_parameters(prefix.rstrip("."), remove_duplicate=False))
    state.update({name: share_like(tensor, parameters[name]) for name, tensor in state.items() if name in parameters})


def load_optimizer_shares(optimizer: Optimizer, state: dict) -> dict:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut = {
        index: {name: share_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return state | {"state": cut}
