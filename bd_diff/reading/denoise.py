"""Light denoising before a kernel is estimated."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.transforms.functional import gaussian_blur

from bd_diff.data.noise import noise_level
from bd_diff.data.pixels import luminance

NOISY, WHITE = 1.8 / 255, 0.94  # see `is_noisy`
SMOOTHING = 0.7  # pixels


def reduce_noise(images: Tensor, noisy: Tensor | None = None) -> Tensor:
    """Images `(B, 3, H, W)` in [0, 1], a little smoother where they are `noisy`, `(B,)` or `(1,)`: by `is_noisy`."""
    noisy = is_noisy(images) if noisy is None else noisy
    return torch.where(noisy[:, None, None, None], gaussian_blur(images, [5, 5], [SMOOTHING, SMOOTHING]), images)


def is_noisy(images: Tensor) -> Tensor:
    """Which of images `(B, 3, H, W)` in [0, 1] are so noisy that their blur is read better in smoother ones, `(B,)`.

    Noise has gradients as strong as a blurred photograph's, and kernels are estimated from gradients. A Gaussian of
    less than a pixel removes most noise and hardly widens the estimated kernel. White noise is about half as strong at
    half the resolution, sharp texture is not: so the two are told apart, and texture stays. The constants (ours,
    measured): below `NOISY` noise does less harm than smoothing; at half the resolution noise falls below `WHITE` of
    its level even on top of edges, texture does not.
    """
    light = luminance(images)
    level = noise_level(light)
    return (level > NOISY) & (noise_level(avg_pool2d(light, 2)) < WHITE * level)
