"""One tile of a photograph whose blur kernels are given: its deconvolutions, and consistency with the photograph."""

from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.operator import fill
from bd_diff.data.tiles import CONTEXT, Grid
from bd_diff.models.conditioning import MIDDLE, deblur_guesses, explain

WINDOW = 256  # pixels a side that one kernel is read from; neighbours share half of it


@dataclass(frozen=True)
class KnownBlur:
    """The blur kernels of a photograph, and what is computed with them.

    kernels: `(B, k, k)`; or, where blur differs over the photograph, `(R, B, k, k)`. None in a pipeline without a blur
        decoder.
    linear_light: deconvolve linear light, too, see `deblur_guesses`.
    shares: of each of the R kernels, `(R, H, W)`; they sum to one everywhere.
    """

    kernels: Tensor | None
    linear_light: bool = False
    shares: Tensor | None = None

    def guesses(self, pixels: Tensor) -> Tensor:
        """`deblur_guesses` of pixels `(B, 3, H, W)` in [-1, 1]."""
        return self.everywhere(partial(deblur_guesses, linear_light=self.linear_light), pixels)

    def explain(self, estimates: Tensor, pixels: Tensor, weight: float) -> Tensor:
        """Estimates of the sharp image `(B, 3, H, W)` in [-1, 1] made consistent with the pixels, see `explain`."""

        def explained(both: Tensor, kernels: Tensor) -> Tensor:
            return explain(*both.chunk(2, 1), kernels, weight, self.linear_light)[:, None]

        return self.everywhere(explained, torch.cat([estimates, pixels], 1))[:, 0]

    def filled(self, pixels: Tensor, hidden: Tensor) -> Tensor:
        """Pixels `(B, 3, H, W)` in [-1, 1] with those in the mask `hidden` `(B, 1, H, W)` replaced by a fill that is
        blurred by the same kernels (`bd_diff.blur.operator.fill`).
        """
        if self.kernels is None or not hidden.any():
            return pixels

        def work(both: Tensor, kernels: Tensor) -> Tensor:
            return fill(both[:, :3], both[:, 3:] > 0.5, kernels).clamp(-1, 1)[:, None]

        return torch.where(hidden, self.everywhere(work, torch.cat([pixels, hidden.to(pixels)], 1))[:, 0], pixels)

    def everywhere(self, work, images: Tensor) -> Tensor:
        """`work(images, kernels)` `(B, G, ..., H, W)`; with shares, computed by each of the kernels and blended."""
        if self.shares is not None and self.kernels is not None:
            return blend(images, self.kernels, self.shares, work)
        return work(images, self.kernels)


@dataclass
class Tile:
    """A tile of a photograph with the pixels around it, which deconvolution needs.

    around: pixels `(B, 3, H, W)` in [-1, 1] of the tile and its surroundings.
    inside: the index of the tile in these.
    size: height and width that the networks see. A tile at the right or bottom border of the photograph may be
        smaller; it is then padded by repeating its last row and column.
    guessed: the guesses `(B, G, 3, H, W)` of all pixels `around`, see `deblur_guesses` and `transfer_guesses`.
    blur: its blur in deblurring; None in blur transfer.
    """

    around: Tensor
    inside: tuple
    size: tuple[int, int]
    guessed: Tensor
    blur: KnownBlur | None = None  # in deblurring

    @property
    def own(self) -> Tensor:
        """The pixels of the tile without its surroundings, `(B, 3, <= h, <= w)`, not padded."""
        return self.around[self.inside]

    @cached_property
    def guesses(self) -> Tensor:
        """The guesses of the tile, padded to `size`, `(B, G, 3, h, w)`."""
        return self.continued(self.guessed[self.inside])

    def explain(self, estimates: Tensor, weight: float) -> Tensor:
        """Estimates `(B, 3, h, w)` of the tile made consistent with its pixels, see `conditioning.explain`."""
        assert self.blur is not None  # in transfer there is nothing to explain
        explained = self.blur.explain(self.whole(estimates), self.around, weight)
        return self.continued(explained[self.inside])

    def whole(self, estimates: Tensor) -> Tensor:
        """Estimates `(B, 3, h, w)` of the tile pasted into their surroundings, `(B, 3, H, W)`.

        The surroundings have no estimate; the deconvolution of middle strength is taken for it.
        """
        height, width = self.own.shape[-2:]
        whole = self.guessed[:, MIDDLE].clone()
        whole[self.inside] = estimates[..., :height, :width].to(whole.dtype)
        return whole

    def continued(self, images: Tensor) -> Tensor:
        """Images of the tile `(B, ..., <= h, <= w)` padded to `size` by repeating the last row and column."""
        (high, wide), (height, width) = self.size, images.shape[-2:]
        if (high, wide) == (height, width):
            return images
        flat = F.pad(
            images.flatten(0, -4) if images.ndim > 4 else images, (0, wide - width, 0, high - height), "replicate"
        )
        return flat.view(*images.shape[:-2], high, wide)


def window_grid(height: int, width: int, window: int = WINDOW) -> Grid:
    """Windows that overlap by half, with weights that rise and fall linearly and sum to one everywhere."""
    return Grid(height, width, window, window // 2)


def window_shares(grid: Grid) -> Tensor:
    """The weights of its windows, `(windows, H, W)`."""
    shares = torch.zeros(len(grid), grid.height, grid.width)
    for index, own in enumerate(shares):
        grid.paste(own, torch.ones(1, *grid.tile), [index])
    return shares


def blend(pixels: Tensor, kernels: Tensor, shares: Tensor, work=deblur_guesses) -> Tensor:
    """`work(pixels, kernels)` `(B, G, 3, H, W)` by each of several kernels `(R, B, k, k)`, blended by their `shares`
    `(R, H, W)`, which sum to one.

    It is computed where a kernel has a share, with pixels around, so that the border of that part is as good as its
    middle: where all kernels are the same no seams are visible.
    """
    height, width = pixels.shape[-2:]
    context = max(CONTEXT, 3 * (kernels.shape[-1] // 2))
    blended: Tensor | None = None
    for own, share in zip(kernels, shares, strict=True):
        rows, columns = (share.amax(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
        if not rows:
            continue
        (top, bottom), (left, right) = ((at[0], at[-1] + 1) for at in (rows, columns))
        above, before = max(top - context, 0), max(left - context, 0)
        seen = pixels[..., above : bottom + context, before : right + context]
        part = work(seen, own)[..., top - above : bottom - above, left - before : right - before]
        if blended is None:
            blended = part.new_zeros(*part.shape[:-2], height, width)
        blended[..., top:bottom, left:right] += part * share[top:bottom, left:right].to(part)
    assert blended is not None  # shares sum to one
    return blended
