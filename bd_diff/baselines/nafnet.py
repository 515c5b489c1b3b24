"""NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), the encoder AdaRevD stands on."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from bd_diff.baselines.released import check_keys, count, load_strictly, rename, unwrap


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel of `(B, C, H, W)`."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        last = features.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def local_mean(features: Tensor, window: int | None) -> Tensor:
    """Mean of `(B, C, H, W)` over a sliding window of `window` pixels a side, replicated to the border.

    A window of None, or one that covers the map, gives the global mean `(B, C, 1, 1)`. This is test-time local
    pooling (Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation", ECCV 2022): the
    network sees means over as many pixels as in training, whatever the size of the image.
    """
    height, width = features.shape[-2:]
    if window is None or window >= max(height, width):
        return features.mean((-2, -1), keepdim=True)
    means = features.float() if features.dtype.itemsize < 4 else features
    for dim, front in ((-2, (0, 0, 1, 0)), (-1, (1, 0))):
        reach = min(window, means.shape[dim])
        sums = F.pad(means.cumsum(dim), front)
        steps = sums.shape[dim] - reach
        means = (sums.narrow(dim, reach, steps) - sums.narrow(dim, 0, steps)) / reach
    missing = height - means.shape[-2], width - means.shape[-1]
    border = missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2
    return F.pad(means, border, mode="replicate").to(features.dtype)


class NAFBlock(nn.Module):
    """Nonlinear activation free block: y = x + beta * spatial(LN x), z = y + gamma * pointwise(LN y).

    beta and gamma start at zero, so a new block passes its input on unchanged. `window`: see `local_mean`.
    """

    def __init__(self, channels: int, window: int | None = None):
        super().__init__()
        self.window = window
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv2 = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, 2 * channels, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def spatial(self, normed: Tensor) -> Tensor:
        gated = simple_gate(self.conv2(self.conv1(normed)))
        return self.conv3(gated * self.attention(local_mean(gated, self.window)))

    def pointwise(self, normed: Tensor) -> Tensor:
        return self.conv5(simple_gate(self.conv4(normed)))

    def forward(self, features: Tensor) -> Tensor:
        features = features + self.beta * self.spatial(self.norm1(features))
        return features + self.gamma * self.pointwise(self.norm2(features))


def simple_gate(features: Tensor) -> Tensor:
    """Product of the two halves of the channels."""
    first, second = features.chunk(2, dim=1)
    return first * second


class NAFEncoder(nn.Module):
    """Images `(B, 3, H, W)`, sides multiples of 2^levels, to one feature map per level and the bottleneck.

    Level l has `width * 2^l` channels at 1 / 2^l of the size, taken before the step down; the bottleneck is the
    output of the middle blocks.
    """

    def __init__(self, width: int, blocks: Sequence[int], middle_blocks: int, pool_window: int | None = None):
        super().__init__()
        channels = [width * 2**level for level in range(len(blocks) + 1)]
        windows = [pool_window and max(1, pool_window >> level) for level in range(len(blocks) + 1)]
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(NAFBlock(c, window) for _ in range(number)))
            for number, c, window in zip(blocks, channels, windows, strict=False)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in channels[:-1])
        self.middle = nn.Sequential(*(NAFBlock(channels[-1], windows[-1]) for _ in range(middle_blocks)))

    def forward(self, images: Tensor) -> list[Tensor]:
        hidden, features = self.intro(images), []
        for level, down in zip(self.levels, self.downs, strict=True):
            features.append(level(hidden))
            hidden = down(features[-1])
        return [*features, self.middle(hidden)]


class NAFNet(ModelMixin, ConfigMixin):
    """Blurry images `(B, 3, H, W)` in [0, 1] to sharp ones of the same size, not clamped; any size.

    The defaults are NAFNet-GoPro-width64 (67,888,835 parameters). Sides are padded with zeros to a multiple of
    2^levels, as the released network does. `pool_window` (384 in the paper's tests, in pixels of the image) pools
    locally at test time; None pools over the whole image.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        enc_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        dec_blocks: Sequence[int] = (1, 1, 1, 1),
        pool_window: int | None = None,
    ):
        super().__init__()
        if len(enc_blocks) != len(dec_blocks):
            raise ValueError(
                f"enc_blocks has {len(enc_blocks)} levels and dec_blocks {len(dec_blocks)}; give both as many"
            )
        levels = range(len(enc_blocks) - 1, -1, -1)
        self.encoder = NAFEncoder(width, enc_blocks, middle_blocks, pool_window)
        self.ups = nn.ModuleList(
            nn.Conv2d(width * 2 ** (level + 1), width * 2 ** (level + 2), 1, bias=False) for level in levels
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(NAFBlock(width * 2**level, pool_window and max(1, pool_window >> level)) for _ in range(number))
            )
            for number, level in zip(dec_blocks, levels, strict=True)
        )
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        multiple = 2 ** len(self.levels)
        padded = F.pad(images, (0, -width % multiple, 0, -height % multiple))
        *skips, hidden = self.encoder(padded)
        for up, level, skip in zip(self.ups, self.levels, reversed(skips), strict=True):
            hidden = level(F.pixel_shuffle(up(hidden), 2) + skip)
        return (padded + self.ending(hidden))[..., :height, :width]

    def every_depth(self, images: Tensor) -> list[Tensor]:
        """The one result, as a list: what AdaRevD gives for each of its depths."""
        return [self(images)]


ENCODER_NAMES = {  # released name -> ours; the rest of the key stays
    r"^intro\.": "encoder.intro.",
    r"^encoders\.": "encoder.levels.",
    r"^downs\.": "encoder.downs.",
    r"^middle_blks\.": "encoder.middle.",
    r"^decoders\.": "levels.",
    r"^ups\.(\d)\.0\.": r"ups.\1.",
    r"\bsca\.1\.": "attention.",
}


def convert_released(state_dict: Mapping) -> NAFNet:
    """The network of a released NAFNet checkpoint (`{"params": {...}}`, as NAFNet-GoPro-width64.pth), loaded strictly.

    Width and block counts are read from the keys and shapes. Read the file with `torch.load(path, weights_only=True)`.
    """
    state = unwrap(state_dict)
    check_keys(state, ["intro.weight", "ending.weight", "encoders.0.0.beta"], "a NAFNet checkpoint")
    levels = count(state, r"encoders\.(\d+)\.")
    network = NAFNet(
        width=state["intro.weight"].shape[0],
        enc_blocks=[count(state, rf"encoders\.{level}\.(\d+)\.") for level in range(levels)],
        middle_blocks=count(state, r"middle_blks\.(\d+)\."),
        dec_blocks=[count(state, rf"decoders\.{level}\.(\d+)\.") for level in range(levels)],
    )
    load_strictly(network, rename(state, ENCODER_NAMES))
    return network.eval()
