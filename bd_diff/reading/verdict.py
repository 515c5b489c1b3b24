"""What was found of a photograph's blur, in words."""

import torch
from torch import Tensor

from bd_diff.blur.kernels import delta

NOTHING, DOUBT, WIDE = "no blur found", "blur in doubt, half of the photograph kept", "blur wider than can be read"
DIFFERS = "blur differs over the picture"
POINT = 0.99  # share of a kernel in one pixel above which it is no blur; at 0.98 deblurring still gains (measured)
SHOWN = 0.05  # of the largest value: below, a pixel does not count to a kernel's extent


def is_nothing(kernels: Tensor, *unless: Tensor | None) -> Tensor:
    """Which of kernels `(B, k, k)` are no blur, but for those of which any of `unless` `(B,)` is true, as booleans
    `(B,)`.
    """
    nothing = kernels.amax((-2, -1)) > POINT * kernels.sum((-2, -1))
    for other in unless:
        nothing = nothing if other is None else nothing & ~other
    return nothing


def as_nothing(stays: Tensor, kernels: Tensor, *marks: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
    """Kernels `(B, k, k)` and what is true of them, each `(B,)`, but no blur where an image `stays` `(B,)` as it is."""
    stays, nothing = stays.to(kernels.device), delta(1, kernels.shape[-1]).to(kernels)
    kernels = torch.where(stays[:, None, None], nothing, kernels)
    return kernels, [None if mark is None else mark & ~stays for mark in marks]


def extents(kernel: Tensor) -> tuple[int, int]:
    """Width and height in pixels of what shows of a kernel `(k, k)`."""
    shown = kernel > SHOWN * kernel.max()
    columns, rows = (shown.any(axis).nonzero() for axis in (0, 1))
    return int(columns.max() - columns.min()) + 1, int(rows.max() - rows.min()) + 1


def verdict(kernel: Tensor, doubtful: bool = False, differs: bool = False) -> str:
    """One of `NOTHING`, `DOUBT`, `WIDE` or "blur of 12 x 7 pixels" for a kernel `(k, k)` that was found; for one of
    several "blur differs over the picture, 12 x 7 pixels in the middle", or "none in the middle".
    """
    if differs and is_nothing(kernel):
        return f"{DIFFERS}, none in the middle"
    if differs:
        width, height = extents(kernel)
        return f"{DIFFERS}, {width} x {height} pixels in the middle"
    if doubtful:
        return DOUBT
    if is_nothing(kernel):
        return NOTHING
    width, height = extents(kernel)
    if max(width, height) >= kernel.shape[-1] - 1:
        return WIDE
    return f"blur of {width} x {height} pixels"
