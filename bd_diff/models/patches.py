"""Kernels as square patches: how many, where each lies, and a code of its place. A larger kernel has more of them."""

import math

import torch
from torch import Tensor

PATCH = 5  # pixels a side: a token of 128 numbers holds the 25 of a patch with room to spare
WAVELENGTHS = 8  # of the code of a place, from two patches to a few hundred pixels


def patches_a_side(size: int) -> int:
    """Of a kernel of `size` pixels a side: an odd number, so that the middle pixel stays in the middle."""
    count = -(-size // PATCH)
    return count + 1 - count % 2


def patch_rows(count: int) -> int:
    """Patches a side where `count` features or tokens hold all patches and perhaps a few more at the end."""
    return math.isqrt(count)


def places(rows: int, device=None) -> Tensor:
    """Middles of `rows` x `rows` patches `(rows^2, 2)`, row by row, in patches from the kernel's middle."""
    offsets = torch.arange(rows, dtype=torch.float32, device=device) - rows // 2
    return torch.cartesian_prod(offsets, offsets)


def place_codes(where: Tensor) -> Tensor:
    """Sines and cosines `(N, 4 * WAVELENGTHS)` of places `(N, 2)`, for any place (as in Vaswani et al. 2017)."""
    frequencies = math.pi * 2.0 ** -torch.arange(WAVELENGTHS, dtype=torch.float32, device=where.device)
    angles = (where[:, :, None] * frequencies).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], 1)
