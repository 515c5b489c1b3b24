"""Noise: how much a photograph has, and a photograph with less of it for those who look for its blur."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d
from torchvision.transforms.functional import gaussian_blur

from bd_diff.metrics import luminance

NOISY, WHITE = 1.8 / 255, 0.94  # see `calm`
SMOOTHING = 0.7  # pixels


def noise_level(light: Tensor) -> Tensor:
    """Standard deviation of white noise in luminance `(B, 1, H, W)`: `(B,)`, by Immerkær (1996), with a median.

    The mask is blind to edges that run straight; the median of it to most others.
    """
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], device=light.device)
    response = conv2d(light.float(), mask[None, None])
    return response.abs().flatten(1).median(1).values / (6 * 0.6745)


def blockiness(light: Tensor) -> Tensor:
    """How much JPEG's blocks of 8 pixels show in luminance `(B, 1, H, W)`, wherever they begin: by how much steps
    between neighbours are larger every eighth time than just before and after (median), as a share of the mean step;
    of rows and of columns the less, `(B,)`. About 0.02 without JPEG, 0.4 to 1 in blurred photographs at quality 75; 0
    for pictures of less than 12 pixels a side.
    """
    shares = []
    for lines in (light, light.mT):
        steps = (lines[..., 1:] - lines[..., :-1]).abs()
        larger = (2 * steps[..., 1:-1] - steps[..., :-2] - steps[..., 2:]).mean((1, 2))  # (B, W - 3)
        whole = larger.shape[1] // 8 * 8
        if not whole:
            return light.new_zeros(len(light))
        every_eighth = larger[:, :whole].unflatten(1, (-1, 8)).median(1).values  # (B, 8)
        shares.append(every_eighth.amax(1) / steps.mean((1, 2, 3)).clamp_min(1e-6))
    return torch.minimum(*shares).clamp_min(0)


def calm(images: Tensor) -> Tensor:
    """Images `(B, 3, H, W)` in [0, 1], smoothed a little where they are noisy.

    Noise has gradients as strong as a blurred photograph's and hides its kernel from all who compare gradients. A
    Gaussian of less than a pixel takes most of them, and makes the kernels that are found hardly wider. What looks like
    noise is noise if it is white, and about half as strong at half the resolution: sharp texture, which does not fade,
    stays as it is. The constants are ours, measured: noise below `NOISY` does less harm than smoothing, and fades to
    less than `WHITE` even on top of edges; texture does not.
    """
    light = luminance(images)
    level = noise_level(light)
    noisy = (level > NOISY) & (noise_level(avg_pool2d(light, 2)) < WHITE * level)
    return torch.where(noisy[:, None, None, None], gaussian_blur(images, [5, 5], [SMOOTHING, SMOOTHING]), images)
