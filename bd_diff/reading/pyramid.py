"""Blur of any width: read at the scale where it fits, carried to the photograph's own scale, and improved there.

The networks and the search read kernels of up to 33 pixels. A wider blur is one of that width in the photograph made
smaller; so scales are tried from the coarsest on, and where a blur is found that is wide even there, its kernel is
made larger step by step, and refined at each (coarse to fine, as in Fergus et al. 2006). At a coarse scale a window
holds more of the photograph, too, and its noise is less.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.kernels import delta
from bd_diff.data.pixels import luminance
from bd_diff.reading.blur_reading import CONFIDENT, BlurReading, refine, search_blur
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import SMALLEST_WINDOW, best_window, reblur_residual, resize_kernels
from bd_diff.reading.verdict import extents

SCALES = (0.25, 0.5)  # beside 1: with kernels of 33 pixels, up to 129
WIDE = 15  # pixels: a kernel that reaches so far does not fit the next scale's 33
NARROW = 7  # pixels: a kernel that reaches less far is not carried at all
WINDOW = 8  # times a kernel's size, pixels a side of the window in which it is refined


@torch.no_grad()
def read_at_scales(pipeline, pixels: Tensor) -> BlurReading:
    """The blur of one image `(1, 3, H, W)` in [-1, 1], at the scale where its kernel fits into 33 x 33 pixels.

    Scales are tried from the coarsest on. At the first where the search finds, without doubt, a kernel of at least
    `WIDE` pixels, that kernel is enlarged to the full scale and returned: `(1, 129, 129)` from a quarter of the size,
    `(1, 65, 65)` from a half. If there is none, the image is read at full scale: `(1, 33, 33)`; if that reading is in
    doubt, the kernel of the scale before it, enlarged, is taken where it has at least `NARROW` pixels and explains the
    image better than no blur.
    """
    narrower = None
    for scale in SCALES:
        if min(pixels.shape[-2:]) * scale >= SMALLEST_WINDOW:
            coarse = search_blur(pipeline, reduced(pixels, scale))
            assert coarse.kernels is not None and coarse.doubtful is not None  # there is a blur decoder
            reach = 0 if coarse.doubtful.any() else max(extents(coarse.kernels[0]))
            if reach >= WIDE and (carried := carry(pipeline, pixels, coarse, coarse.kernels, scale)):
                return carried
            narrower = (coarse, coarse.kernels, scale) if reach >= NARROW else None
    reading = search_blur(pipeline, pixels)
    if narrower and reading.doubtful is not None and reading.doubtful.any():
        return carry(pipeline, pixels, *narrower) or reading
    return reading


def carry(pipeline, pixels: Tensor, coarse: BlurReading, kernels: Tensor, scale: float) -> BlurReading | None:
    """A reading of the reduced image and its kernels `(1, k, k)`, enlarged and refined step by step to full scale.

    scale: of the reduced image, 0.25 or 0.5. None where no kernel explains the image better than no blur does.
    """
    while scale < 1:
        scale = 2 * scale
        size = 2 * kernels.shape[-1] - 1
        seen = reduced(pixels, scale) if scale < 1 else pixels
        window = reduce_noise((seen[best_window(luminance(seen), WINDOW * size)] + 1) / 2)
        enlarged = resize_kernels(kernels, size, 2.0)
        candidates = [delta(1, size, pixels.device), enlarged]
        confidence = coarse.search_confidence
        if confidence is not None and confidence > CONFIDENT:  # elsewhere there is no shake, see `search_blur`
            candidates.append(refine(pipeline, window, coarse, enlarged))
            candidates.append(refine(pipeline, window, coarse, candidates[-1]))
        residuals = [float(reblur_residual(luminance(window), one)) for one in candidates]
        best = min(range(len(candidates)), key=residuals.__getitem__)
        if best == 0:
            return None
        kernels = candidates[best]
    return BlurReading(
        features=coarse.features,
        tokens=coarse.tokens,
        kernels=kernels,
        search_confidence=coarse.search_confidence,
        doubtful=coarse.doubtful,
    )


def reduced(pixels: Tensor, scale: float) -> Tensor:
    """Images `(B, 3, H, W)` made smaller, without aliasing."""
    shape = [round(side * scale) for side in pixels.shape[-2:]]
    return F.interpolate(pixels, size=shape, mode="bilinear", antialias=True)
