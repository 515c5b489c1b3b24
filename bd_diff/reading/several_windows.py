"""Several windows of a large photograph that vote for its blur, each by how much it shows.

What one window shows may be a fence, leaves or a front of windows, whose regular texture is taken for blur. Kernels
that are wrong in this way differ from window to window, and the right one does not (ours).
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import BETTER, CONFIDENT, BlurReading, calm_window, search_blur
from bd_diff.reading.confidence import distances, uncertain
from bd_diff.reading.kernel_search import reblur_residual, rich_windows

SIDE, MOST = 256, 6  # pixels a side of a window of the search; windows at most
ALIKE = 0.03  # distance of kernels up to which two windows have found the same one (ours, measured)


@torch.no_grad()
def search_windows(pipeline, pixels: Tensor, free: BlurReading | None = None) -> BlurReading:
    """The blur of one image `(1, 3, H, W)` in [-1, 1] by `search_blur`; in a large one by several windows.

    They are searched one after another, those with most edges first, until two have found the same kernel. The kernel
    with the smallest `unexplained` share of them all wins; the reading without the search, `free`, keeps its advantage.
    Where that stands after the first window there are no more.
    """
    windows = list(windows_of(pixels, SIDE))
    if len(windows) < 2:
        return search_blur(pipeline, pixels, free=free)
    free = pipeline.read_blur(pixels) if free is None else free
    assert free is not None and free.kernels is not None  # there is a blur decoder
    readings = [search_blur(pipeline, pixels, free=free)]
    if readings[0].kernels is free.kernels and not readings[0].doubtful:
        return readings[0]
    for window in windows[1:]:
        readings.append(search_blur(pipeline, window))
        if found_before([one.kernels for one in readings]):
            break
    kernels = [one.kernels for one in (free, *readings)]
    residuals = unexplained([calm_window(one) for one in windows[: len(readings)]], kernels)
    index = int((residuals * residuals.new_tensor([BETTER] + [1.0] * len(readings))).argmin())
    chosen = readings[max(index - 1, 0)]
    doubtful = chosen.doubtful
    if any(one.search_confidence > CONFIDENT for one in readings):
        doubtful = uncertain(torch.cat(kernels), residuals, index)
    return replace(chosen, kernels=kernels[0 if doubtful else index], doubtful=doubtful)


def windows_of(pixels: Tensor, side: int) -> Iterator[Tensor]:
    """Windows `(1, 3, side, side)` of one image `(1, 3, H, W)` that do not overlap, those with most edges first.

    There are as many as the image has room for squares of twice their sides, but from one to `MOST`.
    """
    count = min(MOST, max(1, pixels.shape[-2] * pixels.shape[-1] // (2 * side) ** 2))
    return (pixels[place] for place in islice(rich_windows(luminance(pixels), side), count))


def found_before(kernels: list[Tensor]) -> bool:
    """Whether the last one of kernels `(1, k, k)` is about the same as another."""
    *others, last = kernels
    return bool(others) and bool((distances(last, torch.cat(others)) < ALIKE).any())


def unexplained(windows: list[Tensor], kernels: list[Tensor]) -> Tensor:
    """The `reblur_residual` of each kernel `(1, k, k)`, summed over windows `(1, 3, h, w)` in [0, 1], as `(S,)`.

    So a window counts by how much better one kernel explains it than another: noise and flat parts hardly do.
    """
    lights = [luminance(window) for window in windows]
    return torch.stack([sum(reblur_residual(light, one)[0] for light in lights) for one in kernels])
