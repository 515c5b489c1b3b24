"""The blur of a thing that moved by itself before a camera that shook.

What the kernel of the background does not explain has edges of its own: the search runs on these alone. Of the kernels
that it finds the one counts that explains most of the photograph better than the background's does; where it does so,
there is the thing. That place is searched again, and the kernel is believed if it leaves clearly less there than its
turned copies do (ours).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from bd_diff.data.pixels import luminance
from bd_diff.reading.kernel_search import SMALLEST_WINDOW, search_kernels
from bd_diff.reading.refinement import refine
from bd_diff.reading.turned_copies import FAINT, against_copies, unexplained

# All ours, measured on photographs of the training.
TURNS = 2  # of kernel and place
UNLIKELY = 0.5  # mean of nine cells from which on the background's kernel does not hold there
PATCH, SEEN = 7, 0.2  # cells a side of a patch; its mean from which on it is searched, see `unlikely`
BETTER = 0.95  # of what the background's kernel leaves, the most that a thing's own kernel leaves
FEWEST, LEAST = 12, 60  # cells that are searched; cells of a thing whose kernel is believed
RIGHT = 0.94  # of what its copies leave there, the median: right kernels left up to 0.927, wrong ones from 0.954 on


@dataclass(frozen=True)
class Thing:
    """A kernel `(1, k, k)`, the cells `(h, w)` that it explains better than that of the background, and how much."""

    kernel: Tensor
    cells: Tensor
    gained: float


@torch.no_grad()
def find_thing(pipeline, images: Tensor, kernel: Tensor, elsewhere: Tensor) -> Thing | None:
    """What moved by itself in one image `(1, 3, H, W)` in [0, 1] whose background has a `kernel` `(1, k, k)` that does
    not hold `elsewhere`, a map `(1, h, w)` in [0, 1] of cells; None where no kernel is found that is right.
    """
    lights, things = luminance(images), []
    left = unexplained(lights, kernel)
    cells = unlikely(elsewhere)
    for _ in range(TURNS):
        if cells.sum() < FEWEST:
            return None
        things += [explained(lights, one, left) for one in kernels_in(pipeline, images, cells).split(1)]
        thing = max(things, key=lambda one: one.gained)
        cells = thing.cells
    if cells.sum() < LEAST:
        return None
    share = against_copies(lights, thing.kernel)
    return None if share is None or share[0, 0][cells].median() > RIGHT else thing


def unlikely(elsewhere: Tensor) -> Tensor:
    """Where a kernel most likely does not hold, as a mask `(h, w)`, by a map `(1, h, w)` in [0, 1] of how little it
    holds: the largest part of what is above `UNLIKELY`; where that is small, the patch of `PATCH` cells a side that has
    most.
    """
    cells = largest(F.avg_pool2d(elsewhere, 3, 1, 1, count_include_pad=False)[0] > UNLIKELY)
    patches = F.avg_pool2d(elsewhere, PATCH, 1)[0]
    if cells.sum() < FEWEST and patches.max() > SEEN:
        row, column = divmod(int(patches.argmax()), patches.shape[-1])
        cells = torch.zeros_like(cells)
        cells[row : row + PATCH, column : column + PATCH] = True
    return cells


def kernels_in(pipeline, images: Tensor, cells: Tensor) -> Tensor:
    """Kernels `(S, k, k)` that the search finds in those `cells` `(h, w)` of one image `(1, 3, H, W)` in [0, 1]; and
    these, refined from display values and from linear light.
    """
    sides = images.shape[-2:]
    where = F.interpolate(cells[None, None].float(), size=sides) > 0.5
    part: tuple = (...,)
    for axis, side in enumerate(sides):
        at = cells.any(1 - axis).nonzero()[:, 0]
        first, last = (round(float(edge) * side / cells.shape[axis]) for edge in (at[0] - 1, at[-1] + 2))
        more = max(0, SMALLEST_WINDOW - (last - first) + 1) // 2
        first = max(0, min(first - more, side - SMALLEST_WINDOW))
        part += (slice(first, max(last + more, first + SMALLEST_WINDOW)),)
    window, where = images[part], where[part]
    found = search_kernels(luminance(window), where=where)
    assert found is not None  # it has no rival
    refined = [refine(pipeline, window, found[0], linear, where=where) for linear in (False, True)]
    return torch.cat([found[0], *refined])


def explained(lights: Tensor, kernel: Tensor, left: Tensor) -> Thing:
    """What a kernel `(1, k, k)` explains of a luminance `(1, 1, H, W)` in [0, 1] better than that of the background,
    which leaves a map `(1, 1, h, w)` of it.
    """
    own = unexplained(lights, kernel)
    cells = largest(((own + FAINT) / (left + FAINT) < BETTER)[0, 0])
    return Thing(kernel, cells, float((left - own)[0, 0][cells].sum()))


def largest(cells: Tensor) -> Tensor:
    """The largest of the connected parts of a mask `(h, w)`."""
    parts, count = ndimage.label(cells.cpu().numpy())
    sizes = ndimage.sum(parts > 0, parts, range(1, count + 1))
    return torch.from_numpy(parts == 1 + np.argmax(sizes) if count else parts > 0).to(cells.device)
