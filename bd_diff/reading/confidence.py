"""Whether kernel estimates of one photograph can be trusted, by how well they agree (ours)."""

import torch
from torch import Tensor

from bd_diff.blur.kernels import transfer_function
from bd_diff.blur.operator import natural_power

SIZE = 64  # pixels a side of the spectra that are compared
MOST = 0.077, 0.73  # see `contradict`
SPREAD, NEAR = 0.02, 0.11  # see `uncertain`


def contradict(free: Tensor, searched: Tensor, residuals: tuple[Tensor, Tensor]) -> Tensor:
    """Whether two estimates of a kernel, `(B, k, k)`, differ too much to trust either, as booleans `(B,)`.

    free, searched: estimated from the spectrum alone, and with the kernel search. The spectrum cannot tell a path from
        its mirror image, so the kernels may differ, but the magnitudes of their transfer functions must agree.
    residuals: the `reblur_residual` of each; the more the search lowers it, the more the magnitudes may differ.

    The bounds (ours) are for the shipped model: beyond them its results were often worse than the input, on synthetic
    blur of photographs that it was trained on.
    """
    weight = natural_power(SIZE, device=free.device)
    magnitudes = [transfer_function(kernels.float(), SIZE, SIZE).abs() for kernels in (free, searched)]
    difference = (((magnitudes[0] - magnitudes[1]).square() * weight).mean((1, 2)) / weight.mean()).sqrt()
    won = (1 - residuals[1] / residuals[0]).clamp_min(0)
    return difference > MOST[0] + MOST[1] * won


def uncertain(kernels: Tensor, residuals: Tensor, kept: int) -> Tensor:
    """Whether the chosen kernel is too far from others that explain the photograph about as well, `(1,)`.

    kernels: all estimates `(S, k, k)`, the one without the search first. residuals: the `reblur_residual` of each,
        `(S,)`. kept: the index of the chosen one.

    Each estimate may be the true kernel, with odds that fall by a factor of e for every `SPREAD` of the first residual.
    The chosen kernel's expected distance to the true one must be below `NEAR` times the share of the first residual
    that it removes: where it removes little, because the photograph hardly shows its blur, it must be more certain.

    The bounds (ours) were measured on 80 shakes of validation photographs: within them, deblurring by the kernel gained
    more than 3 dB in 66 of 67 cases, beyond them in one of 13.
    """
    shares = residuals / residuals[0]
    odds = torch.softmax(-shares / SPREAD, 0)
    expected = (odds * distances(kernels[kept, None], kernels)).sum(0, keepdim=True)
    return expected > NEAR * (1 - shares[kept])


def distances(kernel: Tensor, others: Tensor) -> Tensor:
    """Distance `(S,)` of `kernel` `(1, k, k)` to `others` `(S, k, k)`, whatever their shift: one minus the correlation
    of natural photographs blurred by both.
    """
    power = natural_power(SIZE, device=kernel.device)
    one, each = (transfer_function(kernels.float(), SIZE, SIZE) for kernels in (kernel, others))
    together = torch.fft.irfft2(one * each.conj() * power, s=(SIZE, SIZE)).amax((1, 2))
    alone = [torch.fft.irfft2(own.abs().square() * power, s=(SIZE, SIZE))[:, 0, 0] for own in (one, each)]
    return 1 - together / (alone[0] * alone[1]).sqrt()
