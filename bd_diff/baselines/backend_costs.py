"""Costs of the back-ends of AdaRevD's decoder chain: bytes kept for backward, time, error of the gradients."""

import time
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from bd_diff.baselines.reversible import run_chain
from bd_diff.baselines.subdecoder import SubDecoder


class Chain(nn.Module):
    """`number` sub-decoders with heads, and a random state and bottleneck to run them on.

    beta and gamma are random: at initialisation the blocks pass their input on unchanged, which would hide errors.
    """

    def __init__(self, number: int, width: int = 8, levels: int = 3, side: int = 32, batch: int = 2, seed: int = 0):
        super().__init__()
        channels = [width * 2**level for level in reversed(range(levels))]  # coarse to fine
        sizes = [(2 * channels[0], side >> levels)] + [(c, side >> levels - 1 - i) for i, c in enumerate(channels)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoders = nn.ModuleList(SubDecoder(channels, [1] * levels) for _ in range(number))
            self.heads = nn.ModuleList(nn.Conv2d(width, 3, 3, padding=1) for _ in range(number))
            self.inputs = nn.ParameterList(torch.randn(batch, c, s, s) for c, s in sizes)
            for name, parameter in self.named_parameters():
                if name.endswith(("beta", "gamma")):
                    nn.init.normal_(parameter, std=0.3)

    def forward(self, backend: str, anchor_every: int = 4) -> list[Tensor]:
        bottleneck, *state = self.inputs
        decoders = cast("Sequence[SubDecoder]", self.decoders)
        return run_chain(decoders, [*self.heads], bottleneck, state, backend, anchor_every)

    def state_bytes(self) -> int:
        """Bytes of one state, without the bottleneck."""
        return sum(level.nbytes for level in [*self.inputs][1:])


def gradients(chain: Chain, backend: str, anchor_every: int = 4, heads: Sequence[int] | None = None) -> dict:
    """Gradient of an L1 loss on all `heads` (None: every one) by the name of each parameter and input of the chain."""
    outputs = chain(backend, anchor_every)
    loss = sum((outputs[k] - 0.3).abs().mean() for k in (range(len(outputs)) if heads is None else heads))
    names, tensors = zip(*chain.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, tensors, allow_unused=True), strict=True))


def worst_error(found: Mapping[str, Tensor | None], wanted: Mapping[str, Tensor | None]) -> float:
    """Largest relative error `|found - wanted| / |wanted|` of any tensor; a missing gradient counts as zeros."""
    errors = [0.0]
    for name, gradient in wanted.items():
        own = found[name]
        if gradient is None or not gradient.any():
            errors.append(0.0 if own is None or not own.any() else float("inf"))
        else:
            missed = gradient if own is None else own - gradient
            errors.append((missed.norm() / gradient.norm()).item())
    return max(errors)


def saved_bytes(chain: Chain, backend: str, anchor_every: int = 4) -> int:
    """Bytes that autograd keeps of the chain for its backward pass, each once, parameters not counted.

    The loss's own tensors are not counted either; they grow with the number of heads whatever the back-end.
    """
    kept, own = {}, {parameter.data_ptr() for parameter in (*chain.decoders.parameters(), *chain.heads.parameters())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = chain(backend, anchor_every)
    assert outputs
    return sum(size for size, _ in kept.values())


def step_seconds(chain: Chain, backend: str, anchor_every: int = 4) -> float:
    """Time of a forward and backward pass. Do not count the first one of a chain: it prepares things, too."""
    start = time.perf_counter()
    gradients(chain, backend, anchor_every)
    if chain.inputs[0].is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
