"""Blur tokens -> what blur is: a kernel."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from bd_diff.blur.kernels import SIZE, grid
from bd_diff.models.image_encoder import ResidualBlock

COARSE = 9  # pixels a side of the pictures that the tokens paint of the kernel
PICTURES = 4  # painted by each token


class BlurDecoder(ModelMixin, ConfigMixin):
    """Kernels from blur tokens, sharpened by the encoder's maps (ours).

    Sixteen tokens are a narrow way for a one-pixel line at any angle; the maps keep it thin. Where the search gave a
    hypothesis, two kernels are decoded, one free and one that corrects the hypothesis, and mixed by how far it is to be
    trusted: the search is right about shakes and wrong about soft blur.
    """

    @register_to_config
    def __init__(self, num_tokens: int = 16, token_channels: int = 128, map_channels: int = 32):
        super().__init__()
        self.paint = nn.Linear(token_channels, PICTURES * COARSE**2)
        self.grow = nn.Sequential(
            nn.Conv2d(num_tokens * PICTURES, map_channels, 3, padding=1),
            ResidualBlock(map_channels),
            nn.Upsample(size=SIZE, mode="bilinear"),
        )
        self.refine = nn.Sequential(
            ResidualBlock(map_channels),
            ResidualBlock(map_channels),
            nn.GroupNorm(1, map_channels),
        )
        self.to_logits = nn.Conv2d(map_channels, 2, 3, padding=1)
        nn.init.zeros_(self.to_logits.weight)
        rows, columns = grid(SIZE)
        self.prior = nn.Parameter(-torch.hypot(rows, columns) / 6)
        # Saved models name this layer `trust`; it gives `search_confidence`.
        self.trust = nn.Linear(num_tokens * token_channels, 1)
        nn.init.zeros_(self.trust.weight)
        nn.init.zeros_(self.trust.bias)

    def forward(self, tokens: Tensor, maps: Tensor, hypothesis: Tensor | None = None) -> Tensor:
        """Blur kernels `(B, 33, 33)`, non-negative, each of sum one.

        tokens: blur tokens `(B, T, D)`. maps: `ImageEncoder`'s features of the lag maps, `(B, M, 33, 33)`.
        hypothesis: kernels `(B, 33, 33)` that the search found, zero where it found none.
        """
        pictures = self.paint(tokens).reshape(len(tokens), -1, COARSE, COARSE)  # (B, T * PICTURES, 9, 9)
        logits = self.to_logits(self.refine(self.grow(pictures) + maps)).float()  # (B, 2, 33, 33)
        if hypothesis is None:
            hypothesis = torch.zeros_like(logits[:, 0])
        free = to_kernels(logits[:, 0] + self.prior.float())
        corrected = to_kernels(logits[:, 1] + (hypothesis + 3e-4).log())
        return free.lerp(
            corrected, self.search_confidence(tokens)[:, None, None] * hypothesis.sum((1, 2), keepdim=True)
        )

    def search_confidence(self, tokens: Tensor) -> Tensor:
        """Confidence `(B,)` in [0, 1] that the kernel search is right, from blur tokens `(B, T, D)`.

        It is the share of the kernel that is the corrected hypothesis of the search; the rest is read from the tokens.
        """
        return self.trust(tokens.flatten(1)).float().sigmoid()[:, 0]


def to_kernels(logits: Tensor) -> Tensor:
    """Kernels `(B, k, k)` that sum to one, from logits `(B, k, k)`: the softmax over all positions."""
    return logits.flatten(1).softmax(1).view_as(logits)
