"""A blur kernel cut into square patches: how many, where each lies, and a code of its place."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 5  # pixels a side: a token of 128 numbers holds the 25 of a patch with room to spare
WAVELENGTHS = 8  # of the code of a place, from two patches to a few hundred


def patches_a_side(size: int) -> int:
    """Of a kernel of `size` pixels a side: an odd number, so that its middle pixel stays in the middle."""
    count = -(-size // PATCH)
    return count + 1 - count % 2


def to_patches(maps: Tensor) -> Tensor:
    """Maps `(B, C, k, k)` of a kernel, with margins of zeros to whole patches."""
    size = maps.shape[-1]
    return F.pad(maps, ((PATCH * patches_a_side(size) - size) // 2,) * 4)


def from_patches(maps: Tensor, size: int) -> Tensor:
    """Maps `(B, C, size, size)` without those margins."""
    margin = (maps.shape[-1] - size) // 2
    return maps[..., margin : margin + size, margin : margin + size]


def places(count: int, device=None) -> Tensor:
    """Middles `(count, 2)` of the patches of a kernel, row by row, in patches from the kernel's middle."""
    rows = math.isqrt(count)
    offsets = torch.arange(rows, dtype=torch.float32, device=device) - rows // 2
    return torch.cartesian_prod(offsets, offsets)


def place_codes(where: Tensor) -> Tensor:
    """Sines and cosines `(N, 4 * WAVELENGTHS)` of places `(N, 2)`, for any place (as in Vaswani et al. 2017)."""
    frequencies = math.pi * 2.0 ** -torch.arange(WAVELENGTHS, dtype=torch.float32, device=where.device)
    angles = (where[:, :, None] * frequencies).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], 1)
