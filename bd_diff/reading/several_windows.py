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
from bd_diff.reading.blur_reading import (
    CONFIDENT,
    BlurReading,
    calm_window,
    is_linear,
    search_blur,
    shows_blocks,
)
from bd_diff.reading.confidence import distances, favouring_first, shares, uncertain
from bd_diff.reading.kernel_search import reblur_residual, rich_windows
from bd_diff.reading.refinement import seen

SIDE, MOST = 256, 6  # pixels a side of a window of the search; windows at most
ALIKE = 0.03  # distance of kernels up to which two windows have found the same one (ours, measured)


@torch.no_grad()
def search_windows(pipeline, pixels: Tensor, free: BlurReading | None = None) -> BlurReading:
    """The blur of one image `(1, 3, H, W)` in [-1, 1] by `search_blur`; in a large one by several windows.

    They are searched one after another, those with most edges first, until two have found the same kernel; the mean of
    theirs is one more. The kernel that leaves least of all these windows `unexplained` wins; the reading without the
    search, `free`, keeps its advantage. Where that stands after the first window, there are no more.
    """
    windows = list(windows_of(pixels, SIDE))
    if len(windows) < 2:
        return search_blur(pipeline, pixels, free=free)
    free = pipeline.read_blur(pixels) if free is None else free
    assert free is not None
    readings = [search_blur(pipeline, pixels, free=free)]
    if readings[0].kernels is free.kernels and not readings[0].doubtful:
        return readings[0]
    for window in windows[1:]:
        readings.append(search_blur(pipeline, window))
        if (same := found_twice(kernels_of(readings))) is not None:
            windows = windows[: len(readings)]
            readings.append(replace(readings[-1], kernels=same))
            break
    kernels = kernels_of([free, *readings])
    linear = 2 * sum(is_linear(one) for one in readings) > len(readings)
    calm = [calm_window(one) for one in windows]
    left = unexplained(calm, kernels, linear)
    index = favouring_first(torch.cat(kernels), left)
    chosen = replace(readings[max(index - 1, 0)], linear=torch.full((1,), linear, device=pixels.device))
    doubtful = chosen.doubtful
    if any(one.search_confidence is not None and one.search_confidence > CONFIDENT for one in readings):
        doubtful = uncertain(torch.cat(kernels), left, index, all(shows_blocks(one) for one in calm))
    return replace(chosen, kernels=kernels[0 if doubtful else index], doubtful=doubtful)


def windows_of(pixels: Tensor, side: int) -> Iterator[Tensor]:
    """Windows `(1, 3, side, side)` of one image `(1, 3, H, W)` that do not overlap, those with most edges first.

    There are as many as the image has room for squares of twice their sides, but from one to `MOST`.
    """
    count = min(MOST, max(1, pixels.shape[-2] * pixels.shape[-1] // (2 * side) ** 2))
    return (pixels[place] for place in islice(rich_windows(luminance(pixels), side), count))


def kernels_of(readings: list[BlurReading]) -> list[Tensor]:
    """The kernels `(1, k, k)` of each."""
    return [one.kernels for one in readings if one.kernels is not None]  # there is a blur decoder


def found_twice(kernels: list[Tensor]) -> Tensor | None:
    """The mean of the last one of kernels `(1, k, k)` and those before that are about the same; None without these."""
    *others, last = kernels
    alike = [one for one in others if distances(last, one) < ALIKE]
    return torch.cat([last, *alike]).mean(0, keepdim=True) if alike else None


def unexplained(windows: list[Tensor], kernels: list[Tensor], linear: bool) -> Tensor:
    """The `shares` that kernels `(1, k, k)` leave unexplained in all of these windows `(1, 3, h, w)` in [0, 1], seen in
    display values or `linear` light: `(S,)`.

    So a window counts by how much better one kernel explains it than another: noise and flat parts hardly do.
    """
    lights = [seen(window, linear) for window in windows]
    residuals = [torch.stack([reblur_residual(light, one) for light in lights]).sum(0) for one in kernels]
    return shares(torch.cat(residuals), lights)
