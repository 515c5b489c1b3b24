"""Convolution of images with blur kernels, by whichever of three methods is fastest for each kernel."""

import torch
import torch.nn.functional as F
from scipy import fft
from torch import Tensor

NEGLIGIBLE = 1e-7  # share of a kernel's mass that may be left out: no result in [0, 1] changes by more
RANK_ONE = 1e-6  # L1 distance to the product of its marginals up to which a kernel counts as that product
MOST_TAPS = 21 * 21  # above this many, an FFT is faster than a direct sum (measured on one AVX2 core)
PLANES = 16  # convolved at once: oneDNN works on blocks of 16 channels (measured)
LARGE = 512 * 512  # pixels; below, nothing is rounded otherwise for speed, since the kernel search multiplies that
FEWEST = 6  # planes: a direct sum of fewer leaves most of a block empty; an FFT is faster (measured)


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Each image `(B, C, H, W)` convolved with its own kernel `(B, k, k)`, k odd: `(B, C, H - k + 1, W - k + 1)`.

    On the CPU, where no gradient is wanted, kernels of rank one (Gaussian, box, delta, level line) are applied along
    rows and then along columns, several other small ones by a direct sum; the rest goes through `spectral`. All agree
    to 1e-6 for images in [0, 1]. Computed in float32, returned in the type of the images. Raises ValueError where there
    are not as many kernels as images.
    """
    if len(images) != len(kernels):
        raise ValueError(f"there are {len(kernels)} kernels for {len(images)} images; give each image its own")
    differentiable = torch.is_grad_enabled() and (images.requires_grad or kernels.requires_grad)
    if differentiable or images.device.type != "cpu" or not kernels.numel():
        return spectral(images, kernels)
    height, width = (side - kernels.shape[-1] + 1 for side in images.shape[-2:])
    blurred = torch.empty(*images.shape[:2], height, width, device=images.device)
    taps = 2 * reaches(kernels) + 1  # (B, 2)
    separable = is_rank_one(kernels)
    direct = ~separable & (taps.prod(1) <= MOST_TAPS)
    if height * width >= LARGE:
        direct &= images.shape[1] * direct.sum() >= FEWEST
    rest = ~(separable | direct)
    with torch.autocast("cpu", enabled=False):  # float32 always: mixed precision is for networks
        for index in separable.nonzero()[:, 0].tolist():
            extent = taps[index].tolist()
            seen = middle(images[index].float(), extent, (height, width))
            blurred[index] = along_both_axes(seen, middle(kernels[index].float(), extent))
        alike = taps.prod(1).argsort()  # similar sizes together: less to sum
        planes, channels = images.float().flatten(0, 1), images.shape[1]  # (B * C, H, W)
        order = (channels * alike[direct[alike]][:, None] + torch.arange(channels, device=images.device)).flatten()
        for some in order.split(PLANES) if len(order) else ():
            largest = taps[some // channels].amax(0).tolist()
            own = middle(kernels.float(), largest)[some // channels]
            blurred.flatten(0, 1)[some] = by_direct_sum(middle(planes, largest, (height, width))[some], own)
    blurred = blurred.to(images.dtype)
    if rest.any():
        blurred[rest] = spectral(images[rest], kernels[rest])
    return blurred


def spectral(images: Tensor, kernels: Tensor) -> Tensor:
    """`convolve` by FFT: differentiable, on any device, of any kernel."""
    reach, (height, width) = kernels.shape[-1] // 2, images.shape[-2:]
    tall, wide = height, width
    if height * width >= LARGE:
        tall, wide = (fft.next_fast_len(side, real=True) for side in (height, width))
    padded = F.pad(images.float(), (0, wide - width, 0, tall - height))  # beyond what is returned
    blurred = torch.fft.irfft2(
        torch.fft.rfft2(padded) * transfer_function(kernels, tall, wide)[:, None], s=(tall, wide)
    )
    return blurred[..., reach : height - reach, reach : width - reach].to(images.dtype)


def transfer_function(kernels: Tensor, height: int, width: int) -> Tensor:
    """Half spectra `(B, H, W // 2 + 1)` of kernels on a circular `(H, W)` grid, k or larger; centre at the origin."""
    size = kernels.shape[-1]
    placed = F.pad(kernels.float(), (0, width - size, 0, height - size))
    return torch.fft.rfft2(placed.roll((-(size // 2), -(size // 2)), (-2, -1)))


def is_rank_one(kernels: Tensor) -> Tensor:
    """Which kernels `(B, k, k)` are the product of a column and a row, as booleans `(B,)`."""
    rows, columns = kernels.sum(2), kernels.sum(1)
    product = rows[:, :, None] * columns[:, None] / kernels.sum((1, 2))[:, None, None]
    return (kernels - product).abs().sum((1, 2)) <= RANK_ONE


def reaches(kernels: Tensor) -> Tensor:
    """How far each kernel extends from its middle, along height and width, in whole pixels `(B, 2)`."""
    mass = torch.stack([kernels.abs().sum(2), kernels.abs().sum(1)], 1)  # (B, 2, k)
    half = mass.shape[-1] // 2
    folded = mass[..., half:] + mass[..., : half + 1].flip(-1)  # by distance from the middle
    beyond = folded.flip(-1).cumsum(-1).flip(-1)  # at this distance or farther
    return (beyond[..., 1:] > NEGLIGIBLE).sum(-1)


def middle(values: Tensor, taps: list[int], around: tuple[int, int] = (1, 1)) -> Tensor:
    """The central part of `(..., H, W)` that a kernel of `taps` rows and columns needs to compute `around` pixels."""
    high, wide = (span + count - 1 for span, count in zip(around, taps, strict=True))
    top, left = (values.shape[-2] - high) // 2, (values.shape[-1] - wide) // 2
    return values[..., top : top + high, left : left + wide]


def along_both_axes(image: Tensor, kernel: Tensor) -> Tensor:
    """An image `(C, H, W)` convolved with a kernel of rank one `(h, w)`: with its row, then with its column.

    Without padding: `(C, H - h + 1, W - w + 1)`.
    """
    row, column = kernel.sum(0), kernel.sum(1) / kernel.sum()
    return along(along(image, row).mT, column).mT


def along(lines: Tensor, weights: Tensor) -> Tensor:
    """Lines `(N, L, n)` convolved with `weights (k,)` without padding: `(N, L, n - k + 1)`."""
    if len(weights) == 1:
        return lines * weights
    # Lines as channels: oneDNN computes 16 channels at once, and takes an image's columns as they lie in memory.
    count = lines.shape[1]
    return F.conv2d(lines[:, :, None], weights.flip(0).expand(count, 1, 1, -1), groups=count)[:, :, 0]


def by_direct_sum(planes: Tensor, kernels: Tensor) -> Tensor:
    """Planes `(N, H, W)`, each convolved with its kernel `(N, h, w)` as a sum over the kernel's values."""
    return F.conv2d(planes[None], kernels.flip(-2, -1)[:, None], groups=len(planes))[0]
