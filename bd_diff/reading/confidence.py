"""Whether kernel estimates of one photograph can be trusted, by how well they agree (ours)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bd_diff.blur.kernels import shape_of, transfer_function
from bd_diff.blur.operator import natural_power
from bd_diff.data.noise import noise_level

SIZE = 64  # pixels a side of the spectra that are compared
MOST = 0.077, 0.73  # see `contradict`
SPREAD, NEAR, NEAR_BLOCKS, NEAR_PATH = 0.03, 0.11, 0.18, 0.01  # see `uncertain`
BETTER, SLIGHTLY, ALIKE = 0.93, 0.965, 0.005  # see `favouring_first` (ours, measured on photographs of the training)
WIDE, ROUND, LONG = 1.4, 0.06, 0.8  # see `seems_path` (likewise)
NOISE = 2 / math.sqrt(math.pi)  # mean difference of neighbours in white noise, in its standard deviations
NONE = 1e-9  # residual of a picture of one colour, which every kernel explains
MOST_NOISE, ALL_NOISE = 0.85, 0.95  # see `shares` (ours, measured on photographs of the training)


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
    won = (1 - residuals[1] / residuals[0].clamp_min(NONE)).clamp_min(0)
    return difference > MOST[0] + MOST[1] * won


def shares(residuals: Tensor, lights: Sequence[Tensor]) -> Tensor:
    """What kernels leave unexplained, as shares `(S,)` of what the first one does; noise, which none explains, apart.

    residuals: the `reblur_residual` of each, `(S,)`, summed over windows. lights: the luminance of each window,
        `(1, 1, h, w)`. Their noise counts for at most `MOST_NOISE` of the first residual: fine texture looks like it.
        Where it makes up `ALL_NOISE`, it is not taken out: kernels that leave less were fitted to it.
    """
    whole = residuals[0].clamp_min(NONE)
    noise = NOISE * torch.cat([noise_level(light) for light in lights]).sum() / whole
    part = noise.clamp_max(MOST_NOISE) * (noise < ALL_NOISE)
    return ((residuals / whole - part) / (1 - part)).clamp_min(0)


def seems_path(kernel: Tensor) -> bool:
    """Whether a kernel `(1, k, k)` that was read without the search may be all that the reader made out of a path: one
    of some width that is neither round nor straight. Soft blur and straight lines it knows better than least squares
    do. A thick and smooth path it sees as a cloud, and what the search found there instead was better.
    """
    spread, *elongation = shape_of(kernel[0])
    return bool(spread >= WIDE and ROUND < torch.stack(elongation).norm() <= LONG)


def favouring_first(kernels: Tensor, left: Tensor) -> int:
    """Index of the kernel, of `(S, k, k)`, that leaves least, by the `shares` `(S,)` that they leave unexplained. The
    first one, which was read without the search, has an advantage: others must leave less than `BETTER` of what it
    does; where it `seems_path`, those that are not `ALIKE` less than `SLIGHTLY`.
    """
    others = distances(kernels[:1], kernels) >= (ALIKE if seems_path(kernels[:1]) else math.inf)
    most = torch.where(others, SLIGHTLY, BETTER).to(left)
    most[0] = 1
    return int((left / most).argmin())


def uncertain(kernels: Tensor, left: Tensor, kept: int, blocks: bool) -> Tensor:
    """Whether the chosen kernel is too far from others that explain the photograph about as well, `(1,)`.

    kernels: all estimates `(S, k, k)`, the one without the search first. left: the `shares` that they leave
        unexplained, `(S,)`. kept: the index of the chosen one. blocks: whether those of JPEG show.

    Each estimate may be the true kernel, with odds that fall by a factor of e for every `SPREAD` of the first one's
    share. The chosen kernel's expected distance to the true one must be below `NEAR` times the share that it explains:
    where that is little, because the photograph hardly shows its blur, it must be more certain. Where it is little
    because blocks of JPEG are left, which no kernel explains, `NEAR_BLOCKS` times that share is enough; where the first
    one `seems_path`, a distance of `NEAR_PATH` is.

    The bounds (ours) were measured on 52 photographs of the training with blur of seven families.
    """
    odds = torch.softmax(-left / SPREAD, 0)
    expected = (odds * distances(kernels[kept, None], kernels)).sum(0, keepdim=True)
    enough = (NEAR_BLOCKS if blocks else NEAR) * (1 - left[kept])
    return expected > enough.clamp_min(NEAR_PATH if seems_path(kernels[:1]) else -math.inf)


def distances(kernel: Tensor, others: Tensor) -> Tensor:
    """Distance `(S,)` of `kernel` `(1, k, k)` to `others` `(S, k, k)`, whatever their shift: one minus the correlation
    of natural photographs blurred by both.
    """
    power = natural_power(SIZE, device=kernel.device)
    one, each = (transfer_function(kernels.float(), SIZE, SIZE) for kernels in (kernel, others))
    together = torch.fft.irfft2(one * each.conj() * power, s=(SIZE, SIZE)).amax((1, 2))
    alone = [torch.fft.irfft2(own.abs().square() * power, s=(SIZE, SIZE))[:, 0, 0] for own in (one, each)]
    return 1 - together / (alone[0] * alone[1]).sqrt()
