"""Early exits: how degraded a tile is, how many sub-decoders it needs, and running each tile to its own depth."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bd_diff.baselines.nafnet import NAFBlock

THRESHOLDS = (20.0, 25.0, 30.0, 35.0, 40.0)  # dB; AdaRevD, GoPro and RealBlur-J: 6 classes


def psnr(images: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB of each image `(B, 3, H, W)` of range [0, 1]: `(B,)`; at most 80 dB, as in AdaRevD's labels."""
    error = (images - target).square().mean((1, 2, 3))
    return 10 * torch.log10(1 / error.clamp_min(1e-8))


def degradation_class(blurry: Tensor, sharp: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Tensor:
    """How many thresholds (dB) lie strictly below each image's PSNR: `(B,)`, 0 the most degraded class."""
    decibels = psnr(blurry, sharp)
    return (decibels[:, None] > decibels.new_tensor(thresholds)).sum(1)


class Classifier(nn.Module):
    """Encoder features of a tile to logits `(B, classes)` of its degradation, before any sub-decoder runs.

    Reads the bottleneck (`channels` wide) or, with `halve`, the level above it (`channels / 2`, twice the size).
    """

    def __init__(self, channels: int, classes: int, halve: bool):
        super().__init__()
        self.down = nn.Conv2d(channels // 2, channels, 2, stride=2) if halve else nn.Identity()
        self.block = NAFBlock(channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.hidden = nn.Linear(channels, channels // 2)
        self.to_classes = nn.Linear(channels // 2, classes)
        self.alpha = nn.Parameter(torch.full((1, classes), classes**-0.5))

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.block(self.down(features)).mean((-2, -1))
        return self.alpha * self.to_classes(F.gelu(self.hidden(self.norm(pooled))))


def run_to_depths(decoders, heads, bottleneck: Tensor, state: Sequence[Tensor], depths: Tensor) -> Tensor:
    """Residuals `(B, 3, H, W)`: item b runs `depths[b]` sub-decoders and the head after them; 0 gives zeros."""
    finest = state[-1]
    residuals = finest.new_zeros(finest.shape[0], 3, *finest.shape[-2:])
    active = depths.new_tensor(range(len(depths)))
    for depth, (decoder, head) in enumerate(zip(decoders, heads, strict=True), start=1):
        staying = (depths[active] >= depth).nonzero()[:, 0]
        if len(staying) == 0:
            break
        if len(staying) < len(active):
            active, bottleneck, state = active[staying], bottleneck[staying], [level[staying] for level in state]
        state = decoder(bottleneck, state)
        leaving = depths[active] == depth
        if leaving.any():
            residuals[active[leaving]] = head(state[-1][leaving]).to(residuals.dtype)
    return residuals


def derive_exit_table(psnr_by_class: Sequence[Sequence[float]], counts: Sequence[int], tau: float) -> list[int]:
    """Sub-decoders per class: the smallest depth after which one more gains less than `tau` dB.

    `psnr_by_class[c][k]` is the mean PSNR of class c after k sub-decoders, k = 0 being the blurry input, over
    `counts[c]` crops. A class without crops runs in full.
    """
    if tau < 0:
        raise ValueError(f"tau is {tau} dB; it must be at least 0")
    table = []
    for means, seen in zip(psnr_by_class, counts, strict=True):
        full = len(means) - 1
        enough = (k for k in range(full) if means[k + 1] - means[k] < tau)
        table.append(next(enough, full) if seen else full)
    return table
