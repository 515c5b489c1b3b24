"""Blur that differs over a photograph: several kernels, and how much each of them counts where."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class BlurField:
    """The blur of one photograph as kernels `(R, k, k)` and their `shares` `(R, h, w)`, which sum to one everywhere.

    Shares are a map of the photograph from border to border, as coarse as one likes: between its values they are
    interpolated bilinearly. An identity on a grid of places gives kernels that fade into each other (efficient filter
    flow: Hirsch et al. 2010); the mask of a thing and its complement give layers.
    """

    kernels: Tensor
    shares: Tensor

    @property
    def middle(self) -> Tensor:
        """The kernel `(k, k)` at the middle of the photograph."""
        shares = self.shares_in(1, 1, slice(None), slice(None))[:, 0, 0]
        return (shares[:, None, None] * self.kernels).sum(0)

    def to(self, device) -> "BlurField":
        """The same on a device."""
        return BlurField(self.kernels.to(device), self.shares.to(device))

    def shares_in(self, height: int, width: int, rows: slice, columns: slice) -> Tensor:
        """The shares `(R, H, W)` in a part of the photograph, of `height` x `width` pixels."""
        down, right = (
            (torch.arange(side, device=self.shares.device)[part] + 0.5) / side * 2 - 1
            for side, part in ((height, rows), (width, columns))
        )
        places = torch.stack(torch.meshgrid(down, right, indexing="ij")[::-1], -1)[None]
        return F.grid_sample(self.shares[None], places, padding_mode="border", align_corners=False)[0]
