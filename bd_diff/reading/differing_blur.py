"""Blur that differs over the photograph: cameras that turn.

The kernel that is known of the photograph was seen at some place. The poses of the camera that explain all others, too
(`camera_poses`), tell kernels on a grid, which fade into each other (Harmeling et al., "Space-variant single-image
blind deconvolution for removing camera shake", 2010). They are believed if they explain the photograph clearly better
than the one kernel does (ours).
"""

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import SIZE
from bd_diff.reading.blur_reading import BlurReading, is_linear
from bd_diff.reading.camera_poses import find_poses
from bd_diff.reading.denoise import is_noisy, reduce_noise
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
SMALL = 112  # pixels a side of those windows that poses are found from
ALONG = 5  # kernels of a field along each side
TURNED = 0.976  # of what one kernel leaves, the most that poses leave where a camera turned (ours, measured)
EDGES, RIDGE, FLOOR, BORDER = 15, 4.0, 0.05, 16  # see `refined` (ours, measured, as in `blur_reading.refine`)
ROUNDS = 3  # of a corner's kernel and picture in turns
AT_ONCE = 8  # windows that are deblurred together
DIFFERS = 0.975  # share of the residual that some corner must fall below for poses to be looked for (ours, measured)


@torch.no_grad()
def read_field(pipeline, pixels: Tensor, reading: BlurReading, differs: bool) -> BlurField | Tensor:
    """The blur of one image `(1, 3, H, W)` in [-1, 1] of which one `reading` is known: kernels `(1, k, k)`, those of
    the reading, or a field where that explains the image better; at the scale of the reading. Where the search found no
    shake without doubt, or not one of light, which is what cameras average, in small images, and for kernels wider than
    `SIZE`, which were carried to full size, it is one. No more is read unless it `differs`, see
    `corner_search.ask_corners`.
    """
    kernel, scale = without_margin(kernel_of(reading)), 1.0 if reading.scale is None else float(reading.scale)
    pixels = reduced(pixels, scale)
    places = places_of_fields(pixels, reading)
    if places is None or not differs or not is_linear(reading):
        return kernel
    places = replace(places, window=SMALL)
    windows = places.quiet(pixels, range(places.count))
    lights, middles = seen(windows, linear=True), places.positions(pixels.device)
    poses = find_poses(lights, unclipped(windows), middles, kernel)
    left = reblur_residual(lights, poses.kernels(middles)) / reblur_residual(lights, kernel.expand(len(lights), -1, -1))
    if left.mean() > TURNED:
        return kernel
    down, right = (
        side / max(pixels.shape[-2:]) * (2 * torch.arange(ALONG, device=pixels.device) + 1 - ALONG) / ALONG
        for side in pixels.shape[-2:]
    )
    told = pipeline.tell(BlurReading(poses.kernels(torch.cartesian_prod(down, right)))).kernels
    return BlurField(told, torch.eye(ALONG**2, device=pixels.device).view(-1, ALONG, ALONG))


def corner_windows(pipeline, pixels: Tensor, reading: BlurReading) -> "Windows | None":
    """The windows at the corners of one image `(1, 3, H, W)` in [-1, 1], with the kernel of its reading; None where
    there is no field to be read (`read_field`).
    """
    if (places := places_of_fields(pixels, reading)) is None:
        return None
    corners = places.quiet(pixels, places.corners)
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

    def quiet(self, pixels: Tensor, which) -> Tensor:
        """Windows `(len(which), 3, h, w)` in [0, 1] of one image `(1, 3, H, W)` in [-1, 1], smoother if it is noisy; it
        is not smoothed as a whole, since it may be large.
        """
        return reduce_noise((self.cut(pixels, which) + 1) / 2, is_noisy((pixels + 1) / 2))

    def positions(self, device=None) -> Tensor:
        """Where the middles of windows lie, `(count, 2)`, down and right of the photograph's; 1 at its farther edge."""
        at = torch.tensor(self.starts(), device=device) + self.window / 2
        sides = torch.tensor([self.height, self.width], device=device)
        return (2 * at - sides) / sides.max()


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
        """Better kernels `(S, k, k)` for each, from the edges of the pictures deblurred by these (`refine`). They are
        not centred: so all windows keep the geometry of the picture that they were deblurred to.
        """
        edges = self.edges(kernels)
        ridge, floor = (edges.new_full((len(edges),), value) for value in (RIDGE, FLOOR))
        found = kernel_from_edges(edges, self.lights, self.kernels.shape[-1], ridge, BORDER)
        return clean(found.clamp_min(0), floor)


def without_margin(kernels: Tensor) -> Tensor:
    """Kernels `(B, k, k)` of `SIZE` pixels if these hold all of them: as one image has them, whatever is beside it."""
    more = (kernels.shape[-1] - SIZE) // 2
    inner = kernels[:, more : kernels.shape[-1] - more, more : kernels.shape[-1] - more]
    return inner if more > 0 and inner.sum() > 0.99999 * kernels.sum() else kernels
