"""Finds thin lines of one colour that were drawn as a rectangle into a photograph.

Arrays are `(H, W, 3)` float in [0, 1], masks `(H, W)`. The constants are ours.
"""

import numpy as np

EVEN, MOST = 24 / 255, 0.9  # how far the pixels of a line may differ from its colour, and how many of them
APART, PARTLY = 24 / 255, 0.3  # how far the photograph beside it must differ from it, and for which share of it
THIN = 40  # a line is at the most this part of a side wide
RIM = 2  # pixels beside a line that JPEG or its soft edge changed
SAMPLES = 256  # pixels of a line that are looked at

Line = tuple[int, int, np.ndarray]  # first and last place, and colour


def line_frame(pixels: np.ndarray) -> np.ndarray:
    """Mask of the lines of a rectangle of one colour: at least two lines across and two down."""
    found = np.zeros(pixels.shape[:2], bool)
    rows = lines_across(pixels)
    columns = lines_across(pixels.swapaxes(0, 1)) if len(rows) > 1 else []
    for _, _, colour in rows:
        across, down = ([line for line in lines if np.abs(line[2] - colour).max() < APART] for lines in (rows, columns))
        if len(across) > 1 and len(down) > 1:
            whole = [slice(lines[0][0] - RIM, lines[-1][1] + RIM + 1) for lines in (across, down)]
            ends = [slice(lines[0][0], lines[-1][1] + 1) for lines in (across, down)]
            spans = [lines[-1][1] - lines[0][0] for lines in (across, down)]
            if 2 * spans[0] < pixels.shape[0] or 2 * spans[1] < pixels.shape[1]:
                continue
            drawn = [pixels[lines[0], ends[1]] for lines in (across[0], across[-1])]
            drawn += [pixels[ends[0], lines[0]] for lines in (down[0], down[-1])]
            if any((np.abs(line - colour).max(-1) <= EVEN).mean() < MOST for line in drawn):
                continue
            for first, last, _ in across:
                found[first - RIM : last + RIM + 1, whole[1]] = True
            for first, last, _ in down:
                found[whole[0], first - RIM : last + RIM + 1] = True
    return found


def lines_across(pixels: np.ndarray) -> list[Line]:
    """Thin bands of rows that have one colour in the middle half of the picture, brighter or darker than both sides."""
    height, width = pixels.shape[:2]
    middle = pixels[:, width // 4 : width - width // 4 : max(1, width // 2 // SAMPLES)]
    colours = np.median(middle, axis=1)
    even = (np.abs(middle - colours[:, None]).max(-1) <= EVEN).mean(1) > MOST
    changes = np.abs(np.diff(colours, axis=0)).max(-1) > EVEN
    starts = np.flatnonzero(even & np.append(True, changes | ~even[:-1]))
    ends = np.flatnonzero(even & np.append(changes | ~even[1:], True))
    found = []
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        if last - first >= max(2 * RIM, height // THIN) or first <= RIM or last >= height - 1 - RIM:
            continue
        colour = np.median(colours[first : last + 1], axis=0)
        sides = [(middle[row] - colour).mean(-1) for row in (first - RIM, last + RIM)]
        if any((sign * sides[0] > APART).mean() > PARTLY < (sign * sides[1] > APART).mean() for sign in (-1, 1)):
            found.append((first, last, colour))
    return found
