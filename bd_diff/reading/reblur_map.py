"""A map of where a result may be wrong: blurred again with the estimated kernel, it must equal the photograph."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bd_diff.blur.operator import reblur
from bd_diff.data.drawing import colour_map
from bd_diff.data.pixels import luminance

SMOOTH = 7  # pixels a side that the map is averaged over
FULL = 0.02  # a difference drawn at full colour: 5 of 255 grey levels


def reblur_map(blurry: Tensor, result: Tensor, kernels: Tensor) -> Tensor:
    """How far `kernel * result` is from the photograph, `(B, 1, H, W)`, in [0, 1]; 0 is full agreement.

    `blurry` and `result` `(B, 3, H, W)` in [0, 1], `kernels` `(B, k, k)`. Root mean square over 7x7 pixels of the
    difference in luminance. It shows detail that contradicts the photograph, not invented detail that blur removes.
    """
    difference = luminance(reblur(result, kernels) - blurry)
    return average(difference.square()).sqrt()


def error_map(result: Tensor, truth: Tensor) -> Tensor:
    """The true error on the scale of `reblur_map`, where the truth is known."""
    return average(luminance(result - truth).square()).sqrt()


def average(values: Tensor) -> Tensor:
    """Mean over `SMOOTH` x `SMOOTH` pixels, borders reflected."""
    return F.avg_pool2d(F.pad(values, (SMOOTH // 2,) * 4, mode="reflect"), SMOOTH, stride=1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps `(B, 1, H, W)` over their pixels, `(B,)`."""
    ranks = [values.flatten(1).argsort(1).argsort(1).double() for values in (a, b)]
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*ranks, strict=True)])


def draw_map(values: Tensor):
    """One map `(1, H, W)` as a picture: black where all agrees, through red to white at a difference of `FULL`."""
    return colour_map(values[0] / FULL)
