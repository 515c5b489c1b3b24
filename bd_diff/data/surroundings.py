"""What stands in and around a photograph and is not blurred with it: borders, captions and stamps, hidden colours.

All of it was added after the blur, so it must neither vote on the blur nor be deconvolved. Arrays are `(H, W, 3)`
float in [0, 1], masks `(H, W)`. The measures and constants are ours, tried on blurry and sharp photographs.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SAME, ABRUPT = 6 / 255, 24 / 255  # how far a border's pixels may differ, and how far the photograph beside it must
SMALLEST = 32  # pixels: sides of the photograph within its borders
REACH = 3  # pixels around each that are searched for sharp edges
SHARP, DRAWN = 0.4, 0.6  # sharpness that blurred photographs do not have, and that drawings have nearly everywhere
CONTRAST = 0.2  # range within reach from which a place counts as structure
SPECK = 32  # pixels: what is enclosed by drawing and smaller is drawing
NOISE = 10  # standard deviations of noise that second differences must exceed: they have the largest of some hundred
SWEEPS = 6  # of smoothing at each scale of a fill
MIRRORED = 16  # pixels over which a fill fades from the mirrored photograph to its mean


def inside_borders(pixels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of what is within borders of one colour that end abruptly, several around each other, too."""
    height, width = pixels.shape[:2]
    box = [0, height, 0, width]
    changed = True
    while changed:
        changed = False
        for side in range(4):
            part = pixels[box[0] : box[1], box[2] : box[3]]
            lines = part if side < 2 else part.swapaxes(0, 1)
            count = border_width(lines if side % 2 == 0 else lines[::-1])
            if count and len(lines) - count >= SMALLEST:
                box[side] += count if side % 2 == 0 else -count
                changed = True
    return slice(box[0], box[1]), slice(box[2], box[3])


def border_width(lines: np.ndarray) -> int:
    """How many of the first lines `(L, N, 3)` are a border: of one colour, against which the next one stands out."""
    colour = np.median(lines[0], axis=0)
    apart = np.abs(lines - colour).max(-1)  # (L, N)
    same = np.quantile(apart, 0.98, axis=1) <= SAME
    count = int(np.argmin(same)) if not same.all() else 0
    if not count:
        return 0
    first = apart[count : count + 2]  # a border of a JPEG, or one that was resized, may end within a line
    return count if (first > ABRUPT).mean(1).max() > 0.5 else 0


