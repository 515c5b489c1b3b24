"""Fills what is hidden in a photograph from what is visible around it.

Arrays are `(H, W, 3)` float in [0, 1], masks `(H, W)`. The constants are ours.
"""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

SWEEPS = 6  # of smoothing at each scale
BLOCK = 128  # pixels a side, which fit into a processor's cache
MIRRORED = 10  # pixels over which a fill fades from the mirrored photograph to its mean

Region = tuple[slice, slice]


def filled(pixels: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The pixels with the `hidden` ones filled in from the others.

    Near the border of a hidden area, pixels are mirrored about the value at the border, so that slopes go on (a
    deconvolution rings at any break in them); farther away the filling becomes ever smoother.
    """
    if not hidden.any() or hidden.all():
        return pixels
    fill = spread(pixels, ~hidden)
    for core, around in blocks(hidden, MIRRORED):
        if hidden[around].all():
            continue
        distance, (rows, columns) = ndimage.distance_transform_edt(hidden[around], return_indices=True)
        place = within(core, around)
        near = hidden[core] & (distance[place] < MIRRORED)
        down, right = near.nonzero()
        down, right = down + core[0].start, right + core[1].start
        rows, columns = rows[place][near] + around[0].start, columns[place][near] + around[1].start
        across = (2 * rows - down).clip(0, hidden.shape[0] - 1), (2 * columns - right).clip(0, hidden.shape[1] - 1)
        smooth = fill[down, right]
        mirrored = np.where(hidden[across][:, None], smooth, 2 * pixels[rows, columns] - pixels[across])
        share = (1 - distance[place][near] / MIRRORED)[:, None].astype(np.float32)
        fill[down, right] = smooth + share * (mirrored - smooth)
    fill[hidden] = fill[hidden].clip(0, 1)
    return fill


def blocks(mask: np.ndarray, reach: int) -> Iterator[tuple[Region, Region]]:
    """The blocks in which a mask has pixels, and each with what lies within `reach` pixels of it."""
    height, width = mask.shape
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            core, around = (
                (
                    slice(max(top - more, 0), min(top + BLOCK + more, height)),
                    slice(max(left - more, 0), min(left + BLOCK + more, width)),
                )
                for more in (0, reach)
            )
            if mask[core].any():
                yield core, around


def within(inner: Region, outer: Region) -> Region:
    """Where a region lies in another one."""
    rows, columns = (
        slice(one.start - whole.start, one.stop - whole.start) for one, whole in zip(inner, outer, strict=True)
    )
    return rows, columns


def spread(pixels: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The `valid` pixels, spread over the others at the finest scale that reaches there (pull-push, Gortler 1996)."""
    weight = valid[..., None].astype(np.float32)
    values = pixels * weight
    if min(valid.shape) <= 2 or valid.all():
        mean = values.sum((0, 1)) / max(float(weight.sum()), 1e-6)
        return np.where(valid[..., None], pixels, mean)
    height, width = valid.shape
    even = [(0, height % 2), (0, width % 2), (0, 0)]
    halves = [
        np.pad(one, even).reshape(-(-height // 2), 2, -(-width // 2), 2, -1).sum((1, 3)) for one in (values, weight)
    ]
    coarse = spread(halves[0] / np.maximum(halves[1], 1e-6), halves[1][..., 0] > 0)
    fine = pixels.astype(np.float32)
    for core, around in blocks(~valid, SWEEPS):
        rows, columns = (slice(max(one.start // 2 - 1, 0), one.stop // 2 + 2) for one in around)
        own, known = pixels[around], valid[around][..., None]
        place = within(around, (slice(2 * rows.start, None), slice(2 * columns.start, None)))
        part = np.where(known, own, doubled(coarse[rows, columns])[place])
        for _ in range(SWEEPS):
            part = np.where(known, own, averaged(averaged(part, 0), 1))
        fine[core] = part[within(core, around)]
    return fine


def doubled(coarse: np.ndarray) -> np.ndarray:
    """An image `(h, w, 3)` at twice its size, linear between the middles of its pixels."""
    for axis in (0, 1):
        lines = coarse.swapaxes(0, axis)
        before, after = np.concatenate([lines[:1], lines[:-1]]), np.concatenate([lines[1:], lines[-1:]])
        both = np.stack([0.75 * lines + 0.25 * before, 0.75 * lines + 0.25 * after], 1)
        coarse = both.reshape(-1, *lines.shape[1:]).swapaxes(0, axis)
    return coarse


def averaged(image: np.ndarray, axis: int) -> np.ndarray:
    """The mean of three neighbours along an axis; the border is repeated."""
    lines = image.swapaxes(0, axis)
    total = lines.copy()
    total[1:] += lines[:-1]
    total[0] += lines[0]
    total[:-1] += lines[1:]
    total[-1] += lines[-1]
    total *= np.float32(1 / 3)
    return total.swapaxes(0, axis)
