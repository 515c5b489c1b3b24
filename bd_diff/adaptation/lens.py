"""The one kernel of a lens, from all photographs of a folder together, and whether there is one.

A shake differs from photograph to photograph, but a lens blurs all of them alike. What one photograph tells of its
kernel is ambiguous; the edges of many, in one least squares, leave little doubt, and ask for no family of blurs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bd_diff.blur.camera import Camera, to_light
from bd_diff.blur.kernels import centre, normalize
from bd_diff.data.crops import PhotographSource, seeded
from bd_diff.data.noise import noise_level
from bd_diff.data.pixels import as_floats, luminance
from bd_diff.reading.confidence import distances
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import (
    GROWTH,
    best_window,
    edge_threshold,
    gradients_inside,
    kernel_from_edges,
    l0_deblur,
    strong_gradients,
)

FEWEST, MOST = 6, 16  # photographs: fewer tell no two kernels, more are not looked at
UNLIKE = 0.0075  # see `Lens` (ours, measured on made domains)
SIDE = 192  # pixels a side of the window of each
ROUNDS, CORRECTIONS = 8, 2
SMOOTHNESS = 2e-3, 2e-4  # of the L0 deblurring, in the first round and in the last one (ours)
EDGES, RIDGE, FLOOR = 30.0, 4.0, 0.004  # edges a pixel of the kernel's side; the floor is a share of the maximum (ours)


@dataclass(frozen=True)
class Lens:
    """A kernel `(1, k, k)` that photographs share, and whether they do.

    unlike: mean distance (`bd_diff.reading.confidence.distances`) of what is read in each photograph to the mean of
    these readings.
    """

    kernel: Tensor
    unlike: float
    photographs: int

    @property
    def why_not(self) -> str | None:
        """Why the photographs are not of one lens, in words; None where they may be."""
        if self.unlike > UNLIKE:
            return f"these photographs do not share one blur: what is read in them differs too much ({self.unlike:.3f})"
        return None

    def figures(self) -> dict[str, Any]:
        """What a JSON report holds."""
        return {"photographs": self.photographs, "unlike": self.unlike, "why_not": self.why_not}


@torch.no_grad()
def find_lens(photographs: list[Tensor], read: Tensor, sharp: PhotographSource) -> Lens:
    """What photographs `(1, 3, H, W)` in [0, 1] share, from the kernels `(N, k, k)` that are read in them and sharp
    photographs `(3, H, W)` of other scenes, uint8 or floats in [0, 1].

    Least squares on blurry edges are biased, and readings are, where the blur is of no family that the model knows. So
    sharp photographs blurred by the mean reading are asked what their edges tell, and the mean is corrected by how far
    that is from what the photographs' edges tell; then once more from there (indirect inference, Gourieroux et al.
    1993). Each correction is shortened by its own error (`correction`), so a kernel that is read rightly stays.
    """
    kernel, count = mean_reading(read), len(photographs)
    unlike = float(distances(kernel, read).mean())
    if unlike > UNLIKE:
        return Lens(kernel, unlike, count)
    lights = lights_of(photographs)
    noise = float(torch.cat([noise_level(luminance(one)) for one in photographs]).median())
    for _ in range(CORRECTIONS):
        known = lights_of([blurred_like(sharp[index], kernel, noise, index) for index in range(min(len(sharp), MOST))])
        whole, first, second = (
            shared_kernel(lights[part], kernel) - shared_kernel(known[part], kernel)
            for part in (slice(None), slice(0, None, 2), slice(1, None, 2))
        )
        kernel = clean(kernel + correction(kernel, whole, (first, second)))
    return Lens(kernel, unlike, count)


def correction(kernel: Tensor, whole: Tensor, halves: tuple[Tensor, Tensor]) -> Tensor:
    """What to add to a kernel `(1, k, k)`, from what all photographs say and what two halves of them say, each
    `(1, k, k)`.

    The halves are apart by four times the squared error of the whole. It is shortened by the share that its error has
    in its square, to nothing where it is no larger than that (positive-part estimator of James and Stein, 1961).
    """
    error = float(distances(*(clean(kernel + one) for one in halves))) / 4
    size = float(distances(kernel, clean(kernel + whole)))
    return whole * max(0.0, 1 - error / max(size, 1e-9))


def clean(kernel: Tensor) -> Tensor:
    """A kernel `(1, k, k)` without what is negative or faint, centred, of sum one."""
    return centre(normalize(kernel * (kernel >= FLOOR * kernel.amax())))


def blurred_like(sharp: Tensor, kernel: Tensor, noise: float, seed: int) -> Tensor:
    """The middle of a sharp photograph `(3, H, W)`, uint8 or floats in [0, 1], taken through a lens of kernel
    `(1, k, k)`, as `(1, 3, h, w)`.
    """
    sharp = as_floats(sharp)
    reach = kernel.shape[-1] // 2
    wide = [min(side, SIDE + 2 * reach) for side in sharp.shape[1:]]
    top, left = ((side - own) // 2 for side, own in zip(sharp.shape[1:], wide, strict=True))
    window = sharp[None, :, top : top + wide[0], left : left + wide[1]]
    taken = Camera("srgb", read=noise).capture(window, kernel, seeded(seed))
    return taken[..., reach : wide[0] - reach, reach : wide[1] - reach].clamp(0, 1)


def mean_reading(read: Tensor) -> Tensor:
    """The mean `(1, k, k)` of kernels `(N, k, k)`."""
    return normalize(read.mean(0, keepdim=True))


def evenly(items: list, most: int) -> list:
    """At most so many of them, evenly chosen."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def lights_of(photographs: list[Tensor]) -> Tensor:
    """Luminance in linear light `(N, 1, h, w)` of the windows with most edges, calmed, of photographs `(1, 3, H, W)` in
    [0, 1]; all are equally strong, that none outvotes the others.
    """
    side = min(SIDE, *(side for one in photographs for side in one.shape[-2:]))
    windows = torch.cat([reduce_noise(one[best_window(luminance(one), side)]) for one in photographs])
    lights = luminance(to_light(windows, "srgb"))
    strengths = gradients_inside(lights).square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return lights * (strengths.mean() / strengths)


@torch.no_grad()
def shared_kernel(lights: Tensor, start: Tensor) -> Tensor:
    """The kernel `(1, k, k)` that explains lights `(N, 1, h, w)` together, from a first guess `(1, k, k)`.

    In rounds, edges of the L0 deblurring with the kernel give the next kernel, as
    `bd_diff.reading.kernel_search.search_kernels` does for one photograph, in one least squares for all.
    """
    count, size, kernel = len(lights), start.shape[-1], centre(normalize(start))
    for step in range(ROUNDS):
        share = step / (ROUNDS - 1)
        smoothness = SMOOTHNESS[0] ** (1 - share) * SMOOTHNESS[1] ** share
        sharp = l0_deblur(lights, kernel.expand(count, -1, -1), lights.new_full((count,), smoothness), growth=GROWTH)
        edges = strong_gradients(sharp, edge_threshold(sharp, lights.new_full((count,), EDGES * size)))
        # As the gradients of one picture with many channels: all across, then all down.
        together = edges.transpose(0, 1).flatten(0, 1)[None]
        kernel = kernel_from_edges(together, lights.transpose(0, 1), size, lights.new_full((1,), RIDGE), border=16)
        kernel = clean(kernel)
    return kernel
