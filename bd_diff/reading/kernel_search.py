"""Blur kernels from the edges of a photograph, coarse to fine, and the re-blur residual that chooses among them.

Second-order statistics cannot tell a kernel from its mirror image; strong edges can. At each scale the search
alternates between a piecewise smooth image (L0 gradient prior: Xu et al. 2011; Pan et al., "L0-regularized intensity
and gradient prior", 2014) and the kernel that explains the photograph's gradients from that image's strongest edges
(least squares, Xu and Jia 2010). Nothing here is learned. It needs a window of about 256 pixels; below 192 it does more
harm than good.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import fft, ndimage
from torch import Tensor

from bd_diff.blur.kernels import blur, centre, normalize, transfer_function
from bd_diff.blur.operator import border_window, doubled_power, extend, gradient_power, reals

SMALLEST_WINDOW = 192  # pixels (ours, measured)


@dataclass(frozen=True)
class Start:
    """Parameters of one search; several searches give several hypotheses (values: ours, measured)."""

    smoothness: float  # weight of the L0 prior at the coarsest scale
    edges: float  # strong edges kept per orientation, in multiples of the kernel's width
    ridge: float  # weight of |kernel|^2
    floor: float  # kernel values below this share of the largest are zeroed


# Which one finds the kernel of a difficult photograph cannot be predicted, so many are tried.
STARTS = (
    Start(0.008, 8, 8, 0.07),
    Start(0.004, 2, 8, 0.1),
    Start(0.008, 4, 2, 0.05),
    Start(0.016, 2, 4, 0.07),
    Start(0.008, 4, 1, 0.05),
    Start(0.004, 4, 2, 0.05),
    Start(0.008, 4, 0.5, 0.05),
    Start(0.008, 4, 2, 0.07),
    Start(0.008, 2, 2, 0.05),
    Start(0.008, 16, 2, 0.05),
    Start(0.008, 2, 8, 0.1),
    Start(0.002, 4, 8, 0.1),
)
KEPT = (3, 4, 8)  # of them at full resolution, at the scale before, and at the one before that (ours, measured)
ROUNDS = (3, 4)  # of image and kernel in turns, likewise; 5 at coarser scales
HALF = 2  # steps from the full resolution to half of it
SURPASSED = 1.035  # see `surpassed` (ours, measured on photographs of the training)
GROWTH = 2 * math.sqrt(2)  # of the coupling in the search: a third fewer steps than by doubling, as many kernels found
UNTIL = 1e3  # of the coupling: beyond, only the faintest gradients change, and residuals by 0.1 % (ours, measured)


@torch.no_grad()
def search_kernels(
    luminance: Tensor,
    starts: tuple[Start, ...] = STARTS,
    kept: tuple[int, ...] = KEPT,
    size: int = 33,
    rival: Tensor | None = None,
    where: Tensor | None = None,
) -> Tensor | None:
    """Kernel hypotheses `(B, kept[0], size, size)` for blurry luminance `(B, 1, H, W)` in [0, 1].

    A search settles on one of several plausible kernels at coarse scales, where it costs little: all `starts` run
    there, and ever fewer of them, those that explain the photograph best, at finer ones: at most `kept`, for the finest
    scale first. With a `rival` `(B, size, size)`, kernels that are known already, the search ends at half the
    resolution, and returns None, where no hypothesis explains a photograph better (`surpassed`). `where`: which pixels
    `(1, 1, H, W)` of one photograph have the blur that is looked for; all, if it is None. Each kernel is non-negative,
    sums to one and is centred on its centroid. Raises ValueError for windows too small to search.
    """
    height, width = luminance.shape[-2:]
    if min(height, width) < SMALLEST_WINDOW:
        raise ValueError(f"the kernel search needs {SMALLEST_WINDOW} pixels a side; the window is {height}x{width}")
    images = luminance.repeat_interleave(len(starts), 0)
    smoothness, edges, ridge, floor = (
        torch.tensor([getattr(start, name) for start in starts], device=luminance.device).repeat(len(luminance))
        for name in ("smoothness", "edges", "ridge", "floor")
    )
    steps = scales(size)
    previous, coarsest = steps[0]
    kernels = torch.zeros(len(images), coarsest, coarsest, device=images.device)
    kernels[:, coarsest // 2, coarsest // 2 : coarsest // 2 + 2] = 0.5
    threshold = images.new_tensor(math.inf)
    for finer, (scale, kernel_size) in zip(reversed(range(len(steps))), steps, strict=True):
        shape = (round(height * scale), round(width * scale))
        blurry = F.interpolate(images, size=shape, mode="bilinear", antialias=True) if scale < 1 else images
        visible = None if where is None else F.interpolate(where.float(), size=shape, mode="bilinear") > 0.5
        if scale > previous:
            kernels = clean(resize_kernels(kernels, kernel_size, scale / previous), floor)
        for _ in range(ROUNDS[finer] if finer < len(ROUNDS) else 5):
            latent = l0_deblur(blurry, kernels, smoothness, growth=GROWTH)
            shown = None if visible is None else visible.expand_as(latent)
            threshold = torch.minimum(threshold, edge_threshold(latent, edges * kernel_size, shown))
            kernels = kernel_from_edges(strong_gradients(latent, threshold, shown), blurry, kernel_size, ridge)
            kernels = centre(clean(kernels.clamp_min(0), floor), whole_pixels=True)
            threshold = threshold / 1.1
            smoothness = (smoothness / 1.1).clamp_min(1e-4)
        previous = scale
        count, most = len(kernels) // len(luminance), kept[finer - 1] if 0 < finer <= len(kept) else len(starts)
        asked = rival if finer == HALF else None
        if count > most or asked is not None:
            residuals = reblur_residual(blurry, kernels, where=visible).unflatten(0, (-1, count))
        if asked is not None and not surpassed(asked, blurry, residuals, scale).any():
            return None
        if count > most:
            best = residuals.topk(most, largest=False).indices  # (B, most)
            best = (best + count * torch.arange(len(best), device=best.device)[:, None]).flatten()
            images, kernels, threshold = images[best], kernels[best], threshold[best]
            smoothness, edges, ridge, floor = smoothness[best], edges[best], ridge[best], floor[best]
    return centre(kernels).unflatten(0, (len(luminance), -1))


def surpassed(rival: Tensor, blurry: Tensor, residuals: Tensor, scale: float) -> Tensor:
    """Whether a hypothesis explains a photograph clearly better than its rival `(B, k, k)` does, as booleans `(B,)`.

    blurry: the photographs at `scale`, `(B * S, 1, h, w)`. residuals: of the hypotheses there, `(B, S)`.
    """
    size = int(rival.shape[-1] * scale) // 2 * 2 + 1
    own = blurry[:: residuals.shape[1]]
    return residuals.amin(1) * SURPASSED < reblur_residual(own, resize_kernels(rival, size, scale))


def scales(size: int, ratio: float = math.sqrt(0.5), smallest: int = 5) -> list[tuple[float, int]]:
    """Image scales and odd kernel sizes, coarse to fine."""
    steps, scale = [], 1.0
    while (kernel_size := int(size * scale) // 2 * 2 + 1) >= smallest:
        steps.append((scale, kernel_size))
        scale *= ratio
    return steps[::-1]


def best_window(luminance: Tensor, side: int = 256) -> tuple:
    """Index of the window, `side` pixels or the whole image, with most strong edges of one image `(1, 1, H, W)`: where
    there is most to learn from.
    """
    return next(rich_windows(luminance, side))


def rich_windows(luminance: Tensor, side: int = 256) -> Iterator[tuple]:
    """Indices of windows that do not overlap, as `best_window` has them, those with most edges first."""
    height, width = (min(size, side) for size in luminance.shape[-2:])
    gradients = gradients_inside(luminance).abs().sum(1, keepdim=True)
    # Square roots: many edges count for more than one very strong edge.
    cell = math.gcd(16, height, width)  # pooled first: a large image in a hundredth of the time
    cells = F.avg_pool2d(gradients.sqrt(), cell)
    richness = F.avg_pool2d(cells, (height // cell, width // cell), stride=16 // cell)[0, 0]
    while richness.max() >= 0:
        row, column = divmod(int(richness.argmax()), richness.shape[-1])
        top, left = 16 * row, 16 * column
        yield ..., slice(top, top + height), slice(left, left + width)
        rows, columns = (
            slice(max(0, at - span // 16 + 1), at + span // 16) for at, span in ((row, height), (column, width))
        )
        richness[rows, columns] = -1


@torch.no_grad()
def search_evidence(luminance: Tensor, rival: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
    """Search for the blur kernels of images `(B, 1, H, W)` in [0, 1].

    Returns the hypotheses `(B, S, k, k)`, the best first, and the evidence for the best one, `(B, 2, k, k)`: both are
    inputs of the image encoder. Returns None if no hypothesis explains an image better than `rival` `(B, k, k)` does,
    kernels from elsewhere (`search_kernels`).
    """
    hypotheses = search_kernels(luminance, rival=rival)
    if hypotheses is None:
        return None
    residuals = torch.stack([reblur_residual(luminance, kernels) for kernels in hypotheses.unbind(1)], 1)
    hypotheses = hypotheses.take_along_dim(residuals.argsort(1)[..., None, None], 1)
    return hypotheses, edge_evidence(luminance, hypotheses[:, 0])


@torch.no_grad()
def reblur_residual(luminance: Tensor, kernels: Tensor, sparse: float = 0.1, where: Tensor | None = None) -> Tensor:
    """How badly each kernel explains the photograph, `(B,)`: the mean absolute gradient of (kernel * estimate -
    photograph), a little less where the estimate is sparse; `sparse` is the power that this counts by. `where`: which
    pixels `(1, 1, H, W)` count; all, if it is None.

    The sharp estimate is a weak L0 deblurring with that kernel: a stronger prior leaves so much texture unexplained
    that the kernel hardly matters, and without a prior every kernel explains the photograph. Squares would let the few
    strongest edges decide. Wrong kernels leave echoes of edges, which make the estimate's gradients less sparse: their
    normalised sparsity (Krishnan et al. 2011) decides among explanations that are about as good. The constants are
    ours, measured.
    """
    reach = kernels.shape[-1] // 2
    inside = (..., slice(reach, -reach - 1), slice(reach, -reach - 1))
    latent = l0_deblur(luminance, kernels, torch.full((len(kernels),), 5e-4, device=kernels.device))
    unexplained = circular_gradients(blur(latent, kernels) - luminance)[inside].abs().mean(1)
    edges = circular_gradients(latent)[inside].square().sum(1).sqrt()
    if where is None:
        unexplained, edges = unexplained.flatten(1), edges.flatten(1)
    else:
        unexplained, edges = (maps[:, where[inside][0, 0]] for maps in (unexplained, edges))
    sparsity = edges.mean(1) / edges.square().mean(1).sqrt().clamp_min(1e-12)
    unexplained = unexplained.mean(1)
    return unexplained * sparsity**sparse


@torch.no_grad()
def edge_evidence(luminance: Tensor, kernels: Tensor) -> Tensor:
    """Free least-squares kernels `(B, 2, k, k)` from few and from many edges of the L0 deblurring with `kernels`.

    Where a hypothesis is wrong they differ from it, and the blur decoder corrects it by that difference.
    """
    latent = l0_deblur(luminance, kernels, torch.full((len(kernels),), 2e-3, device=kernels.device))
    size, maps = kernels.shape[-1], []
    for edges in (8.0, 30.0):
        threshold = edge_threshold(latent, torch.full((len(kernels),), edges * size, device=kernels.device))
        ridge = torch.full((len(kernels),), 4.0, device=kernels.device)
        maps.append(kernel_from_edges(strong_gradients(latent, threshold), luminance, size, ridge, border=16))
    return torch.stack(maps, 1)


def l0_deblur(blurry: Tensor, kernels: Tensor, smoothness: Tensor, growth: float = 2.0) -> Tensor:
    """Piecewise smooth sharp image `(B, 1, H, W)` by half-quadratic splitting; `smoothness` `(B,)` weighs the prior.

    The coupling of each image to its edges grows by a factor of `growth` up to `UNTIL`.
    """
    height, width = blurry.shape[-2:]
    reach = max(kernels.shape[-1] // 2 + 1, 4)
    tall, wide = (fft.next_fast_len(side + 2 * reach, real=True) for side in (height, width))
    padded = extend(blurry, reach, reach + tall - height - 2 * reach, reach, reach + wide - width - 2 * reach)
    transfer = transfer_function(kernels, tall, wide)[:, None]
    window = border_window(tall, wide, reach, device=blurry.device).to(padded)
    for _ in range(2):
        blurred = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=(tall, wide))
        padded = torch.lerp(blurred, padded, window)
    data = reals(torch.fft.rfft2(padded) * transfer.conj())
    power = doubled_power(transfer)
    gradient = gradient_power(tall, wide, device=blurry.device).repeat_interleave(2, -1)
    coupling = 2 * smoothness.reshape(-1, 1, 1, 1)
    steps = [max(0, math.ceil(math.log(UNTIL / (2 * one), growth))) for one in smoothness.tolist()]
    left = torch.tensor(steps, device=blurry.device).reshape(-1, 1, 1, 1)
    # All in place: allocating images costs more than computing them.
    right, down, strength, change, solved = (torch.empty_like(padded) for _ in range(5))
    spectrum = torch.fft.rfft2(padded)
    for step in range(max(steps)):
        differences(padded, -1, right), differences(padded, -2, down)
        torch.mul(right, right, out=strength).addcmul_(down, down)
        strength.ge_(0.5 / growth**step)  # smoothness / coupling
        right.mul_(strength), down.mul_(strength)
        differences(right, -1, change, adjoint=True), change.add_(differences(down, -2, strength, adjoint=True))
        torch.fft.rfft2(change, out=spectrum)
        reals(spectrum).mul_(coupling).add_(data).div_(torch.addcmul(power, gradient, coupling))
        torch.fft.irfft2(spectrum, s=(tall, wide), out=solved)
        if step < min(steps):
            padded, solved = solved, padded
        else:
            padded = torch.where(left > step, solved, padded)
        coupling = coupling * growth
    return padded[..., reach : reach + height, reach : reach + width]


def differences(images: Tensor, axis: int, out: Tensor, adjoint: bool = False) -> Tensor:
    """Forward differences of images along an axis, on a torus; or the adjoint of these. Written to `out`."""
    count = images.shape[axis] - 1
    first, last = (images.narrow(axis, start, count) for start in (0, 1))
    if adjoint:
        torch.sub(first, last, out=out.narrow(axis, 1, count))
        torch.sub(images.narrow(axis, count, 1), images.narrow(axis, 0, 1), out=out.narrow(axis, 0, 1))
    else:
        torch.sub(last, first, out=out.narrow(axis, 0, count))
        torch.sub(images.narrow(axis, 0, 1), images.narrow(axis, count, 1), out=out.narrow(axis, count, 1))
    return out


def kernel_from_edges(edges: Tensor, blurry: Tensor, size: int, ridge: Tensor, border: int = 12) -> Tensor:
    """Least squares on |edges * kernel - gradients(blurry)|^2 + ridge |kernel|^2: `(B, size, size)`, sign free.

    25 conjugate gradient steps on the normal equations, whose operator correlates with the edges' autocorrelation.
    """
    right, spectrum = normal_equations(edges, blurry, size, border)
    span = spectrum.shape[1]
    ridge = ridge.reshape(-1, 1, 1)

    def normal(kernels: Tensor) -> Tensor:
        placed = F.pad(kernels, (0, span - size, 0, span - size))
        return torch.fft.irfft2(torch.fft.rfft2(placed) * spectrum, s=(span, span))[:, :size, :size] + ridge * kernels

    kernels = torch.zeros_like(right)
    residual, direction = right, right
    energy = residual.square().sum((1, 2), keepdim=True)
    for _ in range(25):
        image = normal(direction)
        step = energy / (direction * image).sum((1, 2), keepdim=True).clamp_min(1e-12)
        kernels, residual = kernels + step * direction, residual - step * image
        energy, before = residual.square().sum((1, 2), keepdim=True), energy
        direction = residual + energy / before.clamp_min(1e-20) * direction
    return kernels


def normal_equations(edges: Tensor, blurry: Tensor, size: int, border: int) -> tuple[Tensor, Tensor]:
    """Of the least squares of a kernel `(size, size)` from edges `(B, 2, H, W)` and blurry windows `(B, 1, H, W)`: the
    right side `(B, size, size)`, and the half spectrum of the edges' autocorrelation `(B, span, span // 2 + 1)`.
    """
    height, width = blurry.shape[-2:]
    window = border_window(height, width, min(border, max(2, width // 8)), device=blurry.device)
    edges, target = (torch.fft.rfft2(gradients * window) for gradients in (edges, gradients_inside(blurry)))
    reach = size // 2
    right = around_zero_lag(torch.fft.irfft2((edges.conj() * target).sum(1), s=(height, width)), reach)
    autocorrelation = torch.fft.irfft2(edges.abs().square().sum(1), s=(height, width))
    autocorrelation = around_zero_lag(autocorrelation, min(2 * reach, (min(height, width) - 1) // 2))
    return right, transfer_function(autocorrelation, 4 * reach + 8, 4 * reach + 8)


def edge_threshold(images: Tensor, count: Tensor, visible: Tensor | None = None) -> Tensor:
    """The gradient magnitude `(B, 1, 1, 1)` above which every one of 4 orientation bins keeps about `count` pixels, of
    those that are `visible` `(B, 1, H, W)`.
    """
    right, down = gradients_inside(images).flatten(2).unbind(1)  # (B, H * W)
    magnitude = torch.addcmul(right.square(), down, down)
    if visible is not None:
        magnitude = magnitude * visible.flatten(1)
    level, opposed = down.abs() < right.abs(), right * down < 0  # below 45 degrees; of opposite signs
    thresholds = []
    most = int(count.amax()) + 1
    for bin in (level & ~opposed, ~level & ~opposed, ~level & opposed, level & opposed):
        largest = torch.where(bin, magnitude, -1).topk(min(most, magnitude.shape[1])).values
        members = (bin if visible is None else bin & visible.flatten(1)).sum(1)
        last = torch.minimum(count.int() + 1, members).clamp_min(1) - 1
        threshold = largest.gather(1, last[:, None].long())
        thresholds.append(torch.where(members[:, None] > 0, threshold, math.inf))
    return torch.stack(thresholds).amin(0).sqrt().reshape(-1, 1, 1, 1)


def strong_gradients(images: Tensor, threshold: Tensor, visible: Tensor | None = None) -> Tensor:
    """Gradients `(B, 2, H, W)`, zero where their magnitude is below the threshold or they are not `visible`."""
    gradients = gradients_inside(images)
    strong = gradients.square().sum(1, keepdim=True).sqrt() >= threshold
    return gradients * (strong if visible is None else strong & visible)


def circular_gradients(images: Tensor) -> Tensor:
    """Forward differences `(B, 2, H, W)` (horizontal, vertical) of `(B, 1, H, W)` on a torus."""
    return torch.cat([images.roll(-1, -1) - images, images.roll(-1, -2) - images], 1)


def gradients_inside(images: Tensor) -> Tensor:
    """Forward differences with the wrapped-around last column and row set to zero."""
    gradients = circular_gradients(images)
    gradients[..., -1:] = 0
    gradients[..., -1:, :] = 0
    return gradients


def around_zero_lag(correlation: Tensor, reach: int) -> Tensor:
    """Lags -reach .. reach of a circular correlation whose zero lag is at the origin."""
    return correlation.roll((reach, reach), (-2, -1))[..., : 2 * reach + 1, : 2 * reach + 1]


def resize_kernels(kernels: Tensor, size: int, ratio: float) -> Tensor:
    """The same blur seen `ratio` times larger, in a window of `size`."""
    half = (kernels.shape[-1] - 1) / 2
    offsets = (torch.arange(size, device=kernels.device) - size // 2) / ratio / half
    rows, columns = torch.meshgrid(offsets, offsets, indexing="ij")
    positions = torch.stack([columns, rows], -1).expand(len(kernels), -1, -1, -1)
    resized = F.grid_sample(kernels[:, None], positions, align_corners=True, padding_mode="zeros")
    return normalize(resized[:, 0].clamp_min(0))


def clean(kernels: Tensor, floor: Tensor, smallest_part: float = 0.1) -> Tensor:
    """Zero what lies below `floor` times the maximum, and 8-connected parts with less than a tenth of the mass. What
    holds nothing becomes no blur: of a picture of one colour no kernel can be told.
    """
    kernels = kernels * (kernels >= floor.reshape(-1, 1, 1) * kernels.amax((1, 2), keepdim=True))
    arrays = kernels.cpu().numpy()
    for array in arrays:
        parts, count = ndimage.label(array > 0, structure=np.ones((3, 3)))
        if count > 1:
            mass = ndimage.sum(array, parts, range(1, count + 1))
            small = (mass < smallest_part * array.sum()) & (mass < mass.max())
            array[np.isin(parts, np.flatnonzero(small) + 1)] = 0
        if not array.any():
            array[len(array) // 2, len(array) // 2] = 1
    return normalize(torch.from_numpy(arrays).to(kernels.device))
