"""Whether readings of one photograph's blur contradict each other (ours)."""

import torch
from torch import Tensor

from bd_diff.blur.kernels import transfer_function
from bd_diff.models.blur_operator import natural_power

MOST = 0.077, 0.73  # see `contradict`
WIDEST = 0.045  # of `scatter`: beyond it results were often worse than the photograph (ours, measured as `MOST` was)


def contradict(free: Tensor, searched: Tensor, residuals: tuple[Tensor, Tensor]) -> Tensor:
    """Where neither of two kernels `(B, k, k)` can be trusted, as booleans `(B,)`.

    free, searched: read from the spectrum alone, and with the findings of the kernel search. The spectrum cannot tell a
        path from its mirror image, so the kernels may differ, but they must agree in how much they blur: in magnitude.
    residuals: how badly each explains the photograph (`reblur_residual`); what the search wins here, it may differ by.

    The bounds (ours) belong to the shipped model: beyond them its results were often worse than the photograph, on
    synthetic blur of photographs that it was trained on.
    """
    size = 64
    weight = natural_power(size, device=free.device)
    magnitudes = [transfer_function(kernels.float(), size, size).abs() for kernels in (free, searched)]
    difference = (((magnitudes[0] - magnitudes[1]).square() * weight).mean((1, 2)) / weight.mean()).sqrt()
    won = (1 - residuals[1] / residuals[0]).clamp_min(0)
    return difference > MOST[0] + MOST[1] * won


def scatter(kernel: Tensor, refined: Tensor) -> Tensor:
    """How far apart refinement ended from its several beginnings, `(1,)`: 0 is the same blur, 1 is nothing in common.

    kernel: the one that is kept, `(1, k, k)`; refined: all of them, `(S, k, k)`. One less the lowest correlation of
    natural photographs blurred by the one and by another, wherever the kernels are centred.
    """
    size = 64
    power = natural_power(size, device=kernel.device)
    one, others = (transfer_function(kernels.float(), size, size) for kernels in (kernel, refined))
    together = torch.fft.irfft2(one * others.conj() * power, s=(size, size)).amax((1, 2))
    alone = [torch.fft.irfft2(each.abs().square() * power, s=(size, size))[:, 0, 0] for each in (one, others)]
    return 1 - (together / (alone[0] * alone[1]).sqrt()).min()[None]
