"""Evaluation protocols: named ways to compare a result with its ground truth, as papers do.

A protocol decides what is compared (8 bit, RGB or Y, aligned or not) and which SSIM is used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.evaluation import metrics
from bd_diff.evaluation.metrics import METRICS


@dataclass(frozen=True)
class View:
    """What is compared: `result` and `truth` `(1, C, H, W)`, a mask `(1, 1, H, W)` or None, and their range."""

    result: Tensor
    truth: Tensor
    mask: Tensor | None = None
    data_range: float = 1.0
    aligned: bool | None = None


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol.

    view: makes what is compared of a result and its truth. ssim: uniform (7x7), gaussian (11x11) or volume.
    """

    description: str
    view: Callable[[Tensor, Tensor], View]
    ssim: str = "uniform"

    def score(self, result: Tensor, truth: Tensor, extra: tuple[str, ...] = ()) -> dict[str, float]:
        """PSNR, SSIM and the `extra` metrics of one image, both `(3, H, W)` in [0, 1]."""
        seen = self.view(result[None].double(), truth[None].double())
        if self.ssim == "volume":
            similarity = metrics.ssim_volume(seen.result, seen.truth)
        else:
            similarity = metrics.ssim(seen.result, seen.truth, self.ssim == "gaussian", seen.mask, seen.data_range)
        scores = {
            "psnr": metrics.psnr(seen.result, seen.truth, seen.mask, seen.data_range),
            "ssim": similarity,
            **{name: METRICS[name].compute(seen.result, seen.truth) for name in extra},
        }
        aligned = {} if seen.aligned is None else {"aligned": float(seen.aligned)}
        return {name: float(value) for name, value in scores.items()} | aligned


def eight_bit(images: Tensor) -> Tensor:
    """Values in [0, 1] as an 8-bit file holds them: rounded in float32 as files are written, so that ties go alike."""
    return (images.clamp(0, 1).float() * 255).round().to(images.dtype) / 255


def rgb(result: Tensor, truth: Tensor) -> View:
    """Result and truth in RGB, the result rounded to 8 bit."""
    return View(eight_bit(result), truth)


def y_of_ycbcr(result: Tensor, truth: Tensor) -> View:
    """Result and truth as MATLAB's Y, from 16 to 235, rounded to 8 bit; the peak of PSNR stays 255."""
    result, truth = (eight_bit(metrics.y_channel(eight_bit(images))) for images in (result, truth))
    return View(result, truth)


def extreme(result: Tensor, truth: Tensor) -> View:
    """Result and truth resized to 256x256 (bilinear, antialiased), as X-DECODE's code does.

    The peak of PSNR is the range of the truth.
    """
    result, truth = (
        F.interpolate(images, (256, 256), mode="bilinear", antialias=True).clamp(0, 1) for images in (result, truth)
    )
    return View(result, truth, data_range=max(float(truth.max() - truth.min()), 1 / 255))


def aligned(result: Tensor, truth: Tensor) -> View:
    """RealBlur's comparison (Rim et al. 2020): the result is scaled in brightness and aligned with the truth.

    The scale is sum(truth * result) / sum(result^2); the alignment a homography by ECC, 100 iterations, Gaussian 5x5,
    applied by cubic interpolation. Only the overlap counts: both images are black outside it. Where ECC fails, the
    scaled result is compared without alignment, and the column `aligned` of the results is 0.

    Raises `ValueError` without OpenCV.
    """
    try:
        import cv2
    except ImportError:
        raise ValueError("the protocol realblur-ecc needs OpenCV: pip install 'bd-diff[eval]'") from None
    moved, fixed = (eight_bit(images)[0].permute(1, 2, 0).float().numpy() for images in (result, truth))
    moved = (fixed * moved).sum() / max((moved * moved).sum(), 1e-12) * moved
    template, grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (fixed, moved))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0)
    warp, size, found = torch.eye(3).numpy(), fixed.shape[1::-1], True
    everywhere = np.full(grey.shape, 255, np.uint8)
    try:
        _, warp = cv2.findTransformECC(template, grey, warp, cv2.MOTION_HOMOGRAPHY, stop, everywhere, 5)
    except cv2.error:
        found = False
    inverse = cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(moved, warp, size, flags=cv2.INTER_CUBIC + inverse, borderMode=cv2.BORDER_REFLECT)
    mask = cv2.warpPerspective(torch.ones(fixed.shape[:2]).numpy(), warp, size, flags=cv2.INTER_NEAREST + inverse)
    result, truth = (torch.from_numpy(image * mask[..., None]).permute(2, 0, 1)[None] for image in (moved, fixed))
    return View(result, truth, torch.from_numpy(mask)[None, None], aligned=found)


PROTOCOLS = {
    "rgb": Protocol("8-bit RGB, PSNR over all channels, SSIM as scikit-image: 7x7 uniform, mean of channels", rgb),
    "blur-families": Protocol(
        "sharp photographs under Gaussian, line and shake blur and as they are (see family_pairs); compared as rgb", rgb
    ),
    "blur-families-noise": Protocol("blur-families with noise of 8/255 instead of 1/255", rgb),
    "blur-families-jpeg": Protocol("blur-families through JPEG of quality 75", rgb),
    "blur-families-light": Protocol("blur-families blurred in linear light (sRGB), noise 5e-4 of it", rgb),
    "blur-families-highlights": Protocol("blur-families-light with clipped lights 4 times brighter than white", rgb),
    "gopro-rgb": Protocol(
        "8-bit RGB, PSNR over all channels, SSIM of the colour volume (MATLAB, NAFNet)", rgb, "volume"
    ),
    "hide": Protocol("as gopro-rgb, on HIDE, by a model trained on GoPro", rgb, "volume"),
    "realblur-ecc": Protocol(
        "8-bit RGB scaled and ECC-aligned to the truth, masked; Gaussian SSIM", aligned, "gaussian"
    ),
    "extreme": Protocol("X-DECODE: 256x256, 7x7 uniform SSIM, the range of each truth as the peak", extreme),
    "y-channel": Protocol("8-bit Y of MATLAB's YCbCr, Gaussian SSIM", y_of_ycbcr, "gaussian"),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of this name. Raises `ValueError` with the existing names for an unknown one."""
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
