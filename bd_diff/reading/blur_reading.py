"""What the pipeline knows of an image's blur, and how it looks harder: kernel search, then kernel and picture in turns.

The search imagines the sharp photograph as flat regions with edges. What the UNet makes of it is nearer to the truth,
so least squares on the edges of that give a better kernel, which gives a better picture, and so on (ours; alternating
the two is as old as Xu and Jia, "Two-phase kernel estimation for robust motion deblurring", 2010).
"""

import math
from dataclasses import dataclass, fields, replace

import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from bd_diff.blur.kernels import centre, delta, same_size, shape_of
from bd_diff.data.pixels import luminance
from bd_diff.reading.confidence import contradict, shares, uncertain
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import (
    best_window,
    clean,
    edge_threshold,
    kernel_from_edges,
    reblur_residual,
    search_evidence,
    strong_gradients,
)

CONFIDENT, CLEARLY, BETTER = 0.3, 0.6, 0.88  # see `search_blur` (ours, measured on training photographs)
NARROW, STRAIGHT, EXPLAINS, AS_WELL = 1.0, 0.9, 0.95, 1.15  # see `certain` (ours, measured on training photographs)


@dataclass
class BlurReading(BaseOutput):
    """The blur of images: with a blur decoder `kernels` `(B, k, k)`; once it is told, or without one, blur `tokens`
    `(B, T, D)`.

    `search_confidence` `(B,)` in [0, 1]: the image encoder's confidence in what the search finds in such an image.
    `doubtful` `(B,)`: whether the readings contradict each other. `scale` `(B,)`: below 1 where the kernels are those
    of the image made smaller by it.
    """

    kernels: Tensor | None = None
    tokens: Tensor | None = None
    search_confidence: Tensor | None = None
    doubtful: Tensor | None = None
    scale: Tensor | None = None


def stack(readings: list[BlurReading]) -> BlurReading:
    """Readings of single images as one of all; small kernels get margins, as large ones are. What only some tell is
    nothing for the others: no doubt, scale 1.
    """
    joined: dict = {}
    for name in (one.name for one in fields(BlurReading)):
        values = [getattr(reading, name) for reading in readings]
        given = next((value for value in values if value is not None), None)
        if name == "kernels" and given is not None:
            values = same_size(values)
        if given is not None:
            nothing = torch.full_like(given, name == "scale")
            joined[name] = torch.cat([nothing if value is None else value for value in values])
    return BlurReading(**joined)


def unstack(reading: BlurReading) -> list[BlurReading]:
    """The reading of each image by itself."""
    values = {one.name: getattr(reading, one.name) for one in fields(BlurReading)}
    count = max(len(value) for value in values.values() if value is not None)
    split = {name: [None] * count if value is None else value.split(1) for name, value in values.items()}
    return [BlurReading(**{name: each[index] for name, each in split.items()}) for index in range(count)]


