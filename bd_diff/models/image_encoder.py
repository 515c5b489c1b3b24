"""Pixels -> features for the two Q-Formers: what is in the picture, and how it is blurred."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from bd_diff.blur.kernels import SIZE, grid
from bd_diff.data.pixels import luminance
from bd_diff.models.lag_maps import LAGS, MAPS, WINDOW, lag_maps

HYPOTHESIS_MAPS = 5  # the hypothesis, its logarithm, two evidence maps, and a mark that there is one


@dataclass
class ImageFeatures(BaseOutput):
    """What `ImageEncoder` reads from an image; a part that was not asked for is None.

    structure: features `(B, 64, C)` for the structure Q-Former. blur: features `(B, 26, C)` for the blur Q-Former.
    maps: features of the lag maps `(B, M, 33, 33)` for the blur decoder.
    """

    structure: Tensor | None = None
    blur: Tensor | None = None
    maps: Tensor | None = None


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a SiLU, normalised first."""

    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class SpatialMix(nn.Module):
    """One dense linear map over all positions, shared by the channels: a streak far away says what the centre is."""

    def __init__(self, positions: int):
        super().__init__()
        self.mix = nn.Linear(positions, positions)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x.flatten(2)).view_as(x)


class ImageEncoder(ModelMixin, ConfigMixin):
    """Structure from pixels, blur from lag maps and, where the kernel search ran, from its hypothesis (ours)."""

    @register_to_config
    def __init__(self, feature_channels: int = 128, structure_channels: int = 64, map_channels: int = 32):
        super().__init__()
        C = feature_channels
        self.structure = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, structure_channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(structure_channels, structure_channels, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(structure_channels, C, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(8),
        )
        self.read_maps = nn.Sequential(
            nn.Conv2d(MAPS + HYPOTHESIS_MAPS + 3, map_channels, 5, padding=2),
            ResidualBlock(map_channels),
            ResidualBlock(map_channels),
        )
        self.halve = nn.Conv2d(map_channels, 2 * map_channels, 3, stride=2, padding=1)
        self.read_spectrum = nn.Sequential(nn.Linear(WINDOW * (WINDOW // 2 + 1), 256), nn.SiLU(), nn.Linear(256, C))
        self.spread_spectrum = nn.Linear(C, 2 * map_channels)
        self.read_halved = nn.Sequential(
            ResidualBlock(2 * map_channels),
            ResidualBlock(2 * map_channels),
            SpatialMix((LAGS // 2 + 1) ** 2),
        )
        self.unhalve = nn.Conv2d(2 * map_channels, map_channels, 1)
        self.patches = nn.Conv2d(2 * map_channels, C, 5, stride=5)
        rows, columns = grid(LAGS)
        radius = torch.hypot(rows, columns)
        where = torch.stack([torch.exp(-radius / 2), torch.exp(-radius / 8), radius / 24])
        self.register_buffer("where", where[None], persistent=False)

    def forward(
        self,
        pixels: Tensor,
        hypothesis: Tensor | None = None,
        evidence: Tensor | None = None,
        read: tuple[str, ...] = ("structure", "blur"),
    ) -> ImageFeatures:
        """`pixels` `(B, 3, H, W)` in [-1, 1]; optionally a kernel `hypothesis` `(B, 33, 33)` and its `evidence` maps
        `(B, 2, 33, 33)` (`bd_diff.reading.kernel_search`), all zero for an image that was not searched. `read` may
        leave out one half of the work.
        """
        features = ImageFeatures()
        if "blur" in read:
            features = self.encode_blur(*lag_maps((luminance(pixels) + 1) / 2), hypothesis, evidence)
        if "structure" in read:
            features.structure = self.encode_structure(pixels)
        return features

    def encode_structure(self, pixels: Tensor) -> Tensor:
        """Structure features `(B, 64, C)` alone."""
        height, width = pixels.shape[-2:]
        even = F.pad(pixels, (0, -width % 4, 0, -height % 4), mode="replicate")
        return self.structure(even.to(self.dtype)).flatten(2).transpose(1, 2)

    def encode_blur(self, maps, spectrum, hypothesis=None, evidence=None) -> ImageFeatures:
        """Blur features alone, from lag maps that may have been computed before (`bd_diff.models.lag_maps`)."""
        searched = hypothesis_maps(hypothesis, evidence, like=maps)
        where = self.where.expand(len(maps), -1, -1, -1)
        maps = self.read_maps(torch.cat([maps, searched, where], 1).to(self.dtype))  # (B, M, 49, 49)
        spectrum = self.read_spectrum(spectrum.to(self.dtype))  # (B, C)
        halved = self.halve(maps) + self.spread_spectrum(spectrum)[..., None, None]
        halved = self.read_halved(halved)  # (B, 2M, 25, 25)
        patches = self.patches(halved).flatten(2).transpose(1, 2)  # (B, 25, C)
        maps = maps + F.interpolate(self.unhalve(halved), size=maps.shape[-2:], mode="bilinear")
        margin = (LAGS - SIZE) // 2
        return ImageFeatures(
            blur=torch.cat([spectrum[:, None], patches], 1),
            maps=maps[..., margin:-margin, margin:-margin],
        )


def hypothesis_maps(hypothesis: Tensor | None, evidence: Tensor | None, like: Tensor) -> Tensor:
    """`(B, 5, 49, 49)` for the map reader; all zero where there was no search."""
    if hypothesis is None or evidence is None:
        return like.new_zeros(len(like), HYPOTHESIS_MAPS, LAGS, LAGS)
    stacked = torch.cat([20 * hypothesis[:, None], (hypothesis[:, None] + 1e-4).log() / 5 + 1.8, 20 * evidence], 1)
    there = hypothesis.sum((1, 2), keepdim=True)[:, None].expand_as(hypothesis[:, None])
    stacked = stacked * there
    margin = (LAGS - SIZE) // 2
    return F.pad(torch.cat([stacked, there], 1), (margin,) * 4)
