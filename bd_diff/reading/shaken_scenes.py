"""Things that moved by themselves before a camera that shook.

The kernel that windows agree on is that of the background, but seen with what moved there. So the places where it
explains best what is to be seen (`turned_copies`) improve it, and these are found again, in turns. What it explains no
better than its turned copies do has not this blur, and stays as it is (ours).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import delta
from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import BlurReading, is_linear
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.pyramid import kernel_of, reduced
from bd_diff.reading.refinement import refine
from bd_diff.reading.refuted import LONGEST
from bd_diff.reading.turned_copies import against_copies

# All ours, measured on photographs of the training.
TURNS = 4  # of kernel and places
MOST = 0.6  # share of the image that improves the kernel
SURE = 0.3  # share of it in which a kernel explains more than its copies, if it is right at all:
RIGHT = 0.96  # at most so much of what they leave; right kernels leave up to 0.94 there, wrong ones from 0.975 on
LOW, HIGH = 0.95, 1.0  # share of what its copies leave from which on a kernel counts less, and not at all


@torch.no_grad()
def around_things(pipeline, pixels: Tensor, reading: BlurReading) -> tuple[BlurReading, BlurField | Tensor]:
    """The reading of one image `(1, 3, H, W)` in [-1, 1], with a kernel that is improved where it holds, and the field
    of that kernel and of no blur where it does not. Where it holds nowhere, the reading is in doubt; of a kernel that
    is like its copies nothing is known, and it is returned, `(1, k, k)`. In images longer than `LONGEST` at the
    reading's scale the kernel is not improved.
    """
    kernel, scale = kernel_of(reading), 1.0 if reading.scale is None else float(reading.scale)
    images = reduce_noise((reduced(pixels, scale) + 1) / 2)
    light = luminance(images)
    if (share := against_copies(light, kernel)) is None:
        return reading, kernel
    if max(images.shape[-2:]) <= LONGEST:
        kernel, share = improved(pipeline, images, light, kernel, share, is_linear(reading))
    kernel = pipeline.tell(BlurReading(kernel)).kernels
    if share.quantile(SURE) > RIGHT:
        return replace(reading, kernels=kernel, doubtful=torch.ones_like(share[:, 0, 0, 0], dtype=torch.bool)), kernel
    elsewhere = ((share - LOW) / (HIGH - LOW)).clamp(0, 1)[0]  # (1, h, w)
    nothing = delta(1, kernel.shape[-1], kernel.device)
    field = BlurField(torch.cat([kernel, nothing]), torch.cat([1 - elsewhere, elsewhere]))
    return replace(reading, kernels=kernel), field


def improved(
    pipeline, images: Tensor, light: Tensor, kernel: Tensor, share: Tensor, linear: bool
) -> tuple[Tensor, Tensor]:
    """A better kernel `(1, k, k)` for an image `(1, 3, H, W)` in [0, 1] and its luminance, from those places where it
    leaves least, and its `share` of what its copies leave (`against_copies`); as they are where that becomes no less.
    """
    better, left = kernel, share
    for _ in range(TURNS):
        best = (left <= left.quantile(MOST)).float()
        where = F.interpolate(best, size=images.shape[-2:]) > 0.5
        better = refine(pipeline, images, better, linear, where=where)
        again = against_copies(light, better)
        if again is None:
            return kernel, share
        left = again
    return (better, left) if left.quantile(SURE) < share.quantile(SURE) else (kernel, share)
