"""Kernels as they are estimated: beside the truth, too sharp or too soft, cut off, with a path that is partly wrong.

A restorer that is only ever given true kernels believes them; one that has seen such mistakes knows how far to.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from bd_diff.blur.kernels import normalize

TRUE = 0.3  # share of the kernels that stay as they are; each mistake is made in a share of `OFTEN` of the others
OFTEN = 0.4


def disturb_kernels(kernels: Tensor, generator: Generator) -> Tensor:
    """Kernels `(B, k, k)` as an estimate would have them, of the same kind; ranges are ours, after estimates that were
    looked at. Drawn on the CPU generator.
    """
    estimates = kernels
    for mistake in (misplace, mix, soften, sharpen, prune):
        made = mistake(estimates, generator)
        estimates = torch.where(chosen(len(kernels), OFTEN, generator, kernels.device), made, estimates)
    return torch.where(chosen(len(kernels), TRUE, generator, kernels.device), kernels, normalize(estimates))


def thicken(kernels: Tensor, generator: Generator, share: float = 0.3, most: float = 1.5) -> Tensor:
    """A share of kernels `(B, ..., k, k)` blurred by a Gaussian of sigma 0.3 to `most` pixels: the cameras that have
    been measured draw thicker paths than a point's (Levin et al. 2009).
    """
    flat = kernels.flatten(1, -3) if kernels.ndim > 3 else kernels[:, None]  # (B, n, k, k)
    sigma = 0.3 + (most - 0.3) * torch.rand(len(flat), generator=generator)
    thick = normalize(smooth(flat, sigma.to(kernels.device)))
    picked = chosen(len(flat), share, generator, kernels.device)[..., None]
    return torch.where(picked, thick, flat).view_as(kernels)


def chosen(batch: int, share: float, generator: Generator, device) -> Tensor:
    """A share of the batch, as booleans `(B, 1, 1)`."""
    return (torch.rand(batch, 1, 1, generator=generator) < share).to(device)


def misplace(kernels: Tensor, generator: Generator) -> Tensor:
    """Each place moved by up to some pixels: all alike by 0.3 (standard deviation), and smoothly differing by 0.7."""
    batch, size = len(kernels), kernels.shape[-1]
    shift = 0.3 * torch.randn(batch, 2, 1, 1, generator=generator)
    bend = 0.7 * F.interpolate(
        torch.randn(batch, 2, 5, 5, generator=generator), (size, size), mode="bicubic", align_corners=True
    )
    moves = (shift + bend).to(kernels.device).movedim(1, -1) / (size // 2)  # (B, k, k, 2)
    axis = torch.linspace(-1, 1, size, device=kernels.device)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([columns, rows], -1) + moves
    return F.grid_sample(kernels[:, None], places, align_corners=True, padding_mode="zeros")[:, 0]


def mix(kernels: Tensor, generator: Generator) -> Tensor:
    """Up to a third of another kernel of the batch mixed in."""
    share = torch.rand(len(kernels), 1, 1, generator=generator).to(kernels.device) / 3
    return kernels.lerp(kernels.roll(1, 0), share)


def soften(kernels: Tensor, generator: Generator) -> Tensor:
    """Blurred by a Gaussian of sigma 0.2 to 0.9 pixels."""
    sigma = 0.2 + 0.7 * torch.rand(len(kernels), generator=generator)
    return smooth(kernels[:, None], sigma.to(kernels.device))[:, 0]


def sharpen(kernels: Tensor, generator: Generator) -> Tensor:
    """Raised to a power of 1 to 1.6: the strong grow stronger."""
    power = 1 + 0.6 * torch.rand(len(kernels), 1, 1, generator=generator).to(kernels.device)
    most = kernels.amax((-2, -1), keepdim=True).clamp_min(1e-8)
    return normalize((kernels / most) ** power)


def prune(kernels: Tensor, generator: Generator) -> Tensor:
    """What lies below up to a tenth of the largest value set to zero."""
    floor = 0.1 * torch.rand(len(kernels), 1, 1, generator=generator).to(kernels.device)
    return normalize(kernels * (kernels >= floor * kernels.amax((-2, -1), keepdim=True)))


def smooth(kernels: Tensor, sigma: Tensor) -> Tensor:
    """Kernels `(B, n, k, k)` convolved with Gaussians of `sigma` `(B,)` pixels, those of one `B` alike."""
    offsets = torch.arange(-4.0, 5.0, device=kernels.device)
    profile = torch.exp(-offsets.square() / (2 * sigma[:, None].square()))
    profile = profile / profile.sum(1, keepdim=True)  # (B, 9)
    batch, count, size, _ = kernels.shape
    lines = kernels.movedim(0, 1).reshape(count, batch, size, size)
    lines = F.conv2d(lines, profile[:, None, :, None], padding=(4, 0), groups=batch)
    lines = F.conv2d(lines, profile[:, None, None, :], padding=(0, 4), groups=batch)
    return lines.movedim(1, 0)
