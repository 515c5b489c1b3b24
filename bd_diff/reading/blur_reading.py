"""What the pipeline knows of an image's blur, and how it looks harder: readings that compete."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from bd_diff.blur.kernels import delta, same_size, shape_of
from bd_diff.data.noise import blockiness
from bd_diff.data.pixels import luminance
from bd_diff.models.conditioning import SMOOTH
from bd_diff.reading.confidence import BETTER, contradict, favouring_first, seems_path, shares, uncertain
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import best_window, reblur_residual, search_evidence
from bd_diff.reading.refinement import refine, refine_in_their_light, seen

CONFIDENT, UNDERRATED, CLEARLY = 0.3, 2, 0.6  # see `search_blur` (ours, measured on training photographs)
NARROW, STRAIGHT, EXPLAINS, AS_WELL = 1.0, 0.9, 0.95, 1.15  # see `certain` (likewise)


@dataclass
class BlurReading(BaseOutput):
    """The blur of images: with a blur decoder `kernels` `(B, k, k)`; once it is told, or without one, blur `tokens`
    `(B, T, D)`.

    `search_confidence` `(B,)` in [0, 1]: the image encoder's confidence in what the search finds in such an image, more
    where a path was found instead of a cloud (`search_blur`).
    `doubtful` `(B,)`: whether the readings contradict each other. `scale` `(B,)`: below 1 where the kernels are those
    of the image made smaller by it. `linear` `(B,)`: whether a shake was found that blurred linear light.
    """

    kernels: Tensor | None = None
    tokens: Tensor | None = None
    search_confidence: Tensor | None = None
    doubtful: Tensor | None = None
    scale: Tensor | None = None
    linear: Tensor | None = None


def is_linear(reading: BlurReading) -> bool:
    """Whether a shake was found in one image that blurred linear light."""
    return reading.linear is not None and bool(reading.linear)


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

    Readings compete (`Rivals`) in the denoised window with most edges. If `config.refinements` is set, kernels are also
    refined: all hypotheses of the search, in the light in which the photograph was blurred
    (`bd_diff.reading.refinement`), and then the best of them once more. That is done only where the encoder is
    `CONFIDENT` of the search, or the first hypothesis leaves less than `CLEARLY` of what the reading without the search
    does; elsewhere there is no shake, and the networks read soft blur and straight lines better than least squares do.
    Where what is read without the search `seems_path`, the search goes on to its end, and the encoder's confidence
    counts `UNDERRATED` times. Where a very different kernel explains the photograph as well, the reading without the
    search is returned, and is `doubtful` unless it can be right by itself (`certain`).

    found: hypotheses and evidence of `search_evidence`, if it has already run. free: the reading without the search,
        likewise.
    """
    window = calm_window(pixels)
    free = pipeline.read_blur(pixels) if free is None else free
    assert free is not None and free.kernels is not None  # there is a blur decoder
    rivals = Rivals(window)
    plausible, path = certain(free.kernels, rivals.light), seems_path(free.kernels)
    if found is None:
        found = search_evidence(rivals.light, free.kernels if plausible and not path else None)
    if found is None:
        return replace(free, doubtful=torch.zeros(1, dtype=torch.bool, device=pixels.device))
    hypotheses, evidence = found
    searched = pipeline.read_blur(pixels, hypotheses[:, 0], evidence)
    rivals.add(free.kernels, searched.kernels)
    index = rivals.best()
    doubtful = contradict(free.kernels, searched.kernels, (rivals.residuals[0], rivals.residuals[1]))
    linear = torch.zeros_like(doubtful)
    trust = searched.search_confidence * (UNDERRATED if path else 1)
    shaken = bool(searched.search_confidence > CONFIDENT) or rivals.share(hypotheses[:, 0]) < CLEARLY
    if pipeline.config.refinements and (shaken or trust > CONFIDENT):
        refined, lit = refine_in_their_light(pipeline, window, torch.cat([searched.kernels, hypotheses[0]]))
        if lit:
            rivals = Rivals(window, True, rivals.kernels)
        rivals.add(*refined.split(1))
        rivals.add(refine(pipeline, window, rivals.kernels[rivals.best_found()], lit))
        kernels, left = torch.cat(rivals.kernels), rivals.left()
        # What is refined last is nearest to the truth, though others may fit the window better.
        index = len(left) - 1 if left[-1] < BETTER else favouring_first(kernels, left)
        torn = uncertain(kernels, left, index, rivals.blocks)
        index = 0 if torn else index
        if shaken or not torn:  # what only may be a path is not in doubt for finding none
            doubtful = torn & (not plausible)
        if index > 0:
            searched = replace(searched, search_confidence=trust.clamp_max(1))
        linear = torch.full_like(doubtful, lit and index > 0)
    return replace(searched, kernels=rivals.kernels[index], doubtful=doubtful, linear=linear)


class Rivals:
    """Kernels `(1, k, k)` that compete for a window `(1, 3, h, w)` in [0, 1], seen in display values or `linear` light:
    the one that leaves least unexplained (`reblur_residual`, without noise's part) wins, and the first one, read
    without the search, has an advantage: others must leave less than `BETTER` of what it does.
    """

    def __init__(self, window: Tensor, linear: bool = False, kernels: Sequence[Tensor] = ()):
        self.light, self.blocks = seen(window, linear), shows_blocks(window)
        self.kernels: list[Tensor] = []
        self.residuals: list[Tensor] = []
        self.add(*kernels)

    def add(self, *kernels: Tensor) -> None:
        """More kernels."""
        self.kernels.extend(kernels)
        self.residuals.extend(reblur_residual(self.light, one) for one in kernels)

    def left(self) -> Tensor:
        """The `shares` `(S,)` that they leave unexplained."""
        return shares(torch.cat(self.residuals), [self.light])

    def share(self, kernel: Tensor) -> float:
        """What another kernel leaves, as a share of what the first one does."""
        return float(shares(torch.cat([self.residuals[0], reblur_residual(self.light, kernel)]), [self.light])[1])

    def best(self) -> int:
        """Index of the winner."""
        left = self.left()
        return 1 + int(left[1:].argmin()) if left[1:].min() < BETTER * left[0] else 0

    def best_found(self) -> int:
        """Index of the best but the first."""
        return 1 + int(self.left()[1:].argmin())


def shows_blocks(window: Tensor) -> bool:
    """Whether blocks of JPEG show in a window `(1, 3, h, w)` in [0, 1]."""
    return bool(blockiness(luminance(window)) > SMOOTH)


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
