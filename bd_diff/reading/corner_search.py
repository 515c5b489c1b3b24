"""Which kernel is that of the whole photograph, where its corners contradict the one that was found.

The search reads the window with most edges. A thing that moves by itself has edges there that the background has not,
and a blur of its own. What such a window misleads the search to explains the rest no better than its turned copies do
(`turned_copies`): so the corners are searched, too, and the kernel is that which explains the photograph best against
its copies (ours).
"""

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import BlurReading, search_blur
from bd_diff.reading.confidence import distances
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.differing_blur import ROUNDS, Places, corner_windows
from bd_diff.reading.kernel_search import SMALLEST_WINDOW
from bd_diff.reading.moving_things import is_line
from bd_diff.reading.pyramid import kernel_of, reduced, sees_shake
from bd_diff.reading.refuted import LONGEST, fits
from bd_diff.reading.turned_copies import RIGHT, SUSPECT, left_where_sure

ASTRAY = 0.012  # median distance, see `astray`: where the kernel is right it is up to 0.01 (ours, measured on training
# photographs)
SECOND = 256  # pixels a side of the windows that are searched where smaller ones find nothing that is right


@torch.no_grad()
def ask_corners(pipeline, pixels: Tensor, reading: BlurReading) -> tuple[BlurReading, bool]:
    """One image `(1, 3, H, W)` in [-1, 1] and its `reading`: the reading again, and whether the corners say that the
    blur is not this, or not everywhere.

    Where they contradict its kernel (`astray`), or it hardly explains more than its copies do, it has the kernel of
    which that is least true, or is in doubt where it is true of all. Else, and where its own kernel is that, blur may
    differ if a corner is explained clearly better by a kernel of its own; and where the best one is a line, which a
    corner sees of a camera that turned. A shake that is in doubt is looked for, too, and taken if it `fits`: of wider
    ones windows tell less.
    """
    scale = 1.0 if reading.scale is None else float(reading.scale)
    pixels = reduced(pixels, scale)
    if reading.doubtful and sees_shake(reading) and (places := Places.over(*pixels.shape[-2:])) is not None:
        winner = found_at_corners(pipeline, pixels, [], places.window)
        if winner is None or not fits(kernel_of(winner)):
            return reading, False
        return winning(reading, winner), True
    corners = corner_windows(pipeline, pixels, reading)
    if corners is None:
        return reading, False
    own = first = corners.refined(corners.kernels)
    for _ in range(ROUNDS - 1):
        own = corners.refined(own)
    differs = corners.better(first)
    found = replace(reading, kernels=corners.kernels[:1])
    if not astray(corners.kernels[:1], own) and (left_by(found, lights_of(pixels)) or 0) < SUSPECT:
        return reading, differs
    winner = found_at_corners(pipeline, pixels, [found], corners.lights.shape[-1])
    if winner is None:
        return replace(reading, doubtful=torch.ones(1, dtype=torch.bool, device=pixels.device)), True
    if winner is found or is_line(kernel_of(winner)[0]):
        return reading, differs
    return winning(reading, winner), True


def winning(reading: BlurReading, winner: BlurReading) -> BlurReading:
    """The reading with the kernel of another one, without doubt."""
    doubtful = None if reading.doubtful is None else torch.zeros_like(reading.doubtful)
    return replace(reading, kernels=winner.kernels, linear=winner.linear, doubtful=doubtful)


def astray(kernels: Tensor, refined: Tensor) -> bool:
    """Whether a kernel `(1, k, k)` is far from those that the corners refine it to, `(S, k, k)`: not from that of one
    of them, which may show nothing, but from most.
    """
    return bool(distances(kernels, refined).quantile(0.5) > ASTRAY)


def found_at_corners(pipeline, pixels: Tensor, found: list[BlurReading], side: int) -> BlurReading | None:
    """The reading of one image `(1, 3, H, W)` in [-1, 1] whose kernel leaves least of what its copies leave: one that
    was found, or one that the search finds in the windows at the corners, of `side` pixels, and where none of these is
    `RIGHT` in clearly larger ones (`SECOND`), too. None where no kernel is.
    """
    lights, (height, width) = lights_of(pixels), pixels.shape[-2:]
    standing = [(left_by(one, lights) or 1, one) for one in found]
    side = max(SMALLEST_WINDOW, side)
    for window in [side] + [SECOND] * (side <= 0.8 * SECOND <= 0.8 * min(height, width)):
        rows, columns = ((slice(0, window), slice(length - window, length)) for length in (height, width))
        for down, right in product(rows, columns):
            seen = pipeline.tell(search_blur(pipeline, pixels[..., down, right]))
            standing.append((left_by(seen, lights) or 1, seen))
        least, best = min(standing, key=lambda one: one[0])
        if least < RIGHT:
            return best
    return None


def lights_of(pixels: Tensor) -> Tensor:
    """The denoised luminance `(S, 1, h, w)` in [0, 1] of one image `(1, 3, H, W)` in [-1, 1]; of large ones that of
    their corners.
    """
    places = Places.over(*pixels.shape[-2:])
    if max(pixels.shape[-2:]) > LONGEST and places is not None:
        return luminance(places.quiet(pixels, places.corners))
    return luminance(reduce_noise((pixels + 1) / 2))


def left_by(reading: BlurReading, lights: Tensor) -> float | None:
    """`left_where_sure` by the kernel of a reading."""
    return left_where_sure(lights, kernel_of(reading))
