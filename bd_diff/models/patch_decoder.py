"""Blur tokens -> what blur is: a kernel, painted patch by patch."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from bd_diff.blur.kernels import SIZE, grid
from bd_diff.models.layers import ResidualBlock
from bd_diff.models.patches import PATCH, patches_a_side


class PatchDecoder(ModelMixin, ConfigMixin):
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
        self.fall = nn.Parameter(torch.tensor(1 / 6))  # of the untrained logits, a pixel
        self.trust = nn.Linear(token_channels, 1)
        nn.init.zeros_(self.trust.weight)
        nn.init.zeros_(self.trust.bias)

    def forward(self, tokens: Tensor, size: int = SIZE) -> Tensor:
        """Kernels `(B, size, size)`, non-negative, sum one, from tokens `(B, N, D)`, as many as such a kernel has
        patches. Raises ValueError for another number of tokens.
        """
        rows = patches_a_side(size)
        if tokens.shape[1] != rows**2:
            raise ValueError(f"a kernel of {size} pixels a side has {rows**2} tokens, not {tokens.shape[1]}")
        painted = self.paint(tokens).transpose(1, 2).unflatten(2, (rows, rows))  # (B, P * 25, n, n)
        painted = F.pixel_shuffle(painted, PATCH)  # (B, P, 5n, 5n)
        margin = (PATCH * rows - size) // 2
        painted = painted[..., margin : margin + size, margin : margin + size]
        radius = torch.hypot(*grid(size, tokens.device))
        where = torch.stack([torch.exp(-radius / 2), torch.exp(-radius / 8), radius / 24]).to(painted.dtype)
        seen = torch.cat([painted, where.expand(len(tokens), -1, -1, -1)], 1)
        logits = (painted[:, :1] + self.to_logits(self.refine(self.grow(seen))))[:, 0].float()
        return (logits - self.fall.float() * radius).flatten(1).softmax(1).unflatten(1, (size, size))

    @torch.no_grad()
    def fit_tokens(self, tokens: Tensor, kernels: Tensor, rounds: int = 16) -> Tensor:
        """Tokens near `tokens` `(B, N, D)` that decode more exactly to known `kernels` `(B, k, k)` (ours).

        What the logits lack is painted into the first picture, which goes through as it is, by the change of each token
        that moves the other pictures least; of all rounds the tokens that decode best are kept.
        """
        size, floor = kernels.shape[-1], 1e-6
        margin = (PATCH * patches_a_side(size) - size) // 2
        first, others = self.paint.weight.float().split([PATCH**2, self.paint.out_features - PATCH**2])
        moved = others.T @ others
        moved = moved + 0.01 * moved.diagonal().mean() * torch.eye(len(moved), device=moved.device)  # (D, D)
        change = torch.linalg.solve(moved, first.T)  # (D, 25)
        change = change @ torch.linalg.inv(first @ change)
        tokens, best, least = tokens.float(), tokens, None
        for _ in range(rounds + 1):
            decoded = self(tokens.to(self.dtype), size)
            error = (decoded - kernels).abs().sum((1, 2))
            if least is None:
                best, least = tokens, error
            better = error < least
            best, least = torch.where(better[:, None, None], tokens, best), torch.where(better, error, least)
            lacking = ((kernels + floor).log() - (decoded + floor).log()).clamp(-3, 3)
            lacking = F.pixel_unshuffle(F.pad(lacking, (margin,) * 4)[:, None], PATCH)  # (B, 25, n, n)
            tokens = tokens + lacking.flatten(2).transpose(1, 2) @ change.T
        return best.to(self.dtype)

    def trusts(self, tokens: Tensor) -> Tensor:
        """How far the search's hypothesis is to be trusted, `(B,)` in 0 to 1, from tokens `(B, N, D)`."""
        return self.trust(tokens.mean(1)).float().sigmoid()[:, 0]
