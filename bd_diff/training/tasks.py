"""Tasks of BD-Diff's joint training as the UNet sees them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Denoising:
    """One task as the UNet sees it: `noisy` latents and condition `(B, c + G c, h, w)`, `timesteps` `(B,)`, `tokens`
    `(B, S + T, D)`, and the `target` `(B, c, h, w)` that it has to predict. Predictions count from
    `start` `(B, c, h, w)`, and are judged after `solve`.
    """

    noisy: Tensor
    timesteps: Tensor
    tokens: Tensor
    target: Tensor
    start: Tensor
    solve: Callable[[Tensor], Tensor] | None = None


@dataclass
class Sampling:
    """Images to sample: `guesses` `(B, G, 3, H, W)` in [-1, 1], `tokens` `(B, S + T, D)`, and the starting `noise`
    `(B, c, h, w)`. deblurs: towards the sharp image, not towards another blur.
    """

    guesses: Tensor
    tokens: Tensor
    noise: Tensor
    deblurs: bool
