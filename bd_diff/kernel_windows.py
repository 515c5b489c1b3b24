"""Blur that varies over the photograph: a kernel for every window, and one picture of all their deconvolutions."""

import torch
from torch import Tensor

from bd_diff.conditioning import deblur_guesses
from bd_diff.tiles import CONTEXT, Grid

WINDOW = 256  # pixels a side that one kernel is read from; neighbours share half of it


def window_grid(height: int, width: int, window: int = WINDOW) -> Grid:
    """Windows that overlap by half, with weights that rise and fall linearly and sum to one everywhere."""
    return Grid(height, width, window, window // 2)


@torch.no_grad()
def window_kernels(pipeline, pixels: Tensor, window: int = WINDOW, fast: bool = False) -> Tensor:
    """Kernels `(windows, B, k, k)` of pixels `(B, 3, H, W)` in [-1, 1], each read from its own window."""
    grid = window_grid(*pixels.shape[-2:], window)
    return torch.stack([pipeline.encode_image(part, fast).kernels for part in grid.cut(pixels, range(len(grid)))])


def blend(pixels: Tensor, kernels: Tensor, window: int = WINDOW, guess=deblur_guesses) -> Tensor:
    """`guess(pixels, kernels)` `(B, G, 3, H, W)` with the kernels of each window `(windows, B, k, k)` in its place.

    Every window is worked on with `CONTEXT` pixels around it, so that its border is as good as its middle, and its
    result is faded into its neighbours': where all kernels are the same there is nothing to see.
    """
    height, width = pixels.shape[-2:]
    grid, blended = window_grid(height, width, window), None
    for index, own in enumerate(kernels):
        region, inside = grid.around(index, CONTEXT)
        part = guess(pixels[region], own)[inside]
        if blended is None:
            blended = part.new_zeros(*part.shape[:-2], height, width)
        grid.paste(blended, part[None], [index])
    return blended
