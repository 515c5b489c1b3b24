"""Photographs of one lens: the kernel that a folder of them told, for each that it explains."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bd_diff.blur.kernels import delta, same_size
from bd_diff.data.kernel_files import as_kernel
from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import BlurReading, calm_window
from bd_diff.reading.kernel_search import reblur_residual
from bd_diff.reading.pyramid import at_full_size

# Power of the sparsity in `reblur_residual`: of 0.1, 0.3, 0.5 and 0.7 the one at which the true kernels of five made
# lenses were on average likelier than when scaled by 0.8, 0.9, 1.1, 1.2 or 1.4 (ours). At 0.1, which the search takes,
# those of four were likelier when scaled by 0.9.
BALANCED = 0.5
# Share by which its own kernel must explain a photograph better than the lens's, by these powers of the sparsity: own
# kernels are chosen among many by how well they explain this one photograph, the lens's explains many. Either suffices:
# the first sees kernels that are too wide, the second those that are too narrow. On five made lenses, eight photographs
# each, so 36 of 40 photographs take their lens's kernel, and 18 of 160 another's (ours).
LENIENCE = {0.1: 0.03, BALANCED: 0.015}


def lens_kernel(lens: dict[str, Any]) -> Tensor:
    """The kernel `(1, k, k)` of a pipeline's `config.lens`, k 33 or more. Raises ValueError where it holds none."""
    if not isinstance(lens, dict) or set(lens) != {"kernel"}:
        raise ValueError(f"lens is {str(lens)[:40]}; it holds a kernel, rows of numbers")
    try:
        values = np.asarray(lens["kernel"], dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("lens has a kernel that is no table of numbers") from None
    return same_size([as_kernel(values, "lens")[None], delta(1)])[0]


def as_lens(kernel: Tensor) -> dict[str, list[list[float]]]:
    """A kernel `(1, k, k)` as a pipeline's `config.lens`."""
    return {"kernel": [[round(value, 7) for value in row] for row in kernel[0].tolist()]}


@torch.no_grad()
def with_lens(pipeline, pixels: Tensor, own: BlurReading) -> BlurReading:
    """The reading of one image `(1, 3, H, W)` in [-1, 1] with the kernel of `config.lens`, where that explains the
    image as well as the kernel of its own reading; else, and without a lens, its own reading.
    """
    if pipeline.config.lens is None:
        return own
    lens, read = same_size([lens_kernel(pipeline.config.lens).to(pixels.device), at_full_size(own)])
    if min(pixels.shape[-2:]) < 2 * lens.shape[-1]:
        return own  # too small to tell
    light = luminance(calm_window(pixels))
    for sparse, share in LENIENCE.items():
        if reblur_residual(light, read, sparse) < (1 - share) * reblur_residual(light, lens, sparse):
            return own
    sure = torch.zeros(1, dtype=torch.bool, device=pixels.device)
    return replace(own, kernels=lens, doubtful=sure, scale=None)
