"""Blur that varies over the photograph: a kernel for every window, and their blended deconvolutions."""

import torch
from torch import Tensor

from bd_diff.data.tiles import CONTEXT, Grid
from bd_diff.models.conditioning import deblur_guesses

WINDOW = 256  # pixels a side that one kernel is read from; neighbours share half of it


def window_grid(height: int, width: int, window: int = WINDOW) -> Grid:
    """Windows that overlap by half, with weights that rise and fall linearly and sum to one everywhere."""
    return Grid(height, width, window, window // 2)


@torch.no_grad()
def window_kernels(pipeline, pixels: Tensor, window: int = WINDOW, fast: bool = False) -> Tensor:
    """Kernels `(windows, B, k, k)` of pixels `(B, 3, H, W)` in [-1, 1], each read from its own window."""
    height, width = pixels.shape[-2:]
    grid = window_grid(height, width, window)
    return torch.stack([pipeline.encode_image(part, fast).kernels for part in grid.cut(pixels, range(len(grid)))])


def blend(pixels: Tensor, kernels: Tensor, window: int = WINDOW, guess=deblur_guesses) -> Tensor:
    """`guess(pixels, kernels)` `(B, G, 3, H, W)`, each window computed with its own kernels `(windows, B, k, k)`.

    A window is computed with `CONTEXT` pixels around it, so that its border is as good as its middle, and blended
    linearly into its neighbours: where all kernels are the same no seams are visible.
    """
    height, width = pixels.shape[-2:]
    grid = window_grid(height, width, window)
    blended: Tensor | None = None
    for index, own in enumerate(kernels):
        region, inside = grid.around(index, CONTEXT)
        part = guess(pixels[region], own)[inside]
        if blended is None:
            blended = part.new_zeros(*part.shape[:-2], height, width)
        grid.paste(blended, part[None], [index])
    assert blended is not None  # every image has a window
    return blended


def varying_guesses(
    pipeline, pixels: Tensor, kernels: Tensor, window: int = WINDOW, fast: bool = False, guess=deblur_guesses
) -> Tensor:
    """`guess` with a kernel estimated in every window; the `kernels` of the whole image are not used."""
    return blend(pixels, window_kernels(pipeline, pixels, window, fast), window, guess)
