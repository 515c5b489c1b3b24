"""Which kernel is that of the whole photograph, where its corners contradict the one that was found.

The search reads the window with most edges. A thing that moves by itself has edges there that the background has not,
and a blur of its own. What such a window misleads the search to is found in no other, the right kernel in several (as
in `several_windows`, for large photographs): so the corners are searched, too, and vote (ours).
"""

from dataclasses import replace
from enum import Enum
from itertools import product

import torch
from torch import Tensor

from bd_diff.blur.kernels import same_size
from bd_diff.reading.blur_reading import BlurReading, search_blur
from bd_diff.reading.confidence import distances
from bd_diff.reading.differing_blur import ROUNDS, Places, corner_windows
from bd_diff.reading.kernel_search import SMALLEST_WINDOW
from bd_diff.reading.pyramid import is_shake, kernel_of, reduced

# All ours, measured on training photographs.
ASTRAY = 0.012  # median distance, see `astray`: where the kernel is right it is up to 0.01
ALIKE = 0.015  # distance of kernels over which votes fall by a factor of e
ENOUGH = 1.7  # votes, its own among them, that a kernel needs
LARGER = 4 / 3  # times as large are the windows that are asked where those before do not agree


class Corners(Enum):
    """What corners say of a kernel: they are explained by it, in part better by others of about the same blur, or by
    very different ones.
    """

    AGREE, DIFFER, CONTRADICT = range(3)


@torch.no_grad()
def ask_corners(pipeline, pixels: Tensor, reading: BlurReading) -> tuple[BlurReading, Corners]:
    """One image `(1, 3, H, W)` in [-1, 1] and its `reading`: the reading again, and what the corners say of its kernel.

    Where they contradict it (`astray`), it has the kernel that wins the vote, or is in doubt where none has `ENOUGH`
    votes. Else, and where its own kernel wins, blur may differ if a corner is explained clearly better by a kernel of
    its own.
    """
    scale = 1.0 if reading.scale is None else float(reading.scale)
    pixels = reduced(pixels, scale)
    if reading.doubtful and Places.over(*pixels.shape[-2:]) is not None and is_shake(replace(reading, doubtful=None)):
        winner = voted(pipeline, pixels, None, SMALLEST_WINDOW)
        return (reading, Corners.AGREE) if winner is None else (winning(reading, winner), Corners.CONTRADICT)
    corners = corner_windows(pipeline, pixels, reading)
    if corners is None:
        return reading, Corners.AGREE
    own = first = corners.refined(corners.kernels)
    for _ in range(ROUNDS - 1):
        own = corners.refined(own)
    agreed = Corners.DIFFER if corners.better(first) else Corners.AGREE
    if not astray(corners.kernels[:1], own):
        return reading, agreed
    found = replace(reading, kernels=corners.kernels[:1])
    winner = voted(pipeline, pixels, found, max(SMALLEST_WINDOW, corners.lights.shape[-1]))
    if winner is None:
        return replace(reading, doubtful=torch.ones(1, dtype=torch.bool, device=pixels.device)), Corners.CONTRADICT
    if winner is found:
        return reading, agreed
    return winning(reading, winner), Corners.CONTRADICT


def winning(reading: BlurReading, winner: BlurReading) -> BlurReading:
    """The reading with the kernel of another one, without doubt."""
    doubtful = None if reading.doubtful is None else torch.zeros_like(reading.doubtful)
    return replace(reading, kernels=winner.kernels, linear=winner.linear, doubtful=doubtful)


def astray(kernels: Tensor, refined: Tensor) -> bool:
    """Whether a kernel `(1, k, k)` is far from those that the corners refine it to, `(S, k, k)`: not from that of one
    of them, which may show nothing, but from most.
    """
    return bool(distances(kernels, refined).quantile(0.5) > ASTRAY)


def voted(pipeline, pixels: Tensor, found: BlurReading | None, side: int) -> BlurReading | None:
    """The reading of one image `(1, 3, H, W)` in [-1, 1] on whose kernel most windows agree; None where none has
    `ENOUGH` votes.

    It is the one that was found, or one that the search finds in the windows at the corners, `side` pixels each, and
    where these do not agree in `LARGER` ones, too. Each has a vote of its own and one of each other, the less the
    farther they are apart. Corners in doubt abstain: where nothing is to be seen all find the same, and are all wrong.
    """
    height, width = pixels.shape[-2:]
    standing = [] if found is None else [found]
    for window in (side, round(LARGER * side)):
        if window > min(height, width):
            break
        rows, columns = ((slice(0, window), slice(length - window, length)) for length in (height, width))
        places = product(rows, columns)
        readings = [pipeline.tell(search_blur(pipeline, pixels[..., down, right])) for down, right in places]
        standing += [one for one in readings if not one.doubtful]
        if not standing:
            continue
        kernels = torch.cat(same_size([kernel_of(one) for one in standing]))
        votes = torch.stack([torch.exp(-distances(one, kernels) / ALIKE).sum() for one in kernels.split(1)])
        if votes.max() > ENOUGH:
            return standing[int(votes.argmax())]
    return None
