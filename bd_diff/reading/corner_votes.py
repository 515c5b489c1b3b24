"""Which kernel is that of the whole photograph, where its corners contradict the one that was found.

The search reads the window with most edges. A thing that moves by itself has edges there that the background has not,
and a blur of its own. What such a window misleads the search to is found in no other, the right kernel in several (as
in `several_windows`, for large photographs): so the corners are searched, too, and vote (ours).
"""

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from bd_diff.reading.blur_reading import BlurReading, search_blur
from bd_diff.reading.confidence import distances
from bd_diff.reading.differing_blur import ROUNDS, corner_windows
from bd_diff.reading.kernel_search import SMALLEST_WINDOW
from bd_diff.reading.pyramid import kernel_of, reduced

# All ours, measured on training photographs.
ASTRAY = 0.012  # median distance, see `astray`: where the kernel is right it is up to 0.01
ALIKE = 0.03  # distance of kernels over which votes fall by a factor of e
ENOUGH = 1.7  # votes, its own among them, that a kernel needs


@torch.no_grad()
def ask_corners(pipeline, pixels: Tensor, reading: BlurReading) -> tuple[BlurReading, bool]:
    """One image `(1, 3, H, W)` in [-1, 1] and its `reading`: the reading again, and whether there may be a field.

    Where the corners contradict its kernel (`astray`), it has the kernel that wins the vote, or is in doubt where none
    has `ENOUGH` votes; then there is no field. Else, and where its own kernel wins, there may be one if a corner is
    explained clearly better by a kernel of its own.
    """
    scale = 1.0 if reading.scale is None else float(reading.scale)
    pixels = reduced(pixels, scale)
    corners = corner_windows(pipeline, pixels, reading)
    if corners is None:
        return reading, False
    own = first = corners.refined(corners.kernels)
    for _ in range(ROUNDS - 1):
        own = corners.refined(own)
    if not astray(corners.kernels[:1], own):
        return reading, corners.better(first)
    found = replace(reading, kernels=corners.kernels[:1])
    winner = voted(pipeline, pixels, found, max(SMALLEST_WINDOW, corners.lights.shape[-1]))
    if winner is None:
        return replace(reading, doubtful=torch.ones(1, dtype=torch.bool, device=pixels.device)), False
    if winner is found:
        return reading, corners.better(first)
    return replace(reading, kernels=winner.kernels, linear=winner.linear), False


def astray(kernels: Tensor, refined: Tensor) -> bool:
    """Whether a kernel `(1, k, k)` is far from those that the corners refine it to, `(S, k, k)`: not from that of one
    of them, which may show nothing, but from most.
    """
    return bool(distances(kernels, refined).quantile(0.5) > ASTRAY)


def voted(pipeline, pixels: Tensor, found: BlurReading, side: int) -> BlurReading | None:
    """The reading of one image `(1, 3, H, W)` in [-1, 1] on whose kernel most windows agree; None where none has
    `ENOUGH` votes.

    It is the one that was found, or one that the search finds in the windows at the corners, `side` pixels each. Each
    has a vote of its own and one of each other, the less the farther they are apart. Corners in doubt abstain: where
    nothing is to be seen all find the same, and are all wrong.
    """
    height, width = pixels.shape[-2:]
    places = product((slice(0, side), slice(height - side, height)), (slice(0, side), slice(width - side, width)))
    readings = [pipeline.tell(search_blur(pipeline, pixels[..., rows, columns])) for rows, columns in places]
    standing = [found, *(one for one in readings if not one.doubtful)]
    kernels = torch.cat([kernel_of(one) for one in standing])
    votes = torch.stack([torch.exp(-distances(one, kernels) / ALIKE).sum() for one in kernels.split(1)])
    return standing[int(votes.argmax())] if votes.max() > ENOUGH else None
