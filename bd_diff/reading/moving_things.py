"""Things that moved by themselves before a camera that stood still.

Where a camera moved, every window of the photograph, read by itself, shows blur. Where it stood still, many show none;
those on a thing that moved show a line, since in so short a time things go straight on. Windows of grass, of fur or of
rain seem to have such a blur, too, but a line across explains these about as well, and what is really blurred much
worse (ours).
"""

from dataclasses import dataclass, replace
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import delta, shape_of
from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.confidence import distances
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.differing_blur import AT_ONCE
from bd_diff.reading.kernel_search import SMALLEST_WINDOW, gradients_inside, reblur_residual
from bd_diff.reading.pyramid import kernel_of, reduced, spread
from bd_diff.reading.refuted import LONGEST, believed, fits, missed
from bd_diff.reading.verdict import is_nothing

WINDOW, STEP, MOST = 128, 64, 7  # pixels a side of a window, and at least from one to the next; windows along a side
# All that follow: ours, measured on photographs of the training.
FLAT = 0.008  # mean gradient below which a window shows nothing
STILL = 1 / 6  # share of windows without blur from which on the camera stood still; where it moved up to 1/8 have none
LINE, LONG = 0.8, 2.0  # elongation and standard deviation in pixels from which on a kernel is a line
ACROSS, NONE = 0.9, 1.1  # times what a line across, and no blur, leave unexplained: a line that is there leaves less
ALIKE = 0.05  # distance of kernels up to which windows see the same thing
AROUND = 32  # pixels around its windows to which a thing may reach


@dataclass(frozen=True)
class WindowReadings:
    """Windows `(S, 3, h, w)` in [-1, 1] on a grid over an image, their first rows and columns, and the kernels
    `(S, k, k)` that are read in each by itself, without the search.
    """

    corners: list[tuple[int, int]]
    pixels: Tensor
    kernels: Tensor

    @classmethod
    def read(cls, pipeline, pixels: Tensor) -> "WindowReadings":
        """Those of one image `(1, 3, H, W)` in [-1, 1]."""
        step = max(STEP, (max(pixels.shape[-2:]) - WINDOW) / (MOST - 1))

        def starts(side: int) -> list[int]:
            count = max(1, round((side - WINDOW) / step))
            return [round(index * (side - WINDOW) / count) for index in range(count + 1)]

        corners = [*product(starts(pixels.shape[-2]), starts(pixels.shape[-1]))]
        windows = torch.cat([pixels[..., top : top + WINDOW, left : left + WINDOW] for top, left in corners])
        kernels = torch.cat([kernel_of(pipeline.read_blur(some)) for some in windows.split(AT_ONCE)])
        return cls(corners, windows, kernels)

    @property
    def still(self) -> bool:
        """Whether the camera stood still: whether many of those that show something have no blur."""
        shows = gradients_inside(luminance((self.pixels + 1) / 2)).abs().mean((1, 2, 3)) > FLAT
        return bool((is_nothing(self.kernels) & shows).sum() >= STILL * shows.sum().clamp_min(1))


@dataclass(frozen=True)
class Thing:
    """The windows in which a thing is seen, as first rows and columns, and the kernel `(1, k, k)` of each."""

    corners: list[tuple[int, int]]
    kernels: list[Tensor]


@torch.no_grad()
def stood_still(pipeline, pixels: Tensor, reading: BlurReading) -> bool:
    """Whether the camera stood still that made an image `(1, 3, H, W)` in [-1, 1], whatever blur a `reading` has; never
    in small images. Large ones, which may be soft at full size, are made smaller, to `LONGEST`, as long as the blur
    that was read remains `LONG` in them; where it does not fit (`fits`), to its scale at least.
    """
    scale = 1.0 if reading.scale is None else float(reading.scale)
    longest, wide = max(pixels.shape[-2:]), spread(kernel_of(reading)) / scale
    most = 1.0 if fits(kernel_of(reading), scale) else scale
    seen = reduced(pixels, min(most, max(LONGEST / longest, LONG / max(wide, 1e-3))))
    return min(seen.shape[-2:]) >= SMALLEST_WINDOW and WindowReadings.read(pipeline, seen).still


