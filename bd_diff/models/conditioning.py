"""What the UNet sees beside the tokens: the source image and what the blur operator makes of it, as latents.

The first guess is what the result would be if nothing were learned; the UNet denoises the residual to it.
"""

import math
from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.camera import to_display, to_light
from bd_diff.blur.operator import WIENER_NOISE, data_consistency, deconvolved, reblur
from bd_diff.data.noise import blockiness, noise_level
from bd_diff.data.pixels import luminance

LIGHT_ODDS = -1.0  # of blur in linear light (ours)
HARDLY = 0.02  # a share of the way in linear light that is left out
QUIET = 1.5 / 255  # standard deviation of noise from which on an estimate is worth more, see `doubt`
SMOOTH = 0.1  # blocks that show less do no harm, see there
EXPLAINED = 0.35  # what an estimate may miss of a photograph's contrast, see there
MIDDLE = 1 + len(WIENER_NOISE) // 2  # which guess is the middle deconvolution
SPOILT = 0.002  # see `keep_in_reach`
LIGHT_CLEARLY = 4.0  # how sharply `explain` decides (ours, measured)


def exact(function: Callable) -> Callable:
    """Decorator: call the function with autocast off and its first argument, an image, converted to float32.

    bfloat16 has 8 bits of precision, which is too little for pixel values.
    """

    @wraps(function)
    def run(images: Tensor, *arguments, **settings):
        with torch.autocast(images.device.type, enabled=False):
            return function(images.float(), *arguments, **settings)

    return run


@exact
def deblur_guesses(pixels: Tensor, kernels: Tensor | None, linear_light: bool = False) -> Tensor:
    """Guesses of the sharp image, `(B, G, 3, H, W)` in [-1, 1], where deconvolution may overshoot to 1.5.

    They are the blurry pixels `(B, 3, H, W)` in [-1, 1] themselves, then three Wiener deconvolutions with `kernels`
    `(B, k, k)`, one for each of `WIENER_NOISE`; with `linear_light` three more, computed on linear light instead of
    display values (sRGB): cameras average light, many data sets average display values. G is `guess_count`, or 1
    without kernels.
    """
    if kernels is None:
        return pixels[:, None]
    guesses = [pixels, *(one.clamp_(-1.5, 1.5) for one in deconvolved(pixels, kernels))]
    if linear_light:
        for light in deconvolved(to_light((pixels + 1) / 2, "srgb"), kernels):
            guesses.append(to_display(light.clamp_min_(0), "srgb").mul_(2).sub_(1).clamp_max_(1.5))
    return torch.stack(guesses, 1)


@exact
def transfer_guesses(pixels: Tensor, kernels: Tensor | None) -> Tensor:
    """Guesses for blur transfer, `(B, 2, 3, H, W)`: the image blurred by the kernels, then the image itself, which
    takes the place of all deconvolutions; without kernels the image alone, `(B, 1, 3, H, W)`.
    """
    if kernels is None:
        return pixels[:, None]
    return torch.stack([reblur(pixels, kernels), pixels], 1)


@exact
def explain(estimates: Tensor, pixels: Tensor, kernels: Tensor, weight: float, linear_light: bool = False) -> Tensor:
    """Estimates `(B, 3, H, W)` in [-1, 1] moved to where they explain the blurry pixels (`data_consistency`), the less
    the more the kernel is in `doubt`.

    With linear light a share of the way is gone there instead: its log-odds are `LIGHT_ODDS` and `LIGHT_CLEARLY` times
    how much nearer the estimates come to the photograph when they are blurred in light than when display values are:
    the logarithm of the ratio of both mean squares.
    """
    blurred, light = reblur(estimates, kernels), as_light(estimates)
    misses = [miss(blurred, pixels)]
    if linear_light:
        blurred_light = reblur(light, kernels)
        misses.append(miss(as_pixels(blurred_light), pixels))
    weights = weight * doubt(pixels, torch.stack(misses).amin(0))
    solved = data_consistency(estimates, pixels, kernels, weights, blurred)
    share = torch.sigmoid(LIGHT_ODDS + LIGHT_CLEARLY * (misses[0].log() - misses[-1].log()))
    if not linear_light or share.max() < HARDLY:
        return solved
    moved = data_consistency(light, as_light(pixels), kernels, weights, blurred_light).clamp_min_(0)
    lit = to_display(moved, "srgb").sub_(to_display(light, "srgb")).mul_(2).add_(estimates)
    return solved.lerp(lit, share[:, None, None, None])


