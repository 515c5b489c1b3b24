"""U-ResNet: an encoder and decoder of 972,739 values with two residual blocks, and its objective."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Generator, Tensor, nn

from bd_diff.training.losses import WeightedLosses
from bd_diff.training.pairs import BlurConfig, make_pair

MEAN, DEVIATION = 0.45, 0.25  # of the pixels of photographs, about


def leaky(features: Tensor) -> Tensor:
    """LeakyReLU(0.2): with ReLU, RMSprop at 1e-3 left 4 % of the last feature map alive after 100 steps."""
    return F.leaky_relu(features, 0.2)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with Keras's constants, which the original network was trained with."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 projection: `(B, wide, H, W)` -> `(B, narrow, H, W)`."""

    def __init__(self, wide: int, narrow: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(wide, narrow, 3, padding=1), norm(narrow)
        self.conv2, self.norm2 = nn.Conv2d(narrow, narrow, 3, padding=1), norm(narrow)
        self.shortcut = nn.Conv2d(wide, narrow, 1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = leaky(self.norm1(self.conv1(features)))
        return leaky(self.norm2(self.conv2(hidden)) + self.shortcut(features))


class UResNet(ModelMixin, ConfigMixin):
    """Blurry `(B, 3, H, W)` in [0, 1] -> sharp, H and W multiples of 4; not clamped.

    The layers and their sizes are the published table (972,739 with the batch norms' running statistics, which Keras
    counts). Which feature is concatenated to which is derived from the counts: the source says no more than "feature
    reuse by skip connections". Ours, because the source is silent: the last layer predicts what to add to the image
    (the decoder has no skips, so without this every edge would have to pass the bottleneck) and starts at zero, so that
    an untrained network leaves images as they are; the network sees centred pixels (on pixels in [0, 1] it had learned
    nothing about the project's blurs after 1,200 steps); and LeakyReLU everywhere.

    width: channels of the first convolution; 16 is the published network, all other widths scale with it.
    """

    multiple = 4  # both sides of an image must divide by this: two poolings
    tiling = 1024, 64  # larger images are restored in tiles of so many pixels a side, with such an overlap

    @register_to_config
    def __init__(self, width: int = 16):
        super().__init__()
        self.conv2d = nn.Conv2d(3, width, 3, padding=1)
        self.conv2d_1 = nn.Conv2d(3 + width, 4 * width, 3, padding=1)
        self.conv2d_2 = nn.Conv2d(5 * width, 8 * width, 3, padding=1)
        self.residual_block = ResidualBlock(9 * width, 8 * width)
        self.residual_block_1 = ResidualBlock(8 * width, 8 * width)
        self.conv2d_transpose = nn.ConvTranspose2d(8 * width, 8 * width, 3, stride=2, padding=1, output_padding=1)
        self.conv2d_transpose_1 = nn.ConvTranspose2d(8 * width, 4 * width, 3, stride=2, padding=1, output_padding=1)
        self.conv2d_9 = nn.Conv2d(4 * width, 3, 3, padding=1)
        for parameter in self.conv2d_9.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        centred = (images - MEAN) / DEVIATION
        first = leaky(self.conv2d(centred))  # (B, width, H, W)
        second = leaky(self.conv2d_1(torch.cat([centred, first], 1)))
        half = F.max_pool2d(torch.cat([first, second], 1), 2)  # (B, 5 width, H/2, W/2)
        third = leaky(self.conv2d_2(half))
        quarter = F.max_pool2d(torch.cat([half[:, : first.shape[1]], third], 1), 2)  # (B, 9 width, H/4, W/4)
        hidden = self.residual_block_1(self.residual_block(quarter))
        hidden = leaky(self.conv2d_transpose(hidden))
        hidden = leaky(self.conv2d_transpose_1(hidden))  # (B, 4 width, H, W)
        return images + DEVIATION * self.conv2d_9(hidden)


class UResNetObjective(nn.Module):
    """Regression from blurry to sharp: `forward(batch, generator)` gives the weighted losses and their sum."""

    def __init__(self, network: UResNet, losses: WeightedLosses, blur: BlurConfig):
        super().__init__()
        self.network, self.losses, self.blur = network, losses, blur

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        blurry, sharp = make_pair(batch, self.blur, generator)
        return self.losses(self.network(blurry), sharp)
