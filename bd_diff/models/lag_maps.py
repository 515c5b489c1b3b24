"""Where blur shows: the spectrum of a photograph's gradients, seen as maps over displacement (lag).

Sharp photographs have gradients with a nearly white spectrum; blur multiplies it by the kernel's, so that the logarithm
separates the two. Averaged over windows and transformed back, line and shake blurs become visible streaks (cepstrum).
"""

import torch
from torch import Tensor

from bd_diff.metrics import luminance
from bd_diff.models.blur_operator import extend

WINDOW = 64  # pixels; half overlapping
LAGS = 49  # displacements -24 .. 24
MAPS = 3


def lag_maps(images: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `(B, 3, 49, 49)` and log spectra `(B, 64 * 33)` of RGB images `(B, 3, H, W)` in [0, 1].

    Gradients in 64x64 Hann windows; their power averaged over windows three ways (mean of logarithms, logarithm of the
    mean, mean of normalised spectra); each in the lag domain, zero lag removed, divided by its deviation. Images
    smaller than a window are reflected up to it.
    """
    light = luminance(images.float())
    missing = [max(0, WINDOW - side) for side in light.shape[-2:]]
    light = extend(light, missing[0] // 2, missing[0] - missing[0] // 2, missing[1] // 2, missing[1] - missing[1] // 2)
    across = torch.cat([light.diff(dim=-1), torch.zeros_like(light[..., :1])], -1)
    down = torch.cat([light.diff(dim=-2), torch.zeros_like(light[..., :1, :])], -2)
    windows = torch.cat([across, down], 1).unfold(2, WINDOW, WINDOW // 2).unfold(3, WINDOW, WINDOW // 2)
    hann = torch.hann_window(WINDOW + 2, periodic=False, device=images.device)[1:-1]
    power = torch.fft.rfft2(windows * hann[:, None] * hann).abs().square().sum(1).flatten(1, 2)  # (B, windows, 64, 33)
    relative = power / (power.mean((-2, -1), keepdim=True) + 1e-6)
    mean_log = (relative + 1e-4).log().mean(1)
    mean_power = power.mean(1)
    log_mean = (mean_power / (mean_power.mean((-2, -1), keepdim=True) + 1e-12) + 1e-4).log()
    spectra = torch.stack([mean_log, log_mean, relative.mean(1)], 1)  # (B, 3, 64, 33)
    lags = torch.fft.irfft2(spectra, s=(WINDOW, WINDOW)).roll((LAGS // 2, LAGS // 2), (-2, -1))[..., :LAGS, :LAGS]
    not_zero_lag = torch.ones(LAGS, LAGS, device=images.device)
    not_zero_lag[LAGS // 2, LAGS // 2] = 0
    lags = lags * not_zero_lag
    return lags / (lags.std((-2, -1), keepdim=True) + 1e-6), mean_log.flatten(1)
