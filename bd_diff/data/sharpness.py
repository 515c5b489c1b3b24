"""How sharp the places of a picture are, fast: in integers, and in strips that fit into a processor's cache."""

from collections.abc import Iterator

import numpy as np

REACH = 3  # pixels around each that are searched for sharp edges
CONTRAST = 0.2  # range within reach from which a place counts as structure
NOISE = 10  # standard deviations of noise that second differences must exceed: they have the largest of some hundred
STEPS = 8 * 255  # of the integers, eight to a level of 8 bit: their sums fit into 16 bit
STRIP = 64  # rows
DIRECTIONS = (0, 1), (1, 0), (1, 1), (1, -1)  # down and right, in pixels


def sharpness(pixels: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Of `(H, W, 3)` in [0, 1], per pixel: how sharp the place is, from 0 to about 1, and the range of values around
    it. Of the whole: the share of structure that is sharp, in the softest direction.

    Blur widens edges in at least one direction, in which second differences are then small against the range; letters
    and other drawings have large ones in all directions. 0 where there is no structure but noise, or not `seen`.
    """
    height, width = seen.shape
    lights = [
        np.pad(np.rint(light * STEPS).astype(np.int16), REACH + 1, mode="edge") for light in np.moveaxis(pixels, -1, 0)
    ]
    quiet = [int(NOISE * noise(light)) for light in lights]
    sharpest, widest = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    structured, bent = np.zeros((len(lights), 1)), np.zeros((len(lights), len(DIRECTIONS)))
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height))
        for channel, light in enumerate(lights):
            own = light[rows.start : rows.stop + 2 * REACH + 2]
            contrast = largest(own, REACH + 1) + largest(-own, REACH + 1)
            np.maximum(widest[rows], contrast / np.float32(STEPS), out=widest[rows])
            structure = seen[rows] & (contrast > CONTRAST * STEPS)
            if not structure.any():
                continue
            structured[channel] += np.count_nonzero(structure)
            enough = np.where(structure, np.maximum(contrast, 2 * quiet[channel]), np.iinfo(np.int16).max)
            softest = contrast
            for number, bends in enumerate(second_differences(light, rows)):
                bend = largest(bends, REACH)
                bent[channel, number] += np.count_nonzero(2 * bend > enough)
                softest = np.minimum(softest, bend)
            sharp = structure & (softest > quiet[channel])
            np.maximum(
                sharpest[rows],
                np.where(sharp, softest, 0) / np.maximum(contrast, 1).astype(np.float32),
                out=sharpest[rows],
            )
    return sharpest, widest, float((bent / np.maximum(structured, 1)).min(1).max())


def second_differences(light: np.ndarray, rows: slice) -> Iterator[np.ndarray]:
    """Their sizes in each direction, of rows and `REACH` pixels around them, 0 beyond the picture `light`, which has
    `REACH + 1` pixels more at each side.
    """
    height, width = (side - 2 * REACH - 2 for side in light.shape)
    first, last = max(rows.start - REACH, 0), min(rows.stop + REACH, height)
    whole = np.zeros((rows.stop - rows.start + 2 * REACH, width + 2 * REACH), np.int16)
    inside = whole[first - rows.start + REACH : last - rows.start + REACH, REACH : REACH + width]

    def moved(down: int, right: int) -> np.ndarray:
        place = REACH + 1
        return light[first + place + down : last + place + down, place + right : place + right + width]

    twice = 2 * moved(0, 0)
    for down, right in DIRECTIONS:
        np.abs(moved(down, right) + moved(-down, -right) - twice, out=inside)
        yield whole


def largest(values: np.ndarray, reach: int) -> np.ndarray:
    """The largest value within `reach` of each but the outermost `reach` rows and columns (by doubling windows)."""
    for axis in (0, 1):
        values = values.swapaxes(0, axis)
        size, wanted = 1, 2 * reach + 1
        while size < wanted:
            step = min(size, wanted - size)
            values = np.maximum(values[:-step], values[step:])
            size += step
        values = values.swapaxes(0, axis)
    return values


def noise(light: np.ndarray) -> float:
    """Standard deviation of white noise in one channel `(H, W)` (Immerkaer 1996, with a median over each third row)."""
    rows = light[:-2:3] + light[2::3][: len(light[:-2:3])] - 2 * light[1:-1:3]
    return float(np.median(np.abs(rows[:, :-2] + rows[:, 2:] - 2 * rows[:, 1:-1])) / (6 * 0.6745))
