"""Blur that varies over the photograph: a kernel for every window."""

import torch
from torch import Tensor

from bd_diff.models.known_blur import WINDOW, window_grid, window_shares


@torch.no_grad()
def window_kernels(pipeline, pixels: Tensor, window: int = WINDOW, fast: bool = False) -> tuple[Tensor, Tensor]:
    """Kernels `(windows, B, k, k)` of pixels `(B, 3, H, W)` in [-1, 1], each read from its own window, and the shares
    `(windows, H, W)` of these (`KnownBlur`).
    """
    height, width = pixels.shape[-2:]
    grid = window_grid(height, width, window)
    windows = grid.cut(pixels, range(len(grid)))
    return torch.stack([pipeline.encode_image(one, fast).kernels for one in windows]), window_shares(grid).to(pixels)
