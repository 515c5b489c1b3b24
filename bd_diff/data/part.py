"""The part of a photograph that is to be deblurred, and how its result takes its place again.

Borders, captions and what lies under transparency are kept from the model and put back as they were; 16-bit
photographs that use little of their range are stretched over all of it, and back.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bd_diff.data.deep import DeepImage
from bd_diff.data.filling import filled, spread
from bd_diff.data.line_frames import line_frame
from bd_diff.data.pixels import ROWS
from bd_diff.data.surroundings import find_sharp, frame, inside_borders

UNCHANGED = 0.5 / 255  # root mean square of a change that nobody sees
HIDDEN = 0.02  # alpha below which colours mean nothing
NARROW = 0.7, 0.25  # shares of the range of 16 and of 8 bit that are stretched over all of it
MARGIN = 3  # pixels within borders, where a frame of another shape still covers the corners
DARK, MIDDLE = 0.08, 0.2  # a median below this (a linear frame) is brought to that


@dataclass(frozen=True)
class Range:
    """A reversible stretch of values: a black point, a white point and a midtone.

    The midtone is that of a rational curve (as PixInsight's screen transfer function); 0.5 is a straight line.
    """

    black: float = 0.0
    white: float = 1.0
    midtone: float = 0.5

    def stretch(self, values: Tensor) -> Tensor:
        """Map values of the photograph to [0, 1]."""
        if self == Range():
            return values
        return curve(((values - self.black) / (self.white - self.black)).clamp(0, 1), self.midtone)

    def back(self, values: Tensor) -> Tensor:
        """The inverse of `stretch`."""
        if self == Range():
            return values
        return curve(values.clamp(0, 1), 1 - self.midtone) * (self.white - self.black) + self.black


def curve(values: Tensor, midtone: float) -> Tensor:
    """A monotonous curve of [0, 1] that takes `midtone` to 0.5; its inverse is that of `1 - midtone`."""
    return (midtone - 1) * values / ((2 * midtone - 1) * values - midtone)


def own_range(values: Tensor, deep: bool) -> Range:
    """The range to stretch a photograph from: its own if that is narrow or, in 16 bit, dark; otherwise [0, 1]."""
    black, white = (limit.item() for limit in values.aminmax())
    narrow = white - black < NARROW[0 if deep else 1]
    if white <= black or not (deep or narrow):
        return Range()
    found = Range(black, white) if narrow else Range()
    median = found.stretch(values).median().item()
    if not deep or not 0 < median < DARK:
        return found
    # The midtone that takes the median to MIDDLE: the curve is its own inverse in its two arguments.
    return Range(found.black, found.white, curve(torch.tensor(median), MIDDLE).item())


class Part:
    """The part of a photograph that a model gets: `pixels` `(3, h, w)` in [0, 1]; `put_back` puts its result in place.

    photograph: as `read_image` gives it. colours: its pixels `(3, H, W)`. name: stands in the warnings. deblur: true
    keeps what is sharp already as it is; false is for a photograph that is to be blurred.
    """

    def __init__(
        self,
        photograph: Image.Image | DeepImage,
        colours: Tensor,
        name: str = "the photograph",
        deblur: bool = True,
    ):
        self.photograph, self.colours, self.name = photograph, colours, name
        self.grey = bool((colours[0] == colours[1]).all() and (colours[1] == colours[2]).all())
        alpha = alpha_of(photograph)
        visible = np.ones(colours.shape[-2:], bool) if alpha is None else alpha > HIDDEN
        seen = colours if visible.all() or not visible.any() else colours[:, torch.from_numpy(visible)]
        self.range = own_range(seen, "16" in photograph.mode)
        pixels = self.range.stretch(colours).permute(1, 2, 0).numpy()
        self.box: tuple[slice, ...] = (slice(None), slice(None))
        if not visible.all() and visible.any():
            self.box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in visible.nonzero())
        outer, inside = self.box, filled(pixels[self.box], ~visible[self.box])
        around = frame(inside)
        self._within(inside_borders(inside))
        if around.any():
            framed = np.zeros_like(visible)
            framed[outer] = around
            corners = [framed[row, column] for row in inner_ends(self.box[0]) for column in inner_ends(self.box[1])]
            if sum(corners) >= 3:  # more than borders
                visible &= ~framed
                rows, columns = visible[self.box].nonzero()
                self._within((slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)))
        visible[self.box] &= ~line_frame(pixels[self.box])
        self.hidden = ~visible[self.box]
        inside = filled(pixels[self.box], self.hidden)
        drawable = ~self.hidden & (self.range.midtone == 0.5)  # nothing is drawn on a linear frame: stars look like it
        sharp = find_sharp(inside, drawable)
        self.hidden = self.hidden | sharp.drawn
        if sharp.drawn.any():  # a band with a caption is a border without it
            box = inside_borders(spread(inside, ~self.hidden))
            self._within(box)
            self.hidden, inside = self.hidden[box], inside[box]
            inside = spread(inside, ~self.hidden)
        self.kept = torch.from_numpy(self.hidden.astype(np.float32))
        self.unchanged = deblur and sharp.everywhere or not visible.any()
        if deblur and sharp.everywhere:
            where = "where it is in focus" if sharp.focused else "already"
            warnings.warn(f"{name}: it is sharp {where}, and stays as it is", stacklevel=3)
        if self.range == Range() and not self.hidden.any() and self.hidden.shape == colours.shape[-2:]:
            self.pixels = colours  # not copied: large photographs need the memory
        else:
            self.pixels = torch.from_numpy(inside).permute(2, 0, 1).contiguous().clamp(0, 1)

    def _within(self, box: tuple[slice, slice]) -> None:
        """Narrow the box to rows and columns within it."""
        self.box = tuple(
            slice((outer.start or 0) + inner.start, (outer.start or 0) + inner.stop)
            for outer, inner in zip(self.box, box, strict=True)
        )

    def put_back(self, result: Tensor) -> Tensor:
        """The whole photograph `(3, H, W)`, with the result `(3, h, w)` in place of the part."""
        if self.unchanged:
            return self.colours
        whole = self.colours.clone()
        result = self.range.back(result.detach().float().cpu())
        if self.grey:
            result = result.mean(0, keepdim=True).expand(3, -1, -1)
        changed, places = 0.0, whole[:, self.box[0], self.box[1]].split(ROWS, 1)  # bounds the memory of large images
        for own, new, kept in zip(places, result.split(ROWS, 1), self.kept.split(ROWS, -2), strict=True):
            moved = new.lerp(own, kept)
            changed += float((moved - own).square().sum())
            own.copy_(moved)
        span = self.range.white - self.range.black
        if math.sqrt(changed / whole.numel()) < UNCHANGED * span:
            warnings.warn(f"{self.name}: nothing was changed visibly", stacklevel=2)
        return whole

    def whole_map(self, values: Tensor) -> Tensor:
        """A map `(1, h, w)` over the part as a map `(1, H, W)` over the photograph, 0 where the photograph is kept."""
        whole = values.new_zeros(1, *self.colours.shape[-2:])
        if not self.unchanged:
            whole[:, self.box[0], self.box[1]] = values * (1 - self.kept).to(values)
        return whole


def inner_ends(side: slice) -> tuple[int, int]:
    """The first and the last place of a side of a box, but for the margin."""
    return side.start + MARGIN, side.stop - 1 - MARGIN


def alpha_of(photograph: Image.Image | DeepImage) -> np.ndarray | None:
    """The alpha channel `(H, W)` in [0, 1]; None if there is none."""
    if isinstance(photograph, DeepImage):
        return photograph.levels[..., -1] / 65535 if photograph.levels.shape[-1] in (2, 4) else None
    return np.asarray(photograph.getchannel("A")) / 255 if photograph.mode in ("LA", "RGBA") else None
