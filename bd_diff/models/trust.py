"""Whether readings of one photograph's blur contradict each other (ours)."""

import torch
from torch import Tensor

from bd_diff.blur.kernels import transfer_function
from bd_diff.models.blur_operator import natural_power

SIZE = 64  # pixels a side of the spectra that are compared
MOST = 0.077, 0.73  # see `contradict`
NEAR = 0.2  # see `scattered`


def contradict(free: Tensor, searched: Tensor, residuals: tuple[Tensor, Tensor]) -> Tensor:
    """Where neither of two kernels `(B, k, k)` can be trusted, as booleans `(B,)`.

    free, searched: read from the spectrum alone, and with the findings of the kernel search. The spectrum cannot tell a
        path from its mirror image, so the kernels may differ, but they must agree in how much they blur: in magnitude.
    residuals: how badly each explains the photograph (`reblur_residual`); what the search wins here, it may differ by.

    The bounds (ours) belong to the shipped model: beyond them its results were often worse than the photograph, on
    synthetic blur of photographs that it was trained on.
    """
    weight = natural_power(SIZE, device=free.device)
    magnitudes = [transfer_function(kernels.float(), SIZE, SIZE).abs() for kernels in (free, searched)]
    difference = (((magnitudes[0] - magnitudes[1]).square() * weight).mean((1, 2)) / weight.mean()).sqrt()
    won = (1 - residuals[1] / residuals[0]).clamp_min(0)
    return difference > MOST[0] + MOST[1] * won


def scattered(kernel: Tensor, others: Tensor, won: Tensor) -> Tensor:
    """Whether refinement ended wherever it began, `(1,)`: no second explanation near the kernel that is kept.

    kernel: the one that is kept, `(1, k, k)`.
    others: what the beginnings ended at, and what was read without the search, `(S, k, k)`.
    won: which share of the residual of the reading without the search it leaves out, `(1,)`. Photographs that hardly
        show their blur are explained about as well by many kernels: what wins little there must be met more closely.

    The bound is ours, measured on 112 shakes, 32 of training photographs and 80 of validation ones: beyond it 12 of 14
    gained less than 1.5 dB by the kernel, within it 87 of 94 gained more.
    """
    return distances(kernel, others).sort().values[1] > NEAR * won


def distances(kernel: Tensor, others: Tensor) -> Tensor:
    """How different the blur of `others` `(S, k, k)` is from that of `kernel` `(1, k, k)`, wherever they are centred:
    one less the correlation of natural photographs blurred by both, `(S,)`.
    """
    power = natural_power(SIZE, device=kernel.device)
    one, each = (transfer_function(kernels.float(), SIZE, SIZE) for kernels in (kernel, others))
    together = torch.fft.irfft2(one * each.conj() * power, s=(SIZE, SIZE)).amax((1, 2))
    alone = [torch.fft.irfft2(own.abs().square() * power, s=(SIZE, SIZE))[:, 0, 0] for own in (one, each)]
    return 1 - together / (alone[0] * alone[1]).sqrt()
