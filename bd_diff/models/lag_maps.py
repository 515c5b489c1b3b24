"""Where blur shows: the spectrum of a photograph's gradients, seen as maps over displacement (lag).

Sharp photographs have gradients with a nearly white spectrum; blur multiplies it by the kernel's, so that the logarithm
separates the two. Averaged over windows and transformed back, line and shake blurs become visible streaks (cepstrum).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.operator import extend
from bd_diff.data.pixels import luminance

WINDOW = 64  # pixels; half overlapping
LAGS = 49  # displacements -24 .. 24
MAPS = 3
WINDOWS_AT_ONCE = 1024  # bounds the memory of large images
MOST = 4096  # windows about, of an image of 4 megapixels; larger ones are seen in as many, farther apart


def lag_maps(images: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `(B, 3, 49, 49)` and log spectra `(B, 64 * 33)` of images `(B, 3, H, W)` or grey `(B, 1, H, W)` in
    [0, 1].

    Gradients in 64x64 Hann windows; their power averaged over windows three ways (mean of logarithms, logarithm of the
    mean, mean of normalised spectra); each in the lag domain, zero lag removed, divided by its deviation. Images
    smaller than a window are reflected up to it.
    """
    light = luminance(images.float())
    missing = [max(0, WINDOW - side) for side in light.shape[-2:]]
    light = extend(light, missing[0] // 2, missing[0] - missing[0] // 2, missing[1] // 2, missing[1] - missing[1] // 2)
    step = max(WINDOW // 2, math.ceil(math.sqrt(light.shape[-2] * light.shape[-1] / MOST)))
    windows = gradients(light).unfold(2, WINDOW, step).unfold(3, WINDOW, step)
    rows, columns = windows.shape[2:4]
    mean_log, mean_power, mean_relative = (
        sum(sums) / (rows * columns)
        for sums in zip(*map(sum_spectra, windows.split(-(-WINDOWS_AT_ONCE // columns), 2)), strict=True)
    )
    log_mean = (mean_power / (mean_power.mean((-2, -1), keepdim=True) + 1e-12) + 1e-4).log()
    spectra = torch.stack([mean_log, log_mean, mean_relative], 1)  # (B, 3, 64, 33)
    lags = torch.fft.irfft2(spectra, s=(WINDOW, WINDOW)).roll((LAGS // 2, LAGS // 2), (-2, -1))[..., :LAGS, :LAGS]
    not_zero_lag = torch.ones(LAGS, LAGS, device=images.device)
    not_zero_lag[LAGS // 2, LAGS // 2] = 0
    lags = lags * not_zero_lag
    return lags / (lags.std((-2, -1), keepdim=True) + 1e-6), mean_log.flatten(1)


def gradients(light: Tensor) -> Tensor:
    """Differences to the right and downwards `(B, 2, H, W)` of grey images `(B, 1, H, W)`, zero at the far borders."""
    return torch.cat([F.pad(light.diff(dim=-1), (0, 1)), F.pad(light.diff(dim=-2), (0, 0, 0, 1))], 1)


def sum_spectra(windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums `(B, 64, 33)` over windows `(B, 2, rows, columns, 64, 64)`: logarithm, power, power relative to its mean."""
    hann = torch.hann_window(WINDOW + 2, periodic=False, device=windows.device)[1:-1]
    power = torch.fft.rfft2(windows * hann[:, None] * hann).abs().square().sum(1).flatten(1, 2)  # (B, windows, 64, 33)
    relative = power / (power.mean((-2, -1), keepdim=True) + 1e-6)
    return (relative + 1e-4).log().sum(1), power.sum(1), relative.sum(1)
