"""Finds what was added to a photograph after it was taken: borders, frames, captions, stamps, and hidden colours.

None of it is blurred, so it must neither influence the estimated blur nor be deconvolved. Arrays are `(H, W, 3)` float
in [0, 1], masks `(H, W)`. The measures and constants are ours, tried on blurry and sharp photographs.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bd_diff.data.sharpness import CONTRAST, REACH, sharpness

SAME, ABRUPT = 12 / 255, 24 / 255  # how far a border's pixels may differ, and how far the photograph beside it must
FLAT = 3 / 255  # standard deviation of letters
LOUD = 40 / 255  # how far noise in a border may reach
GROUP = 16  # pixels of a line whose mean is looked at
MIXED = 0.7  # how much less than its neighbour a line that is half border differs from it
BESIDE = 16  # lines: two blocks of a JPEG
RIM, AWAY = 2, 6  # pixels from a frame: where its edge may be soft, and where there is photograph
STEP = 0.4  # share of the difference between photograph and frame between two pixels, where nothing is blurred
SEEN, MOSTLY = 0.5, 0.7  # shares of a frame's edge: where photograph differs from it, and of that, where abruptly
REST = 0.2  # share of a picture that a frame leaves at the least
SMALLEST = 32  # pixels: sides of the photograph within its borders
SHARP, DRAWN = 0.4, 0.6  # sharpness that blurred photographs do not have, and that drawings have nearly everywhere
PHOTOGRAPHED = 0.45  # share of sharp places that are like drawing, which is larger in captions
EVERYWHERE = 0.3  # share of structure, in the softest direction, that is sharp in sharp photographs and drawings
LITTLE = 0.12  # share of a picture
STROKE = 16  # pixels along which the straight edge of a letter is followed from its corner
STRUCTURED = 0.3  # of a picture, for that: the streaks that lights draw in dark ones are sharp, too
FOCUSED, WINDOW = 0.01, 33  # share of a picture where half of the window around, of so many pixels, is sharp: in focus
SPECK, LARGEST = 32, 0.05  # pixels and share of a picture: areas that are drawing whatever is in them, and none
SWEEPS = 6  # of smoothing at each scale of a fill
MIRRORED = 10  # pixels over which a fill fades from the mirrored photograph to its mean


def inside_borders(pixels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns inside the borders: frames of one colour, perhaps several nested ones, that end abruptly."""
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
    """How many of the first lines `(L, N, 3)` are a border: one colour, a little noise, and then, abruptly, others.

    Near its end a border in a JPEG is less exact, and one in a resized image ends within a line.
    """
    colour, same = np.median(lines[0], axis=0), 0
    for start in range(0, len(lines), 4 * BESIDE):  # no farther than the border
        apart = lines[start : start + 4 * BESIDE] - colour
        whole, groups = (np.quantile(np.abs(one).max(-1), 0.98, axis=1) for one in (apart, in_groups(apart)))
        differs = (groups > SAME) | (whole > LOUD)
        if differs.any():
            same += int(differs.argmax())
            break
        same += len(apart)
    if not 0 < same < len(lines):
        return 0
    apart = in_groups(lines[same - 1 : same + BESIDE + 4] - colour)
    steps = [np.abs(apart[line : line + 2] - apart[line - 1]).max(-1) > ABRUPT for line in range(1, len(apart))]
    ends = [line for line, step in enumerate(steps[:BESIDE]) if step.mean(1).max() > 0.5]
    if not ends:
        return 0
    end = same + ends[0]
    mean = np.abs(apart).mean((1, 2))[ends[0] + 1 :][:4]
    mixed = np.flatnonzero(mean[:-1] < MIXED * mean[1:])
    return end + (int(mixed[-1]) + 1 if len(mixed) else 0)