@torch.no_grad()
def with_moving_things(pipeline, pixels: Tensor, reading: BlurReading) -> tuple[BlurReading, BlurField | Tensor]:
    """What a camera that stood still saw in one image `(1, 3, H, W)` in [-1, 1]: the `reading` without its blur, if it
    has one, and the field of those things that moved by themselves, at the reading's scale, which makes the image no
    longer than `LONGEST`. The kernel `(1, k, k)` of no blur where there is no such thing, and in small images.
    """
    nothing = delta(1, kernel_of(reading).shape[-1], pixels.device)
    scale = min(1.0, LONGEST / max(pixels.shape[-2:]))
    small = reduced(pixels, scale)
    things = moving_things(WindowReadings.read(pipeline, small)) if min(small.shape[-2:]) >= SMALLEST_WINDOW else []
    if not things:
        return replace(reading, kernels=nothing, doubtful=None, scale=None), nothing
    means = torch.cat([torch.cat(one.kernels).mean(0, keepdim=True) for one in things])
    told = pipeline.tell(BlurReading(means)).kernels
    shares = torch.cat([share_of(pipeline, small, *one) for one in zip(things, told.split(1), strict=True)])
    shares = shares / shares.sum(0).clamp_min(1)
    field = BlurField(
        torch.cat([delta(1, told.shape[-1], told.device), told]), torch.cat([1 - shares.sum(0, keepdim=True), shares])
    )
    return replace(reading, doubtful=None, scale=told.new_full((1,), scale)), field


def moving_things(windows: WindowReadings) -> list[Thing]:
    """The things that moved by themselves, those first that are surest."""
    lines = [index for index, kernel in enumerate(windows.kernels) if is_line(kernel)]
    sure = {index: unlikeness(windows.pixels[index, None], windows.kernels[index, None]) for index in lines}
    things: list[Thing] = []
    for index in sorted((one for one in lines if sure[one] < 1), key=sure.__getitem__):
        own = windows.kernels[index, None]
        thing = next((one for one in things if distances(one.kernels[0], own) < ALIKE), Thing([], []))
        if not thing.corners:
            things.append(thing)
        thing.corners.append(windows.corners[index])
        thing.kernels.append(own)
    return things


def is_line(kernel: Tensor) -> bool:
    """Whether a kernel `(k, k)` is a line of some length."""
    width, *elongation = shape_of(kernel)
    return not is_nothing(kernel[None]) and bool(width >= LONG and torch.stack(elongation).norm() >= LINE)


def unlikeness(window: Tensor, line: Tensor) -> float:
    """How little a window `(1, 3, h, w)` in [-1, 1] looks as if it was blurred by a line `(1, k, k)`: below 1 it does.

    What the line leaves unexplained, as a share of what may be left: `ACROSS` times what the line turned by a right
    angle leaves, and `NONE` times what no blur leaves.
    """
    light = luminance(reduce_noise((window + 1) / 2))
    others = line.rot90(1, (1, 2)), delta(1, line.shape[-1], line.device)
    own, across, none = (reblur_residual(light, one) for one in (line, *others))
    return float(own / torch.minimum(ACROSS * across, NONE * none))


def share_of(pipeline, pixels: Tensor, thing: Thing, kernels: Tensor) -> Tensor:
    """Where one image `(1, 3, H, W)` in [-1, 1] shows a thing that is blurred by a kernel `(1, k, k)`, as a map
    `(1, h, w)` in [0, 1]: around the thing's windows, but not where the image refutes the kernel.
    """
    there = torch.zeros_like(pixels[:, :1])
    for top, left in thing.corners:
        down, right = (slice(max(0, at - AROUND), at + WINDOW + AROUND) for at in (top, left))
        there[..., down, right] = 1
    share = believed(missed(pipeline, pixels, kernels))
    rows, columns = share.shape[-2:]
    return (share * F.adaptive_avg_pool2d(there, (rows, columns)))[0]
