"""Blur tokens -> what blur is: a kernel, painted patch by patch."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from bd_diff.blur.kernels import SIZE, grid
from bd_diff.models.layers import ResidualBlock
from bd_diff.models.patches import PATCH, from_patches, patches_a_side


class BlurDecoder(ModelMixin, ConfigMixin):
    """Kernels from blur tokens and nothing else (ours).

    Each token paints its patch in a few pictures; convolutions over all of them join the patches, and the first picture
    goes through as it is.
    """

    @register_to_config
    def __init__(self, token_channels: int = 128, pictures: int = 8, map_channels: int = 32):
        super().__init__()
        self.paint = nn.Linear(token_channels, pictures * PATCH**2)
        self.grow = nn.Conv2d(pictures + 3, map_channels, 3, padding=1)
        self.refine = nn.Sequential(
            ResidualBlock(map_channels),
            ResidualBlock(map_channels),
            nn.GroupNorm(1, map_channels),
        )
        self.to_logits = nn.Conv2d(map_channels, 1, 3, padding=1)
        nn.init.zeros_(self.to_logits.weight)
        self.fall = nn.Parameter(torch.tensor([1 / 6]))  # of the untrained logits, a pixel

    def forward(self, tokens: Tensor, size: int = SIZE) -> Tensor:
        """Kernels `(B, size, size)`, non-negative, sum one, from tokens `(B, N, D)`, as many as such a kernel has
        patches. Raises ValueError for another number of tokens.
        """
        if tokens.shape[1] != patches_a_side(size) ** 2:
            raise ValueError(
                f"a kernel of {size} pixels a side has {patches_a_side(size) ** 2} tokens, not {tokens.shape[1]}"
            )
        rows = math.isqrt(tokens.shape[1])
        painted = self.paint(tokens).transpose(1, 2).unflatten(2, (rows, rows))  # (B, P * 25, n, n)
        painted = from_patches(pixel_shuffle(painted, PATCH), size)  # (B, P, size, size)
        where, radius = place_maps(size, tokens.device)
        seen = torch.cat([painted, where.to(painted.dtype).expand(len(tokens), -1, -1, -1)], 1)
        logits = (painted[:, :1] + self.to_logits(self.refine(self.grow(seen))))[:, 0].float()
        return to_kernels(logits - self.fall.float() * radius)


def place_maps(size: int, device=None) -> tuple[Tensor, Tensor]:
    """Three maps `(1, 3, size, size)` of where a kernel's pixels are, and their distance `(size, size)` from the
    middle in pixels.
    """
    rows, columns = grid(size, device)
    radius = (rows.square() + columns.square()).sqrt()  # ONNX has no hypot
    return torch.stack([torch.exp(-radius / 2), torch.exp(-radius / 8), radius / 24])[None], radius


def to_kernels(logits: Tensor) -> Tensor:
    """Kernels `(B, k, k)` that sum to one, from logits `(B, k, k)`: the softmax over all positions."""
    return logits.flatten(1).softmax(1).view_as(logits)
