"""Pixels -> features for the two Q-Formers: what is in the picture, and how it is blurred."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from bd_diff.blur.kernels import SIZE, grid
from bd_diff.metrics import luminance
from bd_diff.models.blur_encoder import HYPOTHESIS_MAPS, BlurEncoder, hypothesis_maps
from bd_diff.models.lag_maps import LAGS, MAPS, WINDOW, lag_maps
from bd_diff.models.layers import ResidualBlock, SpatialMix


@dataclass
class ImageFeatures(BaseOutput):
    """`structure (B, 64, C)` and `blur (B, N, C)` for the Q-Formers; `maps (B, M, 33, 33)` for a `BlurDecoder`."""

    structure: Tensor | None = None
    blur: Tensor | None = None
    maps: Tensor | None = None


class ImageEncoder(ModelMixin, ConfigMixin):
    """Structure from pixels, blur from lag maps and, where the kernel search ran, from its hypothesis (ours).

    With `blur_patches`, blur features are those of the kernel's patches (`BlurEncoder`) and all there is for a
    `PatchDecoder`; without, as in models of the first generation, maps go to their `BlurDecoder` beside them.
    """

    @register_to_config
    def __init__(
        self,
        feature_channels: int = 128,
        structure_channels: int = 64,
        map_channels: int = 32,
        blur_patches: bool = False,
    ):
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
        if blur_patches:
            self.blur = BlurEncoder(C, map_channels)
            return
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
        `(B, 2, 33, 33)` (`bd_diff.models.kernel_search`), all zero for an image that was not searched. `read` may leave
        out one half of the work.
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
        if self.config.blur_patches:
            return ImageFeatures(blur=self.blur(maps, spectrum, hypothesis, evidence))
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

    def encode_kernel(self, kernels: Tensor) -> Tensor:
        """Blur features of known kernels `(B, k, k)`, as `BlurEncoder.encode_kernel`."""
        return self.blur.encode_kernel(kernels)
