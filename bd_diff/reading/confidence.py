"""Whether readings of one photograph's blur contradict each other (ours)."""

import torch
from torch import Tensor

from bd_diff.blur.kernels import transfer_function
from bd_diff.blur.operator import natural_power

SIZE = 64  # pixels a side of the spectra that are compared
MOST = 0.077, 0.73  # see `contradict`
SPREAD, NEAR = 0.02, 0.11  # see `uncertain`


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


def uncertain(kernels: Tensor, residuals: Tensor, kept: int) -> Tensor:
    """Whether the kernel that is kept is too far from others that explain the photograph about as well, `(1,)`.

    kernels: all that were read, `(S, k, k)`, first the one without the search. residuals: how badly each explains the
        photograph (`reblur_residual`), `(S,)`. kept: which of them is kept.

    Any of them may be the truth, with odds that fall by a factor of e for every `SPREAD` of the first residual. The
    kept one's expected distance to the truth may be `NEAR` of the share of the first residual that it leaves out: what
    wins little, as in photographs that hardly show their blur, must be met more closely.

    The bounds are ours, measured on 80 shakes of validation photographs: within them 66 of 67 gained more than 3 dB
    by the kernel, beyond them one of 13.
    """
    shares = residuals / residuals[0]
    odds = torch.softmax(-shares / SPREAD, 0)
    expected = (odds * distances(kernels[kept, None], kernels)).sum(0, keepdim=True)
    return expected > NEAR * (1 - shares[kept])


def distances(kernel: Tensor, others: Tensor) -> Tensor:
    """How different the blur of `others` `(S, k, k)` is from that of `kernel` `(1, k, k)`, wherever they are centred:
    one less the correlation of natural photographs blurred by both, `(S,)`.
    """
    power = natural_power(SIZE, device=kernel.device)
    one, each = (transfer_function(kernels.float(), SIZE, SIZE) for kernels in (kernel, others))
    together = torch.fft.irfft2(one * each.conj() * power, s=(SIZE, SIZE)).amax((1, 2))
    alone = [torch.fft.irfft2(own.abs().square() * power, s=(SIZE, SIZE))[:, 0, 0] for own in (one, each)]
    return 1 - together / (alone[0] * alone[1]).sqrt()
