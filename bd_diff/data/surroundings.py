"""Finds what was added to a photograph after it was taken: borders, frames, captions, stamps, and hidden colours.

None of it is blurred, so it must neither influence the estimated blur nor be deconvolved. Arrays are `(H, W, 3)` float
in [0, 1], masks `(H, W)`. The measures and constants are ours, tried on blurry and sharp photographs.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bd_diff.data.filling import spread
from bd_diff.data.sharpness import CONTRAST, REACH, sharpness

SAME, ABRUPT = 12 / 255, 24 / 255  # how far a border's pixels may differ, and how far the photograph beside it must
FLAT = 3 / 255  # standard deviation of letters
LOUD = 40 / 255  # how far noise in a border may reach
GROUP = 16  # pixels of a line whose mean is looked at
MIXED = 0.7  # how much less than its neighbour a line that is half border differs from it
BESIDE = 16  # lines: two blocks of a JPEG
SHADOW, MOST = 48, 0.75  # lines that a shadow may cover, and how much of each it covers at the least
PARTLY = 0.15  # share of a line that ends abruptly where other sides have shown a border
RIM, AWAY = 2, 6  # pixels from a frame: where its edge may be soft, and where there is photograph
STEP = 0.4  # share of the difference between photograph and frame between two pixels, where nothing is blurred
SEEN, MOSTLY = 0.5, 0.7  # shares of a frame's edge: where photograph differs from it, and of that, where abruptly
REST = 0.2  # share of a picture that a frame leaves at the least
SMALLEST = 32  # pixels: sides of the photograph within its borders
SHARP, DRAWN = 0.4, 0.6  # sharpness that blurred photographs do not have, and that drawings have nearly everywhere
PHOTOGRAPHED = 0.45  # share of sharp places that are like drawing, which is larger in captions
EVERYWHERE = 0.3  # share of structure, in the softest direction, that is sharp in sharp photographs and drawings
ALONE = 0.55  # share of structure that is away from all that is sharp: in blurry photographs with letters it is larger
LONELY = 0.75  # the same, where letters are not like drawing
STREAKS, FEW = 0.4, 0.06  # the same where little is sharp, as streaks of light are at night, and how little
BETWEEN = 0.25  # the same, where letters stand all over the photograph
DULL, SOFT = 0.15, 0.25  # the same as `PHOTOGRAPHED` and `SHARP` of coloured and half-transparent letters in a JPEG
CROWDED = 0.03  # as `FOCUSED`, which letters do not fill
LITTLE = 0.12  # share of a picture
GATHERED, BESIDE_OTHERS = 0.4, 0.2  # shares of sharp places that have such a share of others around them
STROKE = 16  # pixels along which the straight edge of a letter is followed from its corner
STRUCTURED = 0.3  # of a picture, for that: the streaks that lights draw in dark ones are sharp, too
FOCUSED, WINDOW = 0.01, 33  # share of a picture where half of the window around, of so many pixels, is sharp: in focus
SPECK, LARGEST = 32, 0.05  # pixels and share of a picture: areas that are drawing whatever is in them, and none


def inside_borders(pixels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns inside the borders: frames of one colour, perhaps several nested ones, that end abruptly.

    Where two sides have a border, less is enough on the others: there the photograph may be of its colour in part, or
    throw a shadow on it.
    """
    box = [0, pixels.shape[0], 0, pixels.shape[1]]
    sides = [lines_from(pixels, box, side) for side in range(4)]
    colours = {side: np.median(lines[0], axis=0) for side, lines in enumerate(sides) if border_width(lines)}
    changed = True
    while changed:
        changed = False
        for side in range(4):
            lines = lines_from(pixels, box, side)
            colour = np.median(lines[0], axis=0)
            alike = [other for other in colours if other != side and np.abs(colours[other] - colour).max() < SAME]
            count = (len(alike) > 1 and border_width(lines, shaded=True)) or border_width(lines)
            if count and len(lines) - count >= SMALLEST:
                box[side] += count if side % 2 == 0 else -count
                changed = True
    return slice(box[0], box[1]), slice(box[2], box[3])


