"""What a kernel does to an image, both ways: Wiener deconvolution and re-blurring, differentiable in both arguments.

All FFTs run in float32 whatever the image's type.
"""

import math

import torch
from torch import Tensor

from bd_diff.blur.kernels import blur, transfer_function

WIENER_NOISE = (0.002, 0.01, 0.05)  # regularisation of the three Wiener images, from sharp to safe (ours, measured)
FLAT_NOISE = 0.02  # share of the regularisation that is white; the rest grows with frequency (ours, measured)


def wiener(images: Tensor, kernels: Tensor, noise: tuple[float, ...] = WIENER_NOISE) -> Tensor:
    """Deconvolve `(B, C, H, W)` by one kernel each `(B, k, k)`: `(B, len(noise), C, H, W)`, one image a noise level.

        W(f) = conj(K) (1 + n e) / (|K|^2 + n (e + D)),   D the power of the discrete gradient, e = FLAT_NOISE

    The factor (1 + n e) keeps constants constant. Borders are reflected and tapered: near the border the padded
    image is replaced by its own circular blur, so that it looks blurred by the same kernel there too; without it
    borders ring.
    """
    height, width = images.shape[-2:]
    reach = kernels.shape[-1] // 2
    padded = extend(images.float(), reach, reach, reach, reach)
    tall, wide = padded.shape[-2:]
    transfer = transfer_function(kernels, tall, wide)[:, None]
    window = border_window(tall, wide, reach, device=images.device)
    padded = window * padded + (1 - window) * torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=(tall, wide))
    spectrum = torch.fft.rfft2(padded) * transfer.conj()
    power = transfer.real.square() + transfer.imag.square()
    gradient = gradient_power(tall, wide, device=images.device)
    deblurred = [
        torch.fft.irfft2(spectrum * (1 + n * FLAT_NOISE) / (power + n * (FLAT_NOISE + gradient)), s=(tall, wide))
        for n in noise
    ]
    return torch.stack(deblurred, 1)[..., reach : reach + height, reach : reach + width].to(images.dtype)


def reblur(images: Tensor, kernels: Tensor) -> Tensor:
    """Blur `(B, C, H, W)` of any size by one kernel each, borders reflected."""
    reach = kernels.shape[-1] // 2
    return blur(extend(images, reach, reach, reach, reach), kernels, mode="valid")


def extend(images: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Reflect the borders outwards by any amount; a picture smaller than the margin is reflected again and again."""

    def reflected(side: int, before: int, after: int) -> Tensor:
        period = max(2 * (side - 1), 1)
        position = torch.arange(-before, side + after, device=images.device).remainder(period)
        return torch.minimum(position, period - position).clamp_max(side - 1)

    rows = reflected(images.shape[-2], top, bottom)
    columns = reflected(images.shape[-1], left, right)
    return images.index_select(-2, rows).index_select(-1, columns)


def border_window(height: int, width: int, margin: int, device=None) -> Tensor:
    """`(H, W)`: 1 inside, falling to 0 at the border as a raised cosine over `margin` pixels."""

    def profile(side: int) -> Tensor:
        distance = torch.minimum(torch.arange(side, device=device), torch.arange(side, device=device).flip(0)) + 0.5
        return 0.5 - 0.5 * torch.cos(math.pi * (distance / margin).clamp_max(1))

    return profile(height)[:, None] * profile(width)


def natural_power(size: int, device=None) -> Tensor:
    """About how the power of photographs falls off over the half spectrum, `(size, size // 2 + 1)` (ours)."""
    return 1 / (gradient_power(size, size, device=device) + 0.02)


def gradient_power(height: int, width: int, device=None) -> Tensor:
    """Power of the forward differences over the half spectrum, `(H, W // 2 + 1)`, between 0 and 8."""
    rows = torch.fft.fftfreq(height, device=device)[:, None]
    columns = torch.fft.rfftfreq(width, device=device)
    return 4 * torch.sin(math.pi * rows).square() + 4 * torch.sin(math.pi * columns).square()
