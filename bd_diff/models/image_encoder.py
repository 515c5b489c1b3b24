"""Pixels -> features for the two Q-Formers: what is in the picture, and how it is blurred."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from bd_diff.data.pixels import luminance
from bd_diff.models.kernel_reader import KernelReader
from bd_diff.models.lag_maps import lag_maps
from bd_diff.models.patches import PATCH, to_patches


@dataclass
class ImageFeatures(BaseOutput):
    """What `ImageEncoder` reads from an image; a part that was not asked for is None.

    structure: features `(B, 64, C)` for the structure Q-Former. blur: features `(B, 49, C)` for the blur Q-Former, of
    the patches of the kernel that was read. kernels: that kernel `(B, 33, 33)`. confidence: `(B,)` in [0, 1] that the
    kernel search is right.
    """

    structure: Tensor | None = None
    blur: Tensor | None = None
    kernels: Tensor | None = None
    confidence: Tensor | None = None


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
        self.kernel_reader = KernelReader(C, map_channels)
        self.kernel_patches = nn.Conv2d(3, C, PATCH, stride=PATCH)

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
        kernels, confidence = self.kernel_reader(maps, spectrum, hypothesis, evidence)
        return ImageFeatures(blur=self.encode_kernel(kernels), kernels=kernels, confidence=confidence)

    def encode_kernel(self, kernels: Tensor) -> Tensor:
        """Blur features `(B, N, C)` of the N patches of kernels `(B, k, k)`, k odd, wherever they come from."""
        maps = torch.stack([20 * kernels, (kernels + 1e-6).log() / 5 + 1.8, torch.ones_like(kernels)], 1)
        return self.kernel_patches(to_patches(maps).to(self.dtype)).flatten(2).transpose(1, 2)