def in_groups(lines: np.ndarray) -> np.ndarray:
    """Means of `GROUP` pixels in a row of `(..., N, 3)`, in which noise counts less; the rest of a row is left out."""
    size = max(1, min(GROUP, lines.shape[-2] // GROUP))
    count = lines.shape[-2] // size
    return lines[..., : count * size, :].reshape(*lines.shape[:-2], count, size, 3).mean(-2)


def frame(pixels: np.ndarray) -> np.ndarray:
    """Mask of a frame of one colour that leaves corners rounded, or only an oval: what goes on in its colour from at
    least three corners, and ends abruptly nearly everywhere.
    """
    height, width = pixels.shape[:2]
    none = np.zeros((height, width), bool)
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    colour = np.median([pixels[corner] for corner in corners], axis=0)
    ending = [corner for corner in corners if ends_on_diagonal(pixels, *corner, colour)]
    if len(ending) < 3:
        return none
    apart = np.abs(pixels - colour).max(-1)
    steps = np.maximum(*(np.abs(np.diff(apart, axis=axis, append=apart.take([-1], axis))) for axis in (0, 1)))
    steepest, highest = ndimage.maximum_filter(steps, 2 * RIM + 1), ndimage.maximum_filter(apart, 2 * AWAY + 1)
    seen = highest > ABRUPT
    abrupt = seen & (steepest > np.maximum(STEP * highest, ABRUPT))
    areas, _ = ndimage.label(apart <= SAME)
    found = none
    for number in {areas[corner] for corner in corners} - {0}:
        area = np.pad(areas == number, RIM, mode="edge")
        area = ndimage.binary_dilation(ndimage.binary_closing(area, iterations=RIM), np.ones((3, 3)))
        area = area[RIM:-RIM, RIM:-RIM]
        edge = area & ~ndimage.binary_erosion(area, np.ones((3, 3)), border_value=1)
        if seen[edge].mean() > SEEN and abrupt[edge].sum() > MOSTLY * seen[edge].sum():
            found = found | area
    if not found.any():
        return none
    mirrored = found[::-1] | found[:, ::-1] | found[::-1, ::-1]
    found = found | (mirrored & (apart <= ABRUPT))  # a corner that goes over into photograph of its colour
    found = ndimage.binary_dilation(found, np.ones((3, 3)), iterations=RIM - 1)
    inside = ~ndimage.binary_dilation(found, np.ones((3, 3)), iterations=AWAY)
    if inside.mean() < REST or abrupt[inside].sum() > LITTLE * inside.sum():  # a drawing, or a sharp photograph
        return none
    for axis in (0, 1):  # where an oval touches a side, its frame is too thin to be seen
        lines, inside = found.swapaxes(0, axis), ~found.all(1 - axis)
        for line in range(RIM):
            lines[line] |= inside[0]
            lines[-1 - line] |= inside[-1]
    return found


def ends_on_diagonal(pixels: np.ndarray, row: int, column: int, colour: np.ndarray) -> bool:
    """Whether a corner has the colour, which ends abruptly on the way to the middle."""
    height, width = pixels.shape[:2]
    steps = np.arange(min(height, width) // 2)
    way = pixels[steps if row == 0 else row - steps, steps if column == 0 else column - steps]
    apart = np.abs(way - colour).max(-1)
    differs = np.flatnonzero(apart > SAME)
    if not len(differs) or not RIM <= differs[0] < len(apart) - AWAY:
        return False
    around = apart[differs[0] - 1 : differs[0] + AWAY]
    return bool(np.diff(around[: 2 * RIM + 1]).max() > max(ABRUPT, STEP * around.max()))


@dataclass
class Sharp:
    """The sharp parts of a photograph: `drawn` is a mask of letters and stamps; `everywhere`: all is sharp, or what
    it shows is in focus (`focused`), and the rest out of focus on purpose, or moving.
    """

    drawn: np.ndarray
    everywhere: bool = False
    focused: bool = False


def find_sharp(pixels: np.ndarray, seen: np.ndarray) -> Sharp:
    """Find the sharp parts of `pixels`. The mask `seen` says which pixels belong to the photograph."""
    inside = seen
    if not seen.all():  # no edges that hiding made
        inside = ndimage.binary_erosion(seen, iterations=REACH + 2, border_value=1)
    places, contrast, share = sharpness(pixels, inside)
    sharp = places > SHARP
    found = Sharp(np.zeros(seen.shape, bool))
    if not sharp.any():
        return found
    drawn = (places > DRAWN).sum() / sharp.sum()
    structured = (inside & (contrast > CONTRAST)).sum() > STRUCTURED * inside.sum()
    found.everywhere = share > EVERYWHERE and structured
    if not found.everywhere and drawn < PHOTOGRAPHED and structured:
        dense = ndimage.uniform_filter(sharp.astype(np.float32), WINDOW) > 0.5
        found.focused = found.everywhere = bool(dense.sum() > FOCUSED * seen.sum())
    little = sharp.sum() < LITTLE * seen.sum()  # is sharp in a blurry photograph with captions, and in no sharp one
    if sharp.sum() > 0.5 * seen.sum() or drawn < (0.5 if not found.everywhere else 0.6 if little else 0.8):
        return found
    beside = seen & (contrast > CONTRAST / 2) & ~ndimage.binary_dilation(sharp, iterations=2 * REACH)
    if beside.sum() > 0.02 * seen.sum():
        found.everywhere = False
        found.drawn = drawing(pixels, sharp)
        for _ in range(3):  # what is as the photograph around it, between letters, is the photograph
            guess = spread(pixels, seen & ~found.drawn)
            found.drawn &= np.abs(pixels - guess).max(-1) > ABRUPT / 2
    return found


def drawing(pixels: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Mask of what is drawn at sharp places: lines and edges, and areas of one colour between abrupt edges."""
    height, width = sharp.shape
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    steps = [
        np.abs(padded[1 + down : height + 1 + down, 1 + right : width + 1 + right] - pixels).max(-1)
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    abrupt = np.maximum.reduce(steps) > ABRUPT
    edges = ndimage.binary_dilation(sharp & abrupt, np.ones((3, 3)))
    edges |= strokes(edges, abrupt)
    edges |= ndimage.binary_closing(edges, np.ones((3, 3)))
    areas, count = ndimage.label(~abrupt)
    if not count:
        return edges
    sizes, touched = np.bincount(areas.ravel(), minlength=count + 1), np.zeros(count + 1, bool)
    touched[np.unique(areas[edges])] = True
    deviation = ndimage.standard_deviation(pixels.mean(-1), areas, np.arange(count + 1))
    letters = touched & (sizes < LARGEST * sharp.size) & ((deviation < FLAT) | (sizes < SPECK))
    letters[0] = False
    inside = letters[areas]
    return edges | inside | (ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=2) & abrupt)


def strokes(edges: np.ndarray, abrupt: np.ndarray) -> np.ndarray:
    """A mask `(H, W)` of the straight edges of letters, found by following abrupt edges from `edges` `(H, W)`.

    `edges` marks where text was recognised, which is at the corners of letters; `abrupt` `(H, W)` marks all pixels that
    differ clearly from a neighbour. A line that touches the image border over more than half the width of a letter's
    stroke (`STROKE`) is taken for an edge of the photograph and left out.
    """
    followed = ndimage.binary_dilation(edges, np.ones((3, 3)), iterations=STROKE, mask=edges | abrupt) & ~edges
    lines, count = ndimage.label(followed, np.ones((3, 3)))
    leaving = np.concatenate([lines[[0, -1]].ravel(), lines[:, [0, -1]].ravel()])
    inside = np.bincount(leaving, minlength=count + 1) <= STROKE // 2
    inside[0] = False
    return inside[lines]


def filled(pixels: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The pixels with the `hidden` ones filled in from the others.

    Near the border of a hidden area, pixels are mirrored about the value at the border, so that slopes go on (a
    deconvolution rings at any break in them); farther away the filling becomes ever smoother.
    """
    if not hidden.any() or hidden.all():
        return pixels
    distance, (rows, columns) = ndimage.distance_transform_edt(hidden, return_indices=True)
    down, right = np.indices(hidden.shape)
    across = (2 * rows - down).clip(0, hidden.shape[0] - 1), (2 * columns - right).clip(0, hidden.shape[1] - 1)
    smooth = spread(pixels, ~hidden)
    mirrored = np.where(hidden[across][..., None], smooth, 2 * pixels[rows, columns] - pixels[across])
    share = (1 - distance / MIRRORED).clip(0, 1)[..., None].astype(np.float32)
    fill = (smooth + share * (mirrored - smooth)).clip(0, 1)
    return np.where(hidden[..., None], fill, pixels).astype(np.float32)


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
    fine = ndimage.zoom(coarse, (2, 2, 1), order=1, mode="nearest", grid_mode=True)[:height, :width]
    for _ in range(SWEEPS):
        fine = np.where(valid[..., None], pixels, fine)
        fine = ndimage.uniform_filter1d(
            ndimage.uniform_filter1d(fine, 3, axis=0, mode="nearest"), 3, axis=1, mode="nearest"
        )
    return np.where(valid[..., None], pixels, fine)
