"""What a kernel does to an image, both ways: re-blurring, Wiener deconvolution, and what explains a photograph best.

All are differentiable in all tensors. All FFTs run in float32 whatever the image's type.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from scipy import fft
from torch import Tensor

from bd_diff.blur.convolution import LARGE
from bd_diff.blur.kernels import blur, transfer_function

WIENER_NOISE = (0.002, 0.01, 0.05)  # regularisation of the three Wiener images, from sharp to safe (ours, measured)
FILL_NOISE, FILL_ROUNDS = 1e-3, 20  # of `fill` (ours, measured)
FLAT_NOISE = 0.02  # share of the regularisation that is white; the rest grows with frequency (ours, measured)


def wiener(images: Tensor, kernels: Tensor, noise: tuple[float, ...] = WIENER_NOISE) -> Tensor:
    """Deconvolve `(B, C, H, W)` by one kernel each `(B, k, k)`: `(B, len(noise), C, H, W)`, one image a noise level.

        W(f) = conj(K) (1 + n e) / (|K|^2 + n (e + D)),   D the power of the discrete gradient, e = FLAT_NOISE

    The factor (1 + n e) keeps constants constant. Borders are those of `tapered`.
    """
    return torch.stack([*deconvolved(images, kernels, noise)], 1)


def deconvolved(images: Tensor, kernels: Tensor, noise: tuple[float, ...] = WIENER_NOISE) -> Iterator[Tensor]:
    """The images `(B, C, H, W)` of `wiener`, one by one."""
    padded, transfer = tapered(images, kernels)
    spectrum, power = reals(torch.fft.rfft2(padded) * transfer.conj()), doubled_power(transfer)
    height, width = padded.shape[-2:]
    gradient = gradient_power(height, width, device=images.device).repeat_interleave(2, -1)
    for n in noise:
        filtered = spectrum * ((1 + n * FLAT_NOISE) / (power + n * (FLAT_NOISE + gradient)))
        whole = torch.fft.irfft2(complexes(filtered), s=(height, width))
        yield inside(whole, images, kernels).to(images.dtype)


def data_consistency(
    estimates: Tensor, images: Tensor, kernels: Tensor, weights: Tensor | float, blurred: Tensor | None = None
) -> Tensor:
    """Estimates `(B, C, H, W)` of sharp images, moved to where they explain the blurry `images` under the kernels:

        argmin_x |k * x - y|^2 + rho |x - x0|^2,   X(f) = X0 + conj(K) (Y - K X0) / (|K|^2 + rho)

    the data subproblem of plug-and-play restoration in closed form (DiffPIR, Zhu et al. 2023, equations 13a and 15).
    kernels: `(B, k, k)`. weights: rho, the power of the noise over that of the estimate's error: a number, or one for
    each image `(B,)`. What is solved for is the correction, so only what the estimate leaves unexplained meets the
    borders (those of `tapered`). Differentiable in all arguments. blurred: k * x0, where it is already known.
    """
    blurred = reblur(estimates, kernels) if blurred is None else blurred
    unexplained, transfer = tapered(images - blurred, kernels)
    rho = torch.as_tensor(weights, device=images.device).view(-1, 1, 1, 1)
    solved = reals(torch.fft.rfft2(unexplained) * transfer.conj()) / (doubled_power(transfer) + rho)
    correction = torch.fft.irfft2(complexes(solved), s=unexplained.shape[-2:])
    return estimates + inside(correction, estimates, kernels).to(estimates.dtype)


@torch.no_grad()
def fill(images: Tensor, hidden: Tensor, kernels: Tensor) -> Tensor:
    """Blurry images y `(B, C, H, W)` whose pixels in the mask `hidden` `(B, 1, H, W)` are replaced by k * x, where

        x = argmin_x |visible (k * x - y)|^2 + n |gradient x|^2

    and k are the `kernels` `(B, k, k)`. The fill is thus blurred as the photograph is; a fill that is not blurred would
    make a deconvolution ring in the visible pixels beside it. Solved by conjugate gradients, in a window that reaches
    three kernel widths beyond the hidden pixels.
    """
    if not hidden.any():
        return images
    reach = kernels.shape[-1] // 2
    part: tuple = (...,)
    for axis in (-2, -1):
        at = hidden.movedim(axis, 0).flatten(1).any(1).nonzero()[:, 0]
        part += (slice(max(int(at[0]) - 6 * reach, 0), int(at[-1]) + 6 * reach + 1),)
    own, unseen = images[part].float(), hidden[part]
    start = extend(own, reach, reach, reach, reach)
    visible = F.pad((~unseen).float(), (reach,) * 4)
    tall, wide = start.shape[-2:]
    transfer, gradient = transfer_function(kernels, tall, wide)[:, None], gradient_power(tall, wide, images.device)

    def filtered(values: Tensor, response: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(values) * response, s=(tall, wide))

    def normal(values: Tensor) -> Tensor:
        seen = filtered(visible * filtered(values, transfer), transfer.conj())
        return seen + filtered(values, FILL_NOISE * gradient)

    def energy(values: Tensor) -> Tensor:
        return values.square().sum((1, 2, 3), keepdim=True).clamp_min(1e-12)

    latent = start
    direction = missing = filtered(visible * start, transfer.conj()) - normal(start)
    for _ in range(FILL_ROUNDS):
        moved = normal(direction)
        step = energy(missing) / (direction * moved).sum((1, 2, 3), keepdim=True).clamp_min(1e-12)
        latent, left = latent + step * direction, missing - step * moved
        direction, missing = left + energy(left) / energy(missing) * direction, left
    whole = images.clone()
    whole[part] = torch.where(unseen, inside(filtered(latent, transfer), own, kernels).to(images.dtype), images[part])
    return whole


def tapered(images: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Images `(B, C, H, W)` made larger by the kernels' reach on every side, fit for deconvolution on a torus, and the
    kernels' spectra `(B, 1, H', W' // 2 + 1)`. At the bottom and right a little more is added: sides are products of
    2, 3 and 5, whose FFTs are fast.

    Borders are reflected and tapered: near the border the padded image is replaced by its own circular blur, so that it
    looks blurred by the same kernel there too; without it borders ring.
    """
    reach = kernels.shape[-1] // 2
    height, width = images.shape[-2:]
    tall, wide = (fft.next_fast_len(side + 2 * reach, real=True) for side in (height, width))
    padded = extend(images.float(), reach, tall - height - reach, reach, wide - width - reach)
    transfer = transfer_function(kernels, tall, wide)[:, None]
    window = border_window(tall, wide, reach, device=images.device)
    if height * width >= LARGE and min(tall, wide) > 8 * reach > 0:  # a third of the FFTs less
        return with_border(padded, kernels, window), transfer
    blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=(tall, wide))
    return torch.lerp(blurred, padded, window), transfer


