"""Layers that the reader and the decoder of blur are built of."""

from torch import Tensor, nn


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