def sharpness(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per pixel of `(H, W, 3)`: how sharp the place is, from 0 to about 1, and the range of values around it.

    Blur widens edges in at least one direction, in which second differences are then small against the range; letters
    and other drawings have large ones in all directions. 0 where there is no structure but noise.
    """
    size, height, width = 2 * REACH + 1, *pixels.shape[:2]
    sharpest, widest = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for channel in range(3):
        light = pixels[..., channel]
        padded = np.pad(light, 1, mode="edge")
        softest = np.full(light.shape, np.inf, np.float32)
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            ahead = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            behind = padded[1 - down : 1 - down + height, 1 - right : 1 - right + width]
            softest = np.minimum(softest, ndimage.maximum_filter(np.abs(ahead + behind - 2 * light), size))
        contrast = ndimage.maximum_filter(light, size + 2) - ndimage.minimum_filter(light, size + 2)
        there = (contrast > CONTRAST) & (softest > NOISE * noise(light))
        sharpest = np.maximum(sharpest, np.where(there, softest / np.maximum(contrast, CONTRAST), 0))
        widest = np.maximum(widest, contrast)
    return sharpest, widest


def noise(light: np.ndarray) -> float:
    """Standard deviation of white noise in one channel `(H, W)` (Immerkaer 1996, with a median)."""
    mask = np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
    return float(np.median(np.abs(ndimage.convolve(light, mask, mode="nearest"))) / (6 * 0.6745))


@dataclass
class Sharp:
    """What of `pixels` is not blurred: `drawn` over it (letters, stamps), a mask; `graphic`: all of it is drawn."""

    drawn: np.ndarray
    graphic: bool = False


def find_sharp(pixels: np.ndarray, seen: np.ndarray) -> Sharp:
    """What of the pixels, of which those `seen` are a photograph, is sharp, and how it got there."""
    sharpness_, contrast = sharpness(pixels)
    inside = ndimage.binary_erosion(seen, iterations=REACH + 2, border_value=1)  # no edges that hiding made
    places = np.where(inside, sharpness_, 0)
    sharp, structure = places > SHARP, seen & (contrast > CONTRAST)
    found = Sharp(np.zeros(seen.shape, bool))
    if not sharp.any():
        return found
    drawn = (places > DRAWN).sum() / sharp.sum()
    beside = seen & (contrast > CONTRAST / 2) & ~ndimage.binary_dilation(sharp, iterations=2 * REACH)
    if drawn > 0.75 and sharp.sum() < 0.5 * seen.sum() and beside.sum() > 0.02 * seen.sum():
        found.drawn = drawing(pixels, sharp)
        for _ in range(3):  # what is as the photograph around it, between letters, is the photograph
            guess = spread(pixels, seen & ~found.drawn)
            found.drawn &= np.abs(pixels - guess).max(-1) > ABRUPT / 2
    elif drawn > 0.65 and sharp.sum() > 0.5 * structure.sum():
        found.graphic = True
    return found


def drawing(pixels: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """The lines and areas drawn at sharp places: their edges, and what of one colour is enclosed by them."""
    height, width = sharp.shape
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    steps = [
        np.abs(padded[1 + down : height + 1 + down, 1 + right : width + 1 + right] - pixels).max(-1)
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    edges = ndimage.binary_dilation(sharp & (np.maximum.reduce(steps) > ABRUPT), np.ones((3, 3)))
    edges |= ndimage.binary_closing(edges, np.ones((3, 3)))
    holes, count = ndimage.label(ndimage.binary_fill_holes(edges) & ~edges)
    flat = np.zeros(count + 1, bool)
    if count:
        flat[1:] = ndimage.standard_deviation(pixels.mean(-1), holes, np.arange(1, count + 1)) < SAME / 2
        flat[1:] |= np.bincount(holes.ravel())[1:] < SPECK
    return edges | flat[holes]


def filled(pixels: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The pixels with what is hidden filled from what is not: near it mirrored, so that texture and blur go on, farther
    away ever smoother.
    """
    if not hidden.any() or hidden.all():
        return pixels
    distance, (rows, columns) = ndimage.distance_transform_edt(hidden, return_indices=True)
    smooth = spread(pixels, ~hidden)
    down, right = np.indices(hidden.shape)
    mirrored_rows = (2 * rows - down).clip(0, hidden.shape[0] - 1)
    mirrored_columns = (2 * columns - right).clip(0, hidden.shape[1] - 1)
    mirrored = np.where(
        hidden[mirrored_rows, mirrored_columns][..., None], smooth, pixels[mirrored_rows, mirrored_columns]
    )
    share = (1 - distance / MIRRORED).clip(0, 1)[..., None].astype(np.float32)
    return np.where(hidden[..., None], smooth + share * (mirrored - smooth), pixels).astype(np.float32)


def spread(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Known pixels spread over the others, each at the finest scale that reaches there (pull-push, Gortler 1996)."""
    weight = known[..., None].astype(np.float32)
    values = pixels * weight
    if min(known.shape) <= 2 or known.all():
        mean = values.sum((0, 1)) / max(float(weight.sum()), 1e-6)
        return np.where(known[..., None], pixels, mean)
    height, width = known.shape
    even = [(0, height % 2), (0, width % 2), (0, 0)]
    halves = [
        np.pad(one, even).reshape(-(-height // 2), 2, -(-width // 2), 2, -1).sum((1, 3)) for one in (values, weight)
    ]
    coarse = spread(halves[0] / np.maximum(halves[1], 1e-6), halves[1][..., 0] > 0)
    fine = ndimage.zoom(coarse, (2, 2, 1), order=1, mode="nearest", grid_mode=True)[:height, :width]
    for _ in range(SWEEPS):
        fine = np.where(known[..., None], pixels, fine)
        fine = ndimage.uniform_filter1d(
            ndimage.uniform_filter1d(fine, 3, axis=0, mode="nearest"), 3, axis=1, mode="nearest"
        )
    return np.where(known[..., None], pixels, fine)