def lines_from(pixels: np.ndarray, box: list[int], side: int) -> np.ndarray:
    """Rows or columns of what is inside a box (top, bottom, left, right), the first of them those at a side."""
    part = pixels[box[0] : box[1], box[2] : box[3]]
    lines = part if side < 2 else part.swapaxes(0, 1)
    return lines if side % 2 == 0 else lines[::-1]


def border_width(lines: np.ndarray, shaded: bool = False) -> int:
    """How many of the first lines `(L, N, 3)` are a border: one colour, a little noise, and then, abruptly, others.

    Near its end a border in a JPEG is less exact, and one in a resized image ends within a line. shaded: before its end
    a shadow may fall on it, and the photograph beside it may be of its colour in large part.
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
    if shaded:
        following = in_groups(lines[same : same + SHADOW])
        middle = np.median(following, axis=1)
        uneven = np.quantile(np.abs(following - middle[:, None]).max(-1), MOST, axis=1) > SAME
        changing = uneven | (np.abs(np.diff(middle, axis=0, prepend=colour[None])).max(-1) > ABRUPT)
        same = min(same + (int(changing.argmax()) if changing.any() else 0), len(lines) - 1)
    apart = in_groups(lines[same - 1 : same + BESIDE + 4] - colour)
    steps = [np.abs(apart[line : line + 2] - apart[line - 1]).max(-1) > ABRUPT for line in range(1, len(apart))]
    ends = [line for line, step in enumerate(steps[:BESIDE]) if step.mean(1).max() > (PARTLY if shaded else 0.5)]
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
    dense = (ndimage.uniform_filter(sharp.astype(np.float32), WINDOW) > 0.5).sum() / seen.sum()
    found.everywhere = share > EVERYWHERE and structured
    if not found.everywhere and drawn < PHOTOGRAPHED and structured:
        found.focused = found.everywhere = bool(dense > FOCUSED)
    structure = inside & (contrast > CONTRAST / 2)
    away = (structure & ~ndimage.binary_dilation(sharp, iterations=2 * REACH)).sum() / max(structure.sum(), 1)
    if like_drawing(away, drawn, dense, sharp.sum() / seen.sum()) and gathered(sharp) > GATHERED:
        found.everywhere = found.focused = False
        found.drawn = drawing(pixels, grown(sharp, places > SOFT))
        for _ in range(3):  # what is as the photograph around it, between letters, is the photograph
            guess = spread(pixels, seen & ~found.drawn)
            found.drawn &= np.abs(pixels - guess).max(-1) > ABRUPT / 2
    return found


def like_drawing(away: float, drawn: float, dense: float, much: float) -> bool:
    """Whether what is sharp was drawn over a blurry photograph.

    away: share of structure that is away from anything sharp. drawn: share of what is sharp that is as sharp as
    drawings. dense: share of the picture where half of what is around is sharp. much: share of it that is sharp.
    """
    letters = away > ALONE and (drawn > 0.8 or drawn > 0.5 and dense < 2 * CROWDED)
    faint_letters = away > LONELY and drawn > DULL and dense < CROWDED
    letters_all_over = away > BETWEEN and drawn > 0.85 and dense > 0.1
    streaks_of_light = away > STREAKS and drawn > 0.5 and dense < 0.02 and much < FEW
    return bool(letters or faint_letters or letters_all_over or streaks_of_light)


def gathered(sharp: np.ndarray) -> float:
    """The share of sharp places that have others around them; in letters nearly all, in blocks of JPEG few."""
    beside = ndimage.uniform_filter(sharp.astype(np.float32), STROKE + 1) > BESIDE_OTHERS
    return float((sharp & beside).sum() / sharp.sum())


def grown(sharp: np.ndarray, softer: np.ndarray) -> np.ndarray:
    """Sharp places and what is nearly as sharp beside them."""
    return ndimage.binary_dilation(sharp, np.ones((3, 3)), iterations=2 * REACH, mask=sharp | softer)


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