@torch.no_grad()
def search_blur(
    pipeline, pixels: Tensor, found: tuple[Tensor, Tensor] | None = None, free: BlurReading | None = None
) -> BlurReading:
    """The blur of one image `(1, 3, H, W)` in [-1, 1]: of several readings the one that explains it best.

    Readings compete: the kernel that leaves least unexplained (`reblur_residual`, without noise's part) in the
    denoised window with most edges wins, and the reading without the search keeps an advantage (`BETTER`). If
    `config.refinements` is set, kernels are also refined (`refine`): all hypotheses of the search, and then the
    best of them once more. That is done only where the encoder is `CONFIDENT` of the search, or the first
    hypothesis leaves less than `CLEARLY` of what the reading without the search does; elsewhere there is no shake,
    and the networks read soft blur and straight lines better than least squares do. Where a very different kernel
    explains the photograph as well, the reading without the search is returned, and is `doubtful` unless it can be
    right by itself (`certain`).

    found: hypotheses and evidence of `search_evidence`, if it has already run. free: the reading without the search,
        likewise.
    """
    window = calm_window(pixels)
    light = luminance(window)
    free = pipeline.read_blur(pixels) if free is None else free
    assert free is not None and free.kernels is not None  # there is a blur decoder
    plausible = certain(free.kernels, light)
    if found is None:
        found = search_evidence(light, free.kernels if plausible else None)
    if found is None:
        return replace(free, doubtful=torch.zeros(1, dtype=torch.bool, device=pixels.device))
    hypotheses, evidence = found
    searched = pipeline.read_blur(pixels, hypotheses[:, 0], evidence)
    kernels: list[Tensor] = []
    residuals: list[Tensor] = []

    def best(*more: Tensor) -> tuple[int, Tensor]:
        """Index of the kernel that explains the window best, of all so far and `more`; the first has an advantage.
        And the `shares` that they leave unexplained.
        """
        kernels.extend(more)
        residuals.extend(reblur_residual(light, one) for one in more)
        left = shares(torch.cat(residuals), [light])
        return favouring_first(left), left

    index, _ = best(free.kernels, searched.kernels)
    doubtful = contradict(free.kernels, searched.kernels, (residuals[0], residuals[1]))

    def clearly() -> bool:
        """Whether the first hypothesis explains much more than the reading without the search does."""
        return bool(shares(torch.cat([residuals[0], reblur_residual(light, hypotheses[:, 0])]), [light])[1] < CLEARLY)

    if pipeline.config.refinements and (searched.search_confidence > CONFIDENT or clearly()):
        refined = refine(pipeline, window, torch.cat([searched.kernels, hypotheses[0]]))
        index, _ = best(*refined.split(1))
        index, left = best(refine(pipeline, window, kernels[index]))
        if left[-1] < BETTER:  # what is refined last is nearest to the truth, though others may fit the window better
            index = len(kernels) - 1
        doubtful = uncertain(torch.cat(kernels), left, index)
        if doubtful:
            index, doubtful = 0, doubtful & (not plausible)
    return replace(searched, kernels=kernels[index], doubtful=doubtful)


def favouring_first(left: Tensor) -> int:
    """Index of the least of the `shares` `(S,)` that kernels leave unexplained; the first one has an advantage."""
    return int((left * left.new_tensor([BETTER] + [1.0] * (len(left) - 1))).argmin())


def calm_window(pixels: Tensor, side: int = 256) -> Tensor:
    """The window with most edges, `side` pixels or all, of pixels `(1, 3, H, W)` in [-1, 1]: in [0, 1], denoised."""
    return reduce_noise((pixels[best_window(luminance(pixels), side)] + 1) / 2)


def certain(kernel: Tensor, light: Tensor) -> bool:
    """Whether a kernel `(1, k, k)` read without the search can be right, so that the search may end where it finds
    nothing clearly better: no blur, a straight line that explains the luminance `(1, 1, h, w)` about as well as no
    blur does, or anything that explains it better. What is read of a shake is a cloud as large as it, which explains
    nothing, and of two pulses a line.
    """
    spread, *elongation = (float(one) for one in shape_of(kernel[0]))
    if spread < NARROW:
        return True
    most = AS_WELL if math.hypot(*elongation) > STRAIGHT else EXPLAINS
    nothing = delta(1, kernel.shape[-1], kernel.device)
    return bool(reblur_residual(light, kernel) < most * reblur_residual(light, nothing))


def refine(pipeline, window: Tensor, kernels: Tensor) -> Tensor:
    """Better kernels `(S, k, k)` for a window `(1, 3, h, w)` in [0, 1], each in `config.refinements` rounds.

    Settings as in `kernel_search.Start` (ours, measured).
    """
    windows = window.expand(len(kernels), -1, -1, -1)
    lights, size = luminance(windows), kernels.shape[-1]
    edges, ridge, floor = (kernels.new_full((len(kernels),), value) for value in (30.0 * size, 4.0, 0.05))
    for _ in range(pipeline.config.refinements):
        sharp = (luminance(pipeline.deblur_window(windows * 2 - 1, kernels)) + 1) / 2
        strongest = strong_gradients(sharp, edge_threshold(sharp, edges))
        kernels = kernel_from_edges(strongest, lights, size, ridge, border=16)
        kernels = centre(clean(kernels.clamp_min(0), floor))
    return kernels
