"""What is known of a blur -> a feature for every patch of its kernel: read in a photograph, or carried as a kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bd_diff.blur.kernels import SIZE, grid
from bd_diff.models.lag_maps import LAGS, MAPS, WINDOW
from bd_diff.models.layers import ResidualBlock, SpatialMix
from bd_diff.models.patches import PATCH, patches_a_side

HYPOTHESIS_MAPS = 5  # the hypothesis, its logarithm, two evidence maps, and a mark that there is one
KERNEL_MAPS = 3  # a kernel, its logarithm, and a mark of where its window is


class BlurEncoder(nn.Module):
    """Features of patches (ours): maps are read at full resolution, and at half of it as a whole, then cut."""

    def __init__(self, feature_channels: int = 128, map_channels: int = 32):
        super().__init__()
        C, M = feature_channels, map_channels
        self.read_maps = nn.Sequential(
            nn.Conv2d(MAPS + HYPOTHESIS_MAPS + 3, M, 5, padding=2), ResidualBlock(M), ResidualBlock(M)
        )
        self.halve = nn.Conv2d(M, 2 * M, 3, stride=2, padding=1)
        self.read_spectrum = nn.Sequential(nn.Linear(WINDOW * (WINDOW // 2 + 1), 256), nn.SiLU(), nn.Linear(256, C))
        self.spread_spectrum = nn.Linear(C, 2 * M)
        self.read_halved = nn.Sequential(
            ResidualBlock(2 * M), ResidualBlock(2 * M), SpatialMix((LAGS // 2 + 1) ** 2), ResidualBlock(2 * M)
        )
        self.unhalve = nn.Conv2d(2 * M, M, 1)
        self.read_both = ResidualBlock(M)
        self.patches = nn.Conv2d(M, C, PATCH, stride=PATCH)
        self.kernel_patches = nn.Conv2d(KERNEL_MAPS, C, PATCH, stride=PATCH)
        rows, columns = grid(LAGS)
        radius = torch.hypot(rows, columns)
        where = torch.stack([torch.exp(-radius / 2), torch.exp(-radius / 8), radius / 24])
        self.register_buffer("where", where[None], persistent=False)

    def forward(
        self, maps: Tensor, spectrum: Tensor, hypothesis: Tensor | None = None, evidence: Tensor | None = None
    ) -> Tensor:
        """Features `(B, 49 + 1, C)`, the last one the spectrum's, from lag maps and spectra (`bd_diff.models.lag_maps`)
        and, where the kernel search ran, a hypothesis `(B, 33, 33)` and its evidence `(B, 2, 33, 33)`.
        """
        searched = hypothesis_maps(hypothesis, evidence, like=maps)
        where = self.where.expand(len(maps), -1, -1, -1)
        dtype = self.patches.weight.dtype
        maps = self.read_maps(torch.cat([maps, searched, where], 1).to(dtype))  # (B, M, 49, 49)
        spectrum = self.read_spectrum(spectrum.to(dtype))  # (B, C)
        halved = self.halve(maps) + self.spread_spectrum(spectrum)[..., None, None]
        halved = self.read_halved(halved)  # (B, 2M, 25, 25)
        maps = maps + F.interpolate(self.unhalve(halved), size=maps.shape[-2:], mode="bilinear")
        margin = (LAGS - PATCH * patches_a_side(SIZE)) // 2
        maps = self.read_both(maps[..., margin : LAGS - margin, margin : LAGS - margin])  # (B, M, 35, 35)
        return torch.cat([self.patches(maps).flatten(2).transpose(1, 2), spectrum[:, None]], 1)

    def encode_kernel(self, kernels: Tensor) -> Tensor:
        """Features `(B, N, C)` of kernels `(B, k, k)` that are known, whatever photograph they belong to; k is odd."""
        size = kernels.shape[-1]
        margin = (PATCH * patches_a_side(size) - size) // 2
        maps = torch.stack([20 * kernels, (kernels + 1e-4).log() / 5 + 1.8, torch.ones_like(kernels)], 1)
        maps = F.pad(maps, (margin,) * 4).to(self.patches.weight.dtype)
        return self.kernel_patches(maps).flatten(2).transpose(1, 2)


def hypothesis_maps(hypothesis: Tensor | None, evidence: Tensor | None, like: Tensor) -> Tensor:
    """`(B, 5, 49, 49)` for the map reader; all zero where there was no search."""
    if hypothesis is None:
        return like.new_zeros(len(like), HYPOTHESIS_MAPS, LAGS, LAGS)
    stacked = torch.cat([20 * hypothesis[:, None], (hypothesis[:, None] + 1e-4).log() / 5 + 1.8, 20 * evidence], 1)
    there = hypothesis.sum((1, 2), keepdim=True)[:, None].expand_as(hypothesis[:, None])
    stacked = stacked * there
    margin = (LAGS - SIZE) // 2
    return F.pad(torch.cat([stacked, there], 1), (margin,) * 4)
