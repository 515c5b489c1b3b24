"""Blur of any width: read at several scales, believed where the scales agree, used at the finest of these.

The networks and the search read kernels of up to 33 pixels, and a wider blur is one of that width in the photograph
made smaller. Nor can noise and JPEG, which hide a blur at full size, follow it there. A blur that was read at one scale
must be seen at the next one, larger by their ratio; a reading that is wrong is not (ours).
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.convolution import reaches
from bd_diff.blur.kernels import SIZE, delta, same_size, shape_of
from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import (
    CONFIDENT,
    BlurReading,
    calm_window,
    is_linear,
    search_blur,
)
from bd_diff.reading.confidence import BETTER, distances
from bd_diff.reading.kernel_search import SMALLEST_WINDOW, best_window, reblur_residual, resize_kernels
from bd_diff.reading.refinement import refine
from bd_diff.reading.several_windows import found_twice, search_windows, unexplained, windows_of
from bd_diff.reading.verdict import extents, is_nothing

RATIO = math.sqrt(0.5)  # of one scale to the next
COARSEST, SMALLEST_SIDE = 6, 96  # steps; pixels a side of what blur is read from
AGREEING, GROWTH, SMALL = 0.025, 1.17, 1.5  # see `agree` (all that follow: ours, measured on training photographs)
HALVES, FITS = (1.0, 0.5, 0.25, 0.125), 20  # scales of the search; pixels: a wider kernel is looked for at the next
NEAR = 0.05  # distance of kernels from which on a reading contradicts that of a coarser scale
LEAST = 0.6  # share of the free kernel's extent below which what the search found must explain the image better, too
WIDE = 15  # pixels: a kernel that reaches so far at half or a quarter of the size is carried up, where scales disagree
REFUTED = 2.5  # times what no blur leaves: right kernels leave 1.2, at night 1.9; rows of bricks taken for a blur 3.0
PLAIN = 2 / 255  # what is less apart is one colour
WINDOW = 8  # times a kernel's size, pixels a side of the window in which it is refined


@torch.no_grad()
def read_at_scales(pipeline, pixels: Tensor, search: bool = True) -> BlurReading:
    """The blur of one image `(1, 3, H, W)` in [-1, 1], with kernels of the image made smaller by `scale` `(1,)`.

    The free readings, without the search, of neighbouring scales are compared from the coarsest on: the first run of
    agreeing ones is the blur, and its finest reading is where one fits. Where no scales agree, the blur is what is read
    from the whole image, or a wide one that the search finds at a coarse scale. Finer scales are not read. A picture of
    one colour shows no blur.
    """
    if (pixels.amax((-2, -1)) - pixels.amin((-2, -1))).max() < PLAIN:
        nothing = delta(1, device=pixels.device)
        return BlurReading(nothing, doubtful=nothing.new_zeros(1, dtype=torch.bool))
    search = search and min(pixels.shape[-2:]) >= SMALLEST_WINDOW
    count = min(COARSEST, int(math.log(min(pixels.shape[-2:]) / SMALLEST_SIDE, 1 / RATIO)))
    if count < 1:
        return search_blur(pipeline, pixels) if search else pipeline.read_blur(pixels)
    scales = [RATIO**step for step in range(count, -1, -1)]

    @cache
    def free(index: int) -> BlurReading:
        return pipeline.read_blur(reduced(pixels, scales[index]))

    finest = finest_agreeing(kernel_of(free(index)) for index in range(count + 1))
    if finest is not None and finest < count and refuted(reduced(pixels, scales[finest]), kernel_of(free(finest))):
        finest = None
    if finest is None and not search:
        return free(count)
    if finest is None:
        seems_wide = max(reach(kernel_of(free(index))) for index in range(2)) >= WIDE / 2
        wide = found_wide(pipeline, pixels) if seems_wide else None
        return wide or search_windows(pipeline, pixels, free=free(count))
    scale, coarse = scales[finest], free(finest)
    extent = reach(kernel_of(coarse)) / scale  # pixels, at full size
    if not search and extent > SIZE:
        return at_scale(coarse, scale)
    if search:
        sizes = [one for one in HALVES if min(pixels.shape[-2:]) * one >= SMALLEST_WINDOW]
        nearest = next((one for one in sizes if extent * one <= FITS), sizes[-1])
        read = free(count - 2 * HALVES.index(nearest))  # two scales are a half
        seen = reduced(pixels, nearest)
        found = search_windows(pipeline, seen, free=read)
        won = is_shake(found)
        if won and reach(kernel_of(found)) < LEAST * extent * nearest:
            won = better(seen, found, enlarged(kernel_of(coarse), nearest / scale))
    else:
        nearest, found, won = 1.0, free(count), False
    if won and nearest < 1:
        return carry(pipeline, pixels, found, nearest) or at_scale(found, nearest)
    if nearest == 1 and (won or apart(kernel_of(coarse), kernel_of(found), 1 / scale) <= NEAR):
        return found
    return at_scale(coarse, scale)


def at_scale(reading: BlurReading, scale: float) -> BlurReading:
    """A reading that is beyond doubt, of the image made smaller by `scale`."""
    ones = kernel_of(reading).new_ones(1)
    return replace(reading, doubtful=ones < 0, scale=ones * scale)


def finest_agreeing(kernels: Iterable[Tensor]) -> int | None:
    """Index of the last of the first ones that agree with their neighbours, coarse to fine; None where none do. No more
    of them are taken than are needed.
    """
    last = None
    for index, (coarse, fine) in enumerate(pairwise(kernels), start=1):
        if agree(coarse, fine):
            last = index
        elif last is not None:
            break
    return last


def agree(coarse: Tensor, fine: Tensor) -> bool:
    """Whether two kernels `(1, k, k)` are the same blur, the second seen 1 / `RATIO` times larger. A reading at its
    limit grows no more, and no blur agrees with nothing.
    """
    before, after = (spread(kernel) for kernel in (coarse, fine))
    grown = after >= GROWTH * before or before < SMALL
    return reach(coarse) > 2 and grown and apart(coarse, fine, 1 / RATIO) <= AGREEING


def refuted(pixels: Tensor, kernel: Tensor) -> bool:
    """Whether a kernel `(1, k, k)` explains the image `(1, 3, H, W)` in [-1, 1] much worse than no blur does: what is
    sharp has detail that the blur would have taken away. Regular texture, such as rows of bricks, looks like blur at
    every scale.
    """
    light = (luminance(pixels) + 1) / 2
    light = light[best_window(light)]
    nothing = delta(1, kernel.shape[-1], pixels.device)
    return bool(reblur_residual(light, kernel) > REFUTED * reblur_residual(light, nothing))


def better(pixels: Tensor, found: BlurReading, other: Tensor) -> bool:
    """Whether what was found explains the image `(1, 3, H, W)` in [-1, 1] clearly better than a kernel `(1, k, k)`."""
    left = unexplained([calm_window(pixels)], [other, kernel_of(found)], is_linear(found))
    return bool(left[1] < BETTER * left[0])


def apart(coarse: Tensor, fine: Tensor, ratio: float) -> float:
    """Distance (`confidence.distances`) of a kernel `(1, k, k)` enlarged by `ratio` to another."""
    return float(distances(*same_size([enlarged(coarse, ratio), fine])))


def reach(kernels: Tensor) -> int:
    """The larger extent in pixels of one kernel `(1, k, k)`."""
    return max(extents(kernels[0]))


def spread(kernel: Tensor) -> float:
    """Standard deviation in pixels of a kernel `(1, k, k)`."""
    return float(shape_of(kernel[0])[0])


def kernel_of(reading: BlurReading) -> Tensor:
    """Its kernels `(1, k, k)`."""
    assert reading.kernels is not None  # there is a blur decoder
    return reading.kernels


def is_shake(reading: BlurReading) -> bool:
    """Whether the search found a shake, without doubt (see `search_blur`)."""
    return sees_shake(reading) and not reading.doubtful


def sees_shake(reading: BlurReading) -> bool:
    """Whether the search found a shake, in doubt or not."""
    return reading.search_confidence is not None and bool(reading.search_confidence > CONFIDENT)


def at_full_size(reading: BlurReading) -> Tensor:
    """Kernels `(B, k, k)` of images themselves, whatever scale they were read at. No blur stays none."""
    kernels = kernel_of(reading)
    if reading.scale is None or reading.scale.min() == 1:
        return kernels
    each = zip(kernels.split(1), reading.scale.tolist(), strict=True)
    return torch.cat(same_size([one if is_nothing(one) else enlarged(one, 1 / scale) for one, scale in each]))


def enlarged(kernels: Tensor, ratio: float) -> Tensor:
    """Kernels `(B, k, k)` of an image `ratio` times larger."""
    return resize_kernels(kernels, enlarged_size(kernels, ratio), ratio)


def enlarged_size(kernels: Tensor, ratio: float) -> int:
    """Pixels a side, an odd number, that hold kernels `(B, k, k)` made larger by `ratio`."""
    return 2 * math.ceil(kernels.shape[-1] // 2 * ratio - 1e-3) + 1


def trimmed(kernels: Tensor) -> Tensor:
    """Kernels `(B, k, k)` without margins of zeros, but for at least `SIZE` pixels a side: tiles need no more pixels
    around them than they have to.
    """
    beyond = max(0, kernels.shape[-1] // 2 - max(int(reaches(kernels).max()), SIZE // 2))
    return kernels[:, beyond : kernels.shape[-1] - beyond, beyond : kernels.shape[-1] - beyond]


def found_wide(pipeline, pixels: Tensor) -> BlurReading | None:
    """A blur that the search finds without doubt at a quarter or half of the size, and too wide for the next scale,
    carried to full size; None where there is none.
    """
    for scale in HALVES[2:0:-1]:
        if min(pixels.shape[-2:]) * scale >= SMALLEST_WINDOW:
            coarse = search_windows(pipeline, reduced(pixels, scale))
            if coarse.doubtful or reach(kernel_of(coarse)) < WIDE:
                continue
            if carried := carry(pipeline, pixels, coarse, scale):
                return carried
    return None


def carry(pipeline, pixels: Tensor, coarse: BlurReading, scale: float) -> BlurReading | None:
    """A reading of the image made smaller by `scale`, one of `HALVES`, with its kernel at full size: enlarged step by
    step and refined at each (coarse to fine, as in Fergus et al. 2006), in a large image in several windows, until two
    lead to the same kernel; None where no kernel explains these better than no blur does.
    """
    kernels, linear = kernel_of(coarse), is_linear(coarse)
    while scale < 1:
        scale, larger = 2 * scale, enlarged(kernels, 2)
        size = larger.shape[-1]
        windows: list[Tensor] = []
        candidates, refined = [delta(1, size, pixels.device), larger], []
        for window in windows_of(reduced(pixels, scale), WINDOW * size):
            windows.append(calm_window(window, WINDOW * size))
            if not is_shake(coarse):
                break
            candidates.append(refine(pipeline, windows[-1], larger, linear))
            refined.append(refine(pipeline, windows[-1], candidates[-1], linear))
            if (same := found_twice(refined)) is not None:
                candidates.append(same)
                break
        candidates += refined
        best = int(unexplained(windows, candidates, linear).argmin())
        if best == 0:
            return None
        kernels = trimmed(candidates[best])
    return replace(coarse, kernels=kernels)


def reduced(images: Tensor, scale: float) -> Tensor:
    """Images `(B, C, H, W)` in [-1, 1] or [0, 1] made smaller, without aliasing, within that range."""
    if scale == 1:
        return images
    shape = [round(side * scale) for side in images.shape[-2:]]
    return F.interpolate(images, size=shape, mode="bilinear", antialias=True).clamp_(-1, 1)


def enlarged_change(before: Tensor, after: Tensor, images: Tensor) -> Tensor:
    """Images `(B, 3, H, W)` with what changed from `before` to `after`, both of them made smaller. Detail that is finer
    than these, such as that across a motion, stays.
    """
    return F.interpolate(after - before, size=images.shape[-2:], mode="bicubic").add_(images)
