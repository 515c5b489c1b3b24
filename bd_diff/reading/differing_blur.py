"""Blur that differs over the photograph: cameras that turn.

The kernel of the whole photograph is improved in windows on a grid, as kernel and picture improve each other elsewhere
(`blur_reading.refine`), and neighbours that see about the same blur share what they see. Kernels fade into each other
from window to window (Harmeling et al., "Space-variant single-image blind deconvolution for removing camera shake",
2010). A few windows are tried first: where they are explained no better by kernels of their own, that is all.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import SIZE, normalize
from bd_diff.reading.blur_reading import BlurReading, is_linear
from bd_diff.reading.camera_poses import pose_kernels
from bd_diff.reading.confidence import distances
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import (
    SMALLEST_WINDOW,
    clean,
    edge_threshold,
    kernel_from_edges,
    reblur_residual,
    strong_gradients,
)
from bd_diff.reading.pyramid import is_shake, kernel_of, reduced
from bd_diff.reading.refinement import seen, unclipped

STEP, MOST = 96, 6  # pixels from window to window at least; windows along the longer side at most
WINDOW, LARGEST = 160, 256  # pixels a side of a window: 5 / 3 of the step, within these
ROUNDS = 3  # of kernels and pictures in turns
EDGES, RIDGE, FLOOR, BORDER = 15, 4.0, 0.05, 16  # see `refined` (ours, measured, as in `blur_reading.refine`)
AT_ONCE = 8  # windows that are deblurred together
DIFFERS = 0.975  # share of the residual that some window must fall below for all of them to be read (ours, measured)
ALIKE = 0.03  # distance of kernels over which windows hardly share
SAME = 0.005  # distance of kernels, the farthest of each on average, below which blur does not differ (ours, measured)


@torch.no_grad()
def read_field(pipeline, pixels: Tensor, reading: BlurReading, differs: bool) -> BlurField | Tensor:
    """The blur of one image `(1, 3, H, W)` in [-1, 1] of which one `reading` is known: kernels `(1, k, k)`, those of
    the reading, or a field where that explains the image better; at the scale of the reading. Where the search found no
    shake without doubt, in small images, and for kernels wider than `SIZE`, which were carried to full size, it is one;
    where all windows see about the `SAME` blur, it is the mean of theirs. No more is read unless it `differs`, see
    `corner_search.ask_corners`.
    """
    kernels, scale = without_margin(kernel_of(reading)), 1.0 if reading.scale is None else float(reading.scale)
    pixels = reduced(pixels, scale)
    places = places_of_fields(pixels, reading)
    if places is None or not differs:
        return kernels
    images = reduce_noise((pixels + 1) / 2)
    every = Windows(pipeline, places.cut(images, range(places.count)), kernels, is_linear(reading))
    own, chosen = every.read(places)
    if not chosen.any():
        return kernels
    differing = own[chosen]
    if torch.stack([distances(one, differing).max() for one in differing.split(1)]).mean() < SAME:
        return pipeline.tell(BlurReading(differing.mean(0, keepdim=True))).kernels
    shares = torch.eye(places.count, device=pixels.device).view(-1, places.rows, places.columns)
    told = pipeline.tell(BlurReading(differing)).kernels
    return BlurField(torch.cat([kernels, told]), torch.cat([shares[~chosen].sum(0, keepdim=True), shares[chosen]]))


def corner_windows(pipeline, pixels: Tensor, reading: BlurReading) -> "Windows | None":
    """The windows at the corners of one image `(1, 3, H, W)` in [-1, 1], with the kernel of its reading; None where
    there is no field to be read (`read_field`).
    """
    if (places := places_of_fields(pixels, reading)) is None:
        return None
    corners = places.cut(reduce_noise((pixels + 1) / 2), places.corners)
    return Windows(pipeline, corners, without_margin(kernel_of(reading)), is_linear(reading))


def places_of_fields(pixels: Tensor, reading: BlurReading) -> "Places | None":
    """The grid on which a field is read in one image `(1, 3, H, W)`; None where none is (`read_field`)."""
    narrow = without_margin(kernel_of(reading)).shape[-1] <= SIZE
    return Places.over(*pixels.shape[-2:]) if is_shake(reading) and narrow else None


@dataclass(frozen=True)
class Places:
    """A grid of `rows` x `columns` cells over an image of `height` x `width` pixels, and a window around each."""

    height: int
    width: int
    rows: int
    columns: int
    window: int

    @classmethod
    def over(cls, height: int, width: int) -> "Places | None":
        """The grid of an image; None where it is too small to have several."""
        step = max(STEP, max(height, width) / MOST)
        rows, columns = (max(1, int(side / step + 1e-6)) for side in (height, width))  # one in the narrowest panorama
        if min(height, width) < SMALLEST_WINDOW or max(rows, columns) < 3:
            return None
        window = min(max(WINDOW, round(5 * step / 3)), LARGEST, height, width)
        return cls(height, width, rows, columns, window)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def corners(self) -> list[int]:
        """The numbers of the cells at the corners."""
        return sorted(
            {row * self.columns + column for row, column in product((0, self.rows - 1), (0, self.columns - 1))}
        )

    def starts(self) -> list[tuple[int, int]]:
        """First row and column of each window: it lies around the middle of its cell, but inside the image."""

        def along(side: int, cells: int) -> list[int]:
            middles = [(cell + 0.5) / cells * side for cell in range(cells)]
            return [min(max(round(middle - self.window / 2), 0), side - self.window) for middle in middles]

        return list(product(along(self.height, self.rows), along(self.width, self.columns)))

    def cut(self, images: Tensor, which) -> Tensor:
        """Windows `(len(which), C, h, w)` of one image `(1, C, H, W)`."""
        corners = [self.starts()[cell] for cell in which]
        return torch.cat([images[..., top : top + self.window, left : left + self.window] for top, left in corners])

    def positions(self, device=None) -> Tensor:
        """Where the middles of windows lie, `(count, 2)`, down and right of the photograph's; 1 at its farther edge."""
        at = torch.tensor(self.starts(), device=device) + self.window / 2
        sides = torch.tensor([self.height, self.width], device=device)
        return (2 * at - sides) / sides.max()

    def nearness(self, device=None) -> Tensor:
        """How near cells are to each other, `(count, count)`: 1 for a cell and itself, 0 from two cells away on."""
        at = torch.cartesian_prod(*(torch.arange(one, device=device) for one in (self.rows, self.columns))).float()
        return (1 - torch.cdist(at, at) / 2).clamp_min(0)