def with_border(images: Tensor, kernels: Tensor, window: Tensor) -> Tensor:
    """Images `(B, C, H, W)` on a torus, towards their circular blur where a window `(H, W)` is below one: within the
    kernels' reach of the border.
    """
    reach, (height, width) = kernels.shape[-1] // 2, images.shape[-2:]
    near = F.pad(images, (reach, reach, 0, 0), "circular")
    rows = blur(torch.cat([near[..., -2 * reach :, :], near[..., : 2 * reach, :]], -2), kernels, "valid")
    near = torch.cat([images[..., -2 * reach :], images[..., : 2 * reach]], -1)
    columns = blur(near, kernels, "valid")  # without the corners, which rows have
    tapered = images.clone()
    last, first, between = slice(height - reach, None), slice(reach), slice(reach, height - reach)
    for place, blurred in (
        ((..., last, slice(None)), rows[..., :reach, :]),
        ((..., first, slice(None)), rows[..., reach:, :]),
        ((..., between, slice(width - reach, None)), columns[..., :reach]),
        ((..., between, first), columns[..., reach:]),
    ):
        tapered[place] = torch.lerp(blurred, images[place], window[place[1:]])
    return tapered


def reals(spectrum: Tensor) -> Tensor:
    """A complex spectrum `(..., W)` as real numbers `(..., 2 W)`, real and imaginary parts in turns: arithmetic of
    complex with real numbers is several times slower than that of real numbers.
    """
    return torch.view_as_real(spectrum).flatten(-2)


def complexes(numbers: Tensor) -> Tensor:
    """The inverse of `reals`."""
    return torch.view_as_complex(numbers.unflatten(-1, (-1, 2)))


def doubled_power(transfer: Tensor) -> Tensor:
    """Squared magnitudes of a spectrum `(..., W)`, each twice, `(..., 2 W)`: for `reals`."""
    return (transfer.real.square() + transfer.imag.square()).repeat_interleave(2, -1)


def inside(padded: Tensor, images: Tensor, kernels: Tensor) -> Tensor:
    """`tapered` images without what was added to `images`."""
    reach, (height, width) = kernels.shape[-1] // 2, images.shape[-2:]
    return padded[..., reach : reach + height, reach : reach + width]


def reblur(images: Tensor, kernels: Tensor) -> Tensor:
    """Blur `(B, C, H, W)` of any size by one kernel each, borders reflected."""
    reach = kernels.shape[-1] // 2
    return blur(extend(images, reach, reach, reach, reach), kernels, mode="valid")


def extend(images: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Reflect the borders outwards by any amount; a picture smaller than the margin is reflected again and again."""
    if max(top, bottom) < images.shape[-2] and max(left, right) < images.shape[-1]:
        return F.pad(images, (left, right, top, bottom), mode="reflect")

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
