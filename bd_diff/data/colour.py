"""Colour correction: a result takes the colours of its photograph, where a network has shifted them."""

import torch
import torch.nn.functional as F
from torch import Tensor

FIXES = ("none", "wavelet", "adain")
LEVELS = 5  # of the wavelet transform: colours coarser than 2^5 pixels are the photograph's
SMALLEST_SPREAD = 1e-5


def fix_colours(results: Tensor, images: Tensor, fix: str, strength: float = 1.0) -> Tensor:
    """Results `(B, 3, H, W)` in [0, 1] with colours of their photographs `images`, of the same shape.

    fix: "none"; "wavelet" takes what is coarser than 32 pixels from the photograph (as StableSR, arXiv 2305.07015);
    "adain" gives each channel the photograph's mean and spread (arXiv 1703.06868). strength: 0 leaves the result as it
    is, 1 is the whole fix. Raises `ValueError` for another fix or strength.
    """
    if fix not in FIXES:
        raise ValueError(f"the colour fix is {fix}; it must be one of {', '.join(FIXES)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of the colour fix is {strength}; it must be between 0 and 1")
    if fix == "none":
        return results
    images = images.to(results)
    fixed = results - coarse(results) + coarse(images) if fix == "wavelet" else adain(results, images)
    return results.lerp(fixed, strength).clamp(0, 1)


def coarse(images: Tensor) -> Tensor:
    """The low frequencies of `(B, C, H, W)` after `LEVELS` of the a-trous wavelet transform with the kernel 1 2 1."""
    kernel = images.new_tensor([1, 2, 1]) / 4
    channels = images.shape[1]
    for level in range(LEVELS):
        for weight in (kernel.reshape(1, 1, 3, 1), kernel.reshape(1, 1, 1, 3)):
            rows, columns = (2**level if side > 1 else 0 for side in weight.shape[-2:])
            padded = F.pad(images, (columns, columns, rows, rows), mode="replicate")
            images = F.conv2d(padded, weight.expand(channels, -1, -1, -1), dilation=2**level, groups=channels)
    return images


def adain(results: Tensor, images: Tensor) -> Tensor:
    """Results with the mean and standard deviation that each channel has in the photograph."""
    spread, mean = torch.std_mean(results, dim=(-2, -1), keepdim=True)
    wanted_spread, wanted_mean = torch.std_mean(images, dim=(-2, -1), keepdim=True)
    return (results - mean) / spread.clamp_min(SMALLEST_SPREAD) * wanted_spread + wanted_mean
