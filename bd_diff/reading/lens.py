"""Photographs of one lens: its kernel, learnt from a folder, wherever it explains a photograph best."""

import torch
from torch import Tensor

from bd_diff.blur.kernels import delta
from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import best_window, reblur_residual

SMALLEST = 96  # pixels a side, below which residuals say nothing (ours)


@torch.no_grad()
def read_with_lens(pipeline, pixels: Tensor, fast: bool = False) -> BlurReading:
    """The blur of one image `(1, 3, H, W)` in [-1, 1]: the kernel of `config.lens`, unless the reading without the
    search, or no blur at all, explains the image better (`reblur_residual`), or the image is too small to tell. Then it
    is read as it usually is.
    """
    nowhere = torch.zeros(1, dtype=torch.bool, device=pixels.device)
    lens = torch.tensor(pipeline.config.lens["kernel"], device=pixels.device)[None]
    if min(pixels.shape[-2:]) >= SMALLEST:
        reading = pipeline.read_blur(pixels)
        light = luminance(reduce_noise((pixels[best_window(luminance(pixels))] + 1) / 2))
        rivals = reading.kernels, delta(1, lens.shape[-1], pixels.device)
        if reblur_residual(light, lens) < min(reblur_residual(light, one) for one in rivals):
            reading.kernels, reading.doubtful = lens, nowhere
            return reading
    reading = pipeline.read_usually(pixels, fast)
    reading.doubtful = nowhere if reading.doubtful is None else reading.doubtful
    return reading