class Windows:
    """Windows `(S, 3, h, w)` in [0, 1] of an image, and what is known of its blur: one kernel `(1, k, k)`, and whether
    it blurred linear light.
    """

    def __init__(self, pipeline, images: Tensor, kernels: Tensor, linear: bool):
        self.pipeline, self.images, self.linear = pipeline, images, linear
        self.lights, self.visible = seen(images, linear), unclipped(images) if linear else None
        self.kernels = kernels.expand(len(images), -1, -1)
        self.residuals = self.residual(self.kernels)

    def residual(self, kernels: Tensor) -> Tensor:
        """The `reblur_residual` `(S,)` of a kernel `(S, k, k)` in each."""
        return reblur_residual(self.lights, kernels)

    def better(self, kernels: Tensor) -> bool:
        """Whether some window is explained clearly better by its own of these kernels `(S, k, k)`."""
        return bool((self.residual(kernels) < DIFFERS * self.residuals).any())

    def edges(self, kernels: Tensor) -> Tensor:
        """The strong edges `(S, 2, h, w)` of each, deblurred by these kernels `(S, k, k)`."""
        deblurred = [
            seen((self.pipeline.deblur_window(images * 2 - 1, own) + 1) / 2, self.linear)
            for images, own in zip(self.images.split(AT_ONCE), kernels.split(AT_ONCE), strict=True)
        ]
        sharp = torch.cat(deblurred)
        counts = kernels.new_full((len(kernels),), EDGES * kernels.shape[-1])
        return strong_gradients(sharp, edge_threshold(sharp, counts, self.visible), self.visible)

    def refined(self, kernels: Tensor) -> Tensor:
        """Better kernels `(S, k, k)` for each, from the edges of the pictures deblurred by these (`refine`)."""
        return self.explaining(self.edges(kernels))

    def explaining(self, edges: Tensor) -> Tensor:
        """The kernels `(S, k, k)` that explain each from the sharp edges `(S, 2, h, w)`. They are not centred: so
        all windows keep the geometry of the picture that they were deblurred to, and none moves against another.
        """
        ridge, floor = (edges.new_full((len(edges),), value) for value in (RIDGE, FLOOR))
        found = kernel_from_edges(edges, self.lights, self.kernels.shape[-1], ridge, BORDER)
        return clean(found.clamp_min(0), floor)

    def read(self, places: Places) -> tuple[Tensor, Tensor]:
        """A kernel of its own for each, `(S, k, k)`, and whether it explains the window better, `(S,)`."""
        own = self.kernels
        for _ in range(ROUNDS):
            edges = self.edges(own)
            own = shared(self.explaining(edges), self.lights, places.nearness(own.device))
        turning = pose_kernels(edges, self.lights, self.kernels[:1], places.positions(own.device))
        found = torch.stack([self.residual(own), self.residual(turning)])
        index = int(found.mean(1).argmin())
        return (own, turning)[index], found[index] < self.residuals


def without_margin(kernels: Tensor) -> Tensor:
    """Kernels `(B, k, k)` of `SIZE` pixels if these hold all of them: as one image has them, whatever is beside it."""
    more = (kernels.shape[-1] - SIZE) // 2
    inner = kernels[:, more : kernels.shape[-1] - more, more : kernels.shape[-1] - more]
    return inner if more > 0 and inner.sum() > 0.99999 * kernels.sum() else kernels


def shared(kernels: Tensor, lights: Tensor, nearness: Tensor) -> Tensor:
    """Kernels `(S, k, k)` averaged with those of their neighbours that are alike, by how many edges each one saw."""
    apart = torch.stack([distances(one, kernels) for one in kernels.split(1)])
    shown = (lights.diff(dim=-1).abs().mean((1, 2, 3)) + lights.diff(dim=-2).abs().mean((1, 2, 3))).square()
    weights = nearness * torch.exp(-apart / ALIKE) * shown
    return normalize(torch.einsum("st,tij->sij", weights, kernels))
