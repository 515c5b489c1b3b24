"""Lag maps, spectrum and what the kernel search found -> a kernel: how the image encoder reads blur."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bd_diff.blur.kernels import SIZE, grid
from bd_diff.models.blur_decoder import place_maps, to_kernels
from bd_diff.models.lag_maps import LAGS, MAPS, WINDOW
from bd_diff.models.layers import ResidualBlock, SpatialMix

HYPOTHESIS_MAPS = 5  # the hypothesis, its logarithm, two evidence maps, and a mark that there is one


class KernelReader(nn.Module):
    """Kernels read where blur shows (ours).

    Maps are read at full resolution, which keeps a line one pixel thin, and at half of it as a whole. Where the search
    gave a hypothesis, two kernels are read, one free and one that corrects the hypothesis, and mixed by the confidence
    that the search is right: it is about shakes, and wrong about soft blur.
    """

    def __init__(self, spectrum_channels: int = 128, map_channels: int = 32):
        super().__init__()
        C, M = spectrum_channels, map_channels
        self.read_maps = nn.Sequential(
            nn.Conv2d(MAPS + HYPOTHESIS_MAPS + 3, M, 5, padding=2), ResidualBlock(M), ResidualBlock(M)
        )
        self.halve = nn.Conv2d(M, 2 * M, 3, stride=2, padding=1)
        self.read_spectrum = nn.Sequential(nn.Linear(WINDOW * (WINDOW // 2 + 1), 256), nn.SiLU(), nn.Linear(256, C))
        self.spread_spectrum = nn.Linear(C, 2 * M)
        self.read_halved = nn.Sequential(ResidualBlock(2 * M), ResidualBlock(2 * M), SpatialMix((LAGS // 2 + 1) ** 2))
        self.unhalve = nn.Conv2d(2 * M, M, 1)
        self.offset = nn.Parameter(torch.zeros(1, M, SIZE, SIZE))
        self.refine = nn.Sequential(ResidualBlock(M), ResidualBlock(M), nn.GroupNorm(1, M))
        self.to_logits = nn.Conv2d(M, 2, 3, padding=1)
        self.prior = nn.Parameter(-torch.hypot(*grid(SIZE)) / 6)
        self.to_confidence = nn.Linear(4 * M + C, 1)
        for zero in (self.to_logits.weight, self.to_confidence.weight, self.to_confidence.bias):
            nn.init.zeros_(zero)
        self.register_buffer("where", place_maps(LAGS)[0], persistent=False)

    where: Tensor

    def forward(
        self, maps: Tensor, spectrum: Tensor, hypothesis: Tensor | None = None, evidence: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Kernels `(B, 33, 33)` that sum to one and the confidence `(B,)` in [0, 1] that the search is right.

        maps, spectrum: `bd_diff.models.lag_maps`. hypothesis, evidence: a kernel `(B, 33, 33)` of the search and its
        evidence `(B, 2, 33, 33)`, all zero where it found none; the confidence is then that it would be right.
        """
        dtype = self.to_logits.weight.dtype
        searched = hypothesis_maps(hypothesis, evidence, like=maps)
        maps = torch.cat([maps, searched, self.where.expand(len(maps), -1, -1, -1)], 1)
        maps = self.read_maps(maps.to(dtype))  # (B, M, 49, 49)
        spectrum = self.read_spectrum(spectrum.to(dtype))  # (B, C)
        halved = self.read_halved(self.halve(maps) + self.spread_spectrum(spectrum)[..., None, None])  # (B, 2M, 25, 25)
        maps = maps + F.interpolate(self.unhalve(halved), size=maps.shape[-2:], mode="bilinear")
        margin = (LAGS - SIZE) // 2
        maps = maps[..., margin:-margin, margin:-margin] + self.offset
        logits = self.to_logits(self.refine(maps)).float()  # (B, 2, 33, 33)
        pooled = torch.cat([halved.mean((2, 3)), halved.amax((2, 3)), spectrum], 1)
        confidence = self.to_confidence(pooled).float().sigmoid()[:, 0]
        free = to_kernels(logits[:, 0] + self.prior.float())
        if hypothesis is None:
            hypothesis = torch.zeros_like(free)
        corrected = to_kernels(logits[:, 1] + (hypothesis + 3e-4).log())
        return free.lerp(corrected, confidence[:, None, None] * hypothesis.sum((1, 2), keepdim=True)), confidence


def hypothesis_maps(hypothesis: Tensor | None, evidence: Tensor | None, like: Tensor) -> Tensor:
    """`(B, 5, 49, 49)` for the map reader; all zero where there was no search."""
    if hypothesis is None or evidence is None:
        return like.new_zeros(len(like), HYPOTHESIS_MAPS, LAGS, LAGS)
    stacked = torch.cat([20 * hypothesis[:, None], (hypothesis[:, None] + 1e-4).log() / 5 + 1.8, 20 * evidence], 1)
    there = hypothesis.sum((1, 2), keepdim=True)[:, None].expand_as(hypothesis[:, None])
    stacked = stacked * there
    margin = (LAGS - SIZE) // 2
    return F.pad(torch.cat([stacked, there], 1), (margin,) * 4)
