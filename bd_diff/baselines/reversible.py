"""The chain of sub-decoders and heads, run by three back-ends that differ only in what they keep for the backward pass.

`plain`       everything autograd asks for.
`checkpoint`  the state between levels: one state per sub-decoder; gradients equal `plain` bit for bit.
`reversible`  the state after every `anchor_every` sub-decoders; those between are recomputed by inverting the coupling,
              so memory does not grow between anchors. The inversion divides by alpha and its rounding errors compound:
              at alpha = 0.5 in float32 gradients are within about 3e-5 after 4 sub-decoders and useless after 8.

None of them keeps the parameters' gradients, Adam moments or the loss's own tensors, which do grow with N.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from bd_diff.baselines.subdecoder import SubDecoder

BACKENDS = ("plain", "checkpoint", "reversible")


def run_chain(
    decoders: Sequence[SubDecoder],
    heads: Sequence[nn.Module],
    bottleneck: Tensor,
    state: Sequence[Tensor],
    backend: str = "plain",
    anchor_every: int = 4,
) -> list[Tensor]:
    """The output of every head, `(B, 3, H, W)` each; head k reads the finest map after sub-decoder k."""
    if backend not in BACKENDS:
        raise ValueError(f"there is no backend '{backend}'; choose from {', '.join(BACKENDS)}")
    if backend == "reversible" and torch.is_grad_enabled():
        return run_reversible(decoders, heads, bottleneck, state, anchor_every)
    outputs = []
    for decoder, head in zip(decoders, heads, strict=True):
        if backend == "checkpoint" and torch.is_grad_enabled():
            state = checkpointed(decoder, bottleneck, state)
        else:
            state = decoder(bottleneck, state)
        outputs.append(head(state[-1]))
    return outputs


def checkpointed(decoder: SubDecoder, bottleneck: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
    """`decoder(bottleneck, state)` that keeps only the state between its levels."""
    state = [*state]
    for level, add in enumerate(decoder.levels):
        coarser = state[level - 1] if level else bottleneck
        added = checkpoint(
            add, coarser, *state[level + 1 : level + 2], use_reentrant=False, preserve_rng_state=False
        )  # the levels draw no random numbers
        state[level] = decoder.alpha(level) * state[level] + added
    return state


def run_reversible(decoders, heads, bottleneck, state, anchor_every) -> list[Tensor]:
    if anchor_every < 1:
        raise ValueError(f"anchor_every is {anchor_every}; it must be at least 1")
    outputs: list[Tensor] = []
    for first in range(0, len(decoders), anchor_every):
        segment = [*zip(decoders[first : first + anchor_every], heads[first : first + anchor_every], strict=True)]
        results = Segment.apply(segment, len(state), bottleneck, *state, *parameters_of(segment))
        state, outputs = results[: len(state)], [*outputs, *results[len(state) :]]
    return outputs


def parameters_of(segment) -> list[nn.Parameter]:
    modules = (module for pair in segment for module in pair)
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


class Segment(torch.autograd.Function):
    """Consecutive (sub-decoder, head) pairs as one step of autograd that keeps its last state and nothing else.

    Parameters are inputs, so that their gradients are returned and never written as a side effect:
    `torch.autograd.grad`, the hooks of DistributedDataParallel and gradient clipping see them as usual.
    """

    @staticmethod
    def forward(ctx, segment, levels: int, bottleneck: Tensor, *state_and_parameters: Tensor):
        state, parameters = state_and_parameters[:levels], state_and_parameters[levels:]
        device = bottleneck.device.type
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
            "cache_enabled": False,  # a cast cached in `forward` carries no gradient
        }
        outputs = []
        for decoder, head in segment:
            state = decoder(bottleneck, state)
            outputs.append(head(state[-1]))
        ctx.segment, ctx.levels = segment, levels
        ctx.save_for_backward(bottleneck, *state, *parameters)  # parameters: autograd then notices if they change
        return (*state, *outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *cotangents: Tensor):
        bottleneck, *saved = ctx.saved_tensors
        state, parameters = saved[: ctx.levels], saved[ctx.levels :]
        state_grads, output_grads = [*cotangents[: ctx.levels]], cotangents[ctx.levels :]
        bottleneck_grad = torch.zeros_like(bottleneck)
        gradients: dict[nn.Parameter, Tensor] = {}
        with torch.autocast(**ctx.autocast):
            for (decoder, head), output_grad in zip(reversed(ctx.segment), reversed(output_grads), strict=True):
                _, (finest_grad,) = pull_back(head, state[-1:], output_grad, gradients)
                state_grads[-1] = state_grads[-1] + finest_grad
                state, state_grads, added = step_back(decoder, bottleneck, state, state_grads, gradients)
                bottleneck_grad = bottleneck_grad + added
        return (None, None, bottleneck_grad, *state_grads, *(gradients[parameter] for parameter in parameters))


def step_back(decoder: SubDecoder, bottleneck, state, state_grads, gradients):
    """State and gradients before `decoder` from those after it, and the gradient it adds to the bottleneck.

    Finest level first: the old map of a level is an input of the next coarser one.
    """
    state, state_grads = [*state], [*state_grads]
    for level in reversed(range(len(state))):
        coarser = state[level - 1] if level else bottleneck
        inputs = [coarser, *state[level + 1 : level + 2]]
        added, (coarser_grad, *finer_grad) = pull_back(decoder.levels[level], inputs, state_grads[level], gradients)
        alpha = decoder.alpha(level).detach()
        state[level] = (state[level] - added) / alpha
        gradients[decoder.alphas[level]] = (state_grads[level] * state[level]).sum((0, 2, 3), keepdim=True)
        state_grads[level] = alpha * state_grads[level]
        for grad in finer_grad:
            state_grads[level + 1] = state_grads[level + 1] + grad
        if level:
            state_grads[level - 1] = state_grads[level - 1] + coarser_grad
    return state, state_grads, coarser_grad


def pull_back(module: nn.Module, inputs, output_grad, gradients: dict):
    """Recompute `module(*inputs)` and backpropagate `output_grad` through it.

    Returns its output and the gradients of the inputs; `gradients` is updated with those of its parameters.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        output = module(*inputs)
    found = torch.autograd.grad(output, [*inputs, *parameters], output_grad)
    gradients.update(zip(parameters, found[len(inputs) :], strict=True))
    return output.detach(), found[: len(inputs)]
