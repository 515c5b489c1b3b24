"""What a known blur makes of one tile of a photograph: guesses, what they leave unexplained, and what explains it."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.conditioning import MIDDLE, deblur_guesses, explain, transfer_guesses
from bd_diff.kernel_windows import blend


@dataclass(frozen=True)
class KnownBlur:
    """The blur of pixels: kernels `(B, k, k)`, or `(windows, B, k, k)` of windows that overlap by half."""

    kernels: Tensor | None
    linear_light: bool = False
    window: int = 0

    def guesses(self, pixels: Tensor) -> Tensor:
        """`deblur_guesses` of pixels `(B, 3, H, W)` in [-1, 1]."""
        return self.everywhere(partial(deblur_guesses, linear_light=self.linear_light), pixels)

    def reblur(self, estimates: Tensor) -> Tensor:
        """Estimates `(B, 3, H, W)` blurred again."""
        return self.everywhere(transfer_guesses, estimates)[:, 0]

    def explain(
        self, estimates: Tensor, pixels: Tensor, weights: Tensor | float, light_odds: Tensor | float = 0.0
    ) -> Tensor:
        """`explain`, see there."""

        def explained(both: Tensor, kernels: Tensor) -> Tensor:
            return explain(*both.chunk(2, 1), kernels, weights, self.linear_light, light_odds)[:, None]

        return self.everywhere(explained, torch.cat([estimates, pixels], 1))[:, 0]

    def everywhere(self, work, images: Tensor) -> Tensor:
        """`work(images, kernels)`, in every window by its own kernels."""
        return blend(images, self.kernels, self.window, work) if self.window else work(images, self.kernels)


@dataclass
class Tile:
    """A tile and the pixels `around (B, 3, H, W)` it in [-1, 1], in which it is `inside`; `guessed (B, G, 3, H, W)` of
    these. It is continued beyond the right and bottom border of the photograph to the `size` that networks see.
    """

    around: Tensor
    inside: tuple
    size: tuple[int, int]
    guessed: Tensor
    blur: KnownBlur | None = None  # in deblurring

    @property
    def own(self) -> Tensor:
        """Its own pixels `(B, 3, <= h, <= w)`."""
        return self.around[self.inside]

    @property
    def guesses(self) -> Tensor:
        """Its guesses `(B, G, 3, h, w)`."""
        return self.continued(self.guessed[self.inside])

    @property
    def views(self) -> Tensor:
        """`bd_diff.conditioning.structure_views` of it."""
        if self.blur is None or self.blur.kernels is None:
            return torch.stack([self.own, self.own, torch.zeros_like(self.own)], 1)
        estimate = self.guessed[:, MIDDLE]
        unexplained = self.around - self.blur.reblur(estimate)
        return torch.stack([self.around, estimate, unexplained], 1)[self.inside]

    def explain(self, estimates: Tensor, weights: Tensor | float, light_odds: Tensor | float = 0.0) -> Tensor:
        """Estimates `(B, 3, h, w)` moved to where they explain the pixels."""
        explained = self.blur.explain(self.whole(estimates), self.around, weights, light_odds)
        return self.continued(explained[self.inside])

    def unexplained(self, estimates: Tensor) -> Tensor:
        """What estimates `(B, 3, h, w)`, blurred again, leave of the pixels."""
        return self.continued((self.around - self.blur.reblur(self.whole(estimates)))[self.inside])

    def whole(self, estimates: Tensor) -> Tensor:
        """Estimates with what is around them, where the middle deconvolution stands for one."""
        height, width = self.own.shape[-2:]
        whole = self.guessed[:, MIDDLE].clone()
        whole[self.inside] = estimates[..., :height, :width].to(whole.dtype)
        return whole

    def continued(self, images: Tensor) -> Tensor:
        """Images of its own size `(B, ..., <= h, <= w)` continued to `size`."""
        (high, wide), (height, width) = self.size, images.shape[-2:]
        flat = F.pad(
            images.flatten(0, -4) if images.ndim > 4 else images, (0, wide - width, 0, high - height), "replicate"
        )
        return flat.view(*images.shape[:-2], high, wide)