def reblurred(images: Tensor, kernels: Tensor, linear: bool = False) -> Tensor:
    """Images `(B, 3, H, W)` in [-1, 1] blurred by kernels `(B, k, k)` in display values or in `linear` light."""
    return as_pixels(reblur(as_light(images), kernels)) if linear else reblur(images, kernels)


def as_light(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as linear light in [0, 1]; what is beyond is clipped."""
    return to_light(((pixels + 1) / 2).clamp_(0, 1), "srgb")


def as_pixels(light: Tensor) -> Tensor:
    """The inverse of `as_light`."""
    return to_display(light.clamp(0, 1), "srgb").mul_(2).sub_(1)


@torch.no_grad()
def miss(blurred: Tensor, pixels: Tensor) -> Tensor:
    """Mean squared differences `(B,)` of images `(B, 3, H, W)`. They weigh, so that nothing learns through them."""
    return (blurred - pixels).square_().mean((1, 2, 3)) + 1e-9


def doubt(pixels: Tensor, missed: Tensor) -> Tensor:
    """Factors `(B,)` from 1 up on the weight of the estimate in `data_consistency`: how doubtful the photograph is.

    They are large where the pixels `(B, 3, H, W)` in [-1, 1] are noisy or show the blocks of JPEG, and where the
    estimate, blurred again, differs much from them: then the kernel is probably wrong (ours, measured on photographs
    of the training).

    missed: mean squared difference of the pixels and the estimate blurred again, `(B,)`.
    """
    light = luminance((pixels + 1) / 2)
    noise, blocks = noise_level(light) / QUIET, blockiness(light) / SMOOTH
    contrast = (pixels[..., 1:] - pixels[..., :-1]).square().mean((1, 2, 3)) + 1e-6
    return noise.clamp_min(1) ** 3 * blocks.clamp_min(1) ** 2 * (missed / contrast / EXPLAINED).clamp_min(1) ** 3


def to_latents(vae, pixels: Tensor, degraded: bool = False) -> Tensor:
    """Scaled latents of pixels `(B, 3, H, W)` in [-1, 1]; a refined VAE filters what is `degraded`."""
    if degraded and hasattr(vae, "refine"):
        latents, _ = vae.refine(pixels)
    else:
        encoded = vae.encode(pixels)
        latents = encoded.latents if "latents" in encoded else encoded.latent_dist.mode()  # TAESD has no distribution
    shift = vae.config.get("shift_factor")
    return (latents - shift if shift else latents) * vae.config.scaling_factor


def to_pixels(vae, latents: Tensor, source: Tensor | None = None) -> Tensor:
    """The inverse of `to_latents`; a refined VAE takes detail from the `source` image `(B, 3, H, W)` in [-1, 1]."""
    detail = {} if source is None else {"source": source.to(latents.dtype)}
    unscaled = latents / vae.config.scaling_factor
    shift = vae.config.get("shift_factor")
    return vae.decode(unscaled + shift if shift else unscaled, **detail).sample


def guess_count(linear_light: bool) -> int:
    """How many guesses a UNet sees: the image and its deconvolutions."""
    return 1 + len(WIENER_NOISE) * (1 + linear_light)


def condition(vae, guesses: Tensor, count: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """What the UNet is conditioned on, from guesses `(B, G, 3, H, W)` in [-1, 1].

    Returns the latents of the first guess, `(B, c, h, w)`, and the condition `(B, count c, h, w)`: these latents, then
    for each other guess the difference of its latents to them. In blur transfer G is 2: the second guess stands for all
    `count` - 1 deconvolutions and is encoded once. In deblurring the first guess is the blurry photograph, which a
    `RefinedVAE` filters. dtype: of the condition, if it is another one than that of the guesses.
    """
    # One by one: together these are the largest maps of all, and memory that is new each time costs more than the work.
    first, *others = (to_latents(vae, one) for one in guesses.unbind(1))
    dtype = first.dtype if dtype is None else dtype
    parts = [one.sub_(first).to(dtype) for one in others]
    if hasattr(vae, "refine") and guesses.shape[1] != 2:
        first = to_latents(vae, guesses[:, 0], degraded=True)
    if guesses.shape[1] == 2:
        parts *= count - 1
    return first, torch.cat([first.to(dtype), *parts], 1)


def keep_in_reach(pixels: Tensor, guesses: Tensor, margin: float = 0.1, broken: float = 4.0) -> Tensor:
    """Pixels `(B, 3, H, W)` in [-1, 1], clamped to what the guesses `(B, G, 3, H, W)` span in 5x5 pixels and a margin.

    Multiplicative gates explode once in a few million pixels, by a hundred times the range: where pixels are out of
    reach by more than `broken` (others are by 0.1), they and what is near fade into the first guess. The channel
    attention of the UNet averages over the image: where all are out of reach by more than `SPOILT` on average, the
    whole image is spoilt, and becomes the middle deconvolution. Ours, measured on real photographs; elsewhere it
    changes one value in two thousand.
    """
    lowest, highest = -highest_around(-guesses.amin(1)), highest_around(guesses.amax(1))
    kept = pixels.clamp(lowest - margin, highest + margin)
    excess = (pixels - kept).abs()
    beyond = (excess.amax(1, keepdim=True) > broken).to(kept.dtype)
    if beyond.any():
        near = F.avg_pool2d(highest_around(beyond, 24), 17, 1, 8, count_include_pad=False)
        kept = kept.lerp(guesses[:, 0].to(kept.dtype), near)
        middle = guesses[:, MIDDLE if guesses.shape[1] > MIDDLE else 0].to(kept.dtype)
        kept = torch.where(excess.mean((1, 2, 3), keepdim=True) > SPOILT, middle, kept)
    return kept


def highest_around(images: Tensor, reach: int = 2) -> Tensor:
    """The maximum of 5 x 5 pixels (2 `reach` + 1) around each of `(B, C, H, W)`, along rows and then columns: of two
    neighbours, of two such pairs, and so on.
    """
    for axis, margins in ((-1, (reach, reach, 0, 0)), (-2, (0, 0, reach, reach))):
        images, seen = F.pad(images, margins, value=-math.inf), 1
        while seen < 2 * reach + 1:
            step = min(seen, 2 * reach + 1 - seen)
            count, seen = images.shape[axis] - step, seen + step
            images = torch.maximum(images.narrow(axis, 0, count), images.narrow(axis, step, count))
    return images


def prediction_target(scheduler, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the UNet has to predict. Raises ValueError for a prediction type that diffusers does not have."""
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return clean
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(clean, noise, timesteps)
    raise ValueError(f"the scheduler predicts {kind!r}; BD-Diff knows sample, epsilon and v_prediction")


def min_snr_weights(scheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights `(B,)` of the error at timesteps `(B,)`, so that no timestep counts more than `gamma` allows.

    Hang et al., "Efficient diffusion training via min-SNR weighting strategy" (2023), section 3.4, for what the
    scheduler predicts.
    """
    signal = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    ratio = (signal / (1 - signal)).clamp_min(1e-8)
    capped = ratio.clamp_max(gamma)
    return capped / {"sample": 1, "epsilon": ratio, "v_prediction": ratio + 1}[scheduler.config.prediction_type]
