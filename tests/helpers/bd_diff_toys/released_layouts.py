"""Keys and shapes of the published checkpoints, filled with noise, and what their networks compute from them.

Written from the papers' equations and the list of tensors, independently of the package, to check its converters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def fill(shapes: dict[str, tuple]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    device = torch.empty(0).device
    if device.type == "meta":
        return {key: torch.empty(shape) for key, shape in shapes.items()}
    fan = {key: max(1, torch.Size(shape[1:]).numel()) if len(shape) > 1 else 4 for key, shape in shapes.items()}
    return {key: torch.randn(shape, generator=generator) * 0.7 / fan[key] ** 0.5 for key, shape in shapes.items()}


def conv(prefix: str, *shape: int) -> dict[str, tuple]:
    return {f"{prefix}.weight": shape, f"{prefix}.bias": shape[:1]}


def naf_keys(prefix: str, c: int, pool: int = 1, fourier: bool = False) -> dict[str, tuple]:
    keys = {f"{prefix}.beta": (1, c, 1, 1), f"{prefix}.gamma": (1, c, 1, 1)}
    keys |= conv(f"{prefix}.conv1", 2 * c, c, 1, 1) | conv(f"{prefix}.conv2", 2 * c, 1, 3, 3)
    keys |= conv(f"{prefix}.conv3", c, c, 1, 1) | conv(f"{prefix}.sca.{pool}", c, c, 1, 1)
    keys |= conv(f"{prefix}.conv4", 2 * c, c, 1, 1) | conv(f"{prefix}.conv5", c, c, 1, 1)
    keys |= conv(f"{prefix}.norm1", c) | conv(f"{prefix}.norm2", c)
    for branch in (1, 2) if fourier else ():
        keys |= conv(f"{prefix}.fft_block{branch}.complex_conv1", 4 * c, 2 * c, 1, 1)
        keys |= conv(f"{prefix}.fft_block{branch}.complex_conv2", 2 * c, 4 * c, 1, 1)
    return keys


def encoder_keys(width: int, enc, middle: int) -> dict[str, tuple]:
    keys = conv("intro", width, 3, 3, 3)
    for level, number in enumerate(enc):
        c = width * 2**level
        keys |= conv(f"downs.{level}", 2 * c, c, 2, 2)
        for block in range(number):
            keys |= naf_keys(f"encoders.{level}.{block}", c)
    for block in range(middle):
        keys |= naf_keys(f"middle_blks.{block}", width * 2 ** len(enc))
    return keys


def nafnet_state(width: int, enc, middle: int, dec) -> dict[str, Tensor]:
    keys = encoder_keys(width, enc, middle) | conv("ending", 3, width, 3, 3)
    for index, number in enumerate(dec):
        c = width * 2 ** (len(dec) - 1 - index)
        keys[f"ups.{index}.0.weight"] = (4 * c, 2 * c, 1, 1)
        for block in range(number):
            keys |= naf_keys(f"decoders.{index}.{block}", c)
    return fill(keys)


def adarevd_state(width: int, enc, middle: int, layers, blocks) -> dict[str, Tensor]:
    keys = {f"encoder.{key}": shape for key, shape in encoder_keys(width, enc, middle).items()}
    levels = len(enc)
    for level in range(levels + 1):
        keys[f"conv_features.{level}"] = (1, width * 2**level, 1, 1)
    for k, kind in enumerate(blocks):
        keys |= conv(f"outputs.{k}.0", 3, width, 3, 3)
        for level in range(levels):
            c, prefix = width * 2 ** (levels - 1 - level), f"subdenets.{k}.level{level}"
            keys[f"subdenets.{k}.alpha{level}"] = (1, c, 1, 1)
            keys[f"{prefix}.fusion.up.0.weight"] = (4 * c, 2 * c, 1, 1)
            if level < levels - 1:
                keys |= conv(f"{prefix}.fusion.down.0", c, c // 2, 2, 2) | conv(f"{prefix}.fusion.down.1.body", c)
            for block in range(layers[level]):
                keys |= naf_keys(f"{prefix}.blocks.{block}", c, pool=0, fourier=kind == "fourier")
    return fill(keys)


def classifier_state(channels: int, classes: int, features: str) -> dict[str, Tensor]:
    keys, head = {}, 1
    if features == "e3":
        keys, head = conv("0", channels, channels // 2, 2, 2), 2
    keys |= naf_keys(str(head - 1), channels) | {f"{head}.alpha": (1, classes)}
    keys |= conv(f"{head}.classifier.0", channels) | conv(f"{head}.classifier.1", channels // 2, channels)
    return fill(keys | conv(f"{head}.classifier.3", classes, channels // 2))


class Reader:
    """Layers by key: `read(prefix, x)` is the convolution stored there."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state

    def __call__(self, prefix: str, x: Tensor, **options) -> Tensor:
        return F.conv2d(x, self.state[f"{prefix}.weight"], self.state.get(f"{prefix}.bias"), **options)

    def norm(self, prefix: str, x: Tensor, eps: float) -> Tensor:
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        weight, bias = (self.state[f"{prefix}.{name}"][None, :, None, None] for name in ("weight", "bias"))
        return (x - mean) / (variance + eps).sqrt() * weight + bias

    def fourier(self, prefix: str, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        parts = self(f"{prefix}.complex_conv1", torch.cat([spectrum.real, spectrum.imag], 1))
        parts = self(f"{prefix}.complex_conv2", F.gelu(parts))
        half = parts.shape[1] // 2
        return torch.fft.irfft2(torch.complex(parts[:, :half], parts[:, half:]), s=x.shape[-2:])

    def naf(self, prefix: str, x: Tensor) -> Tensor:
        state, c = self.state, x.shape[1]
        pool = 0 if f"{prefix}.sca.0.weight" in state else 1
        fourier = f"{prefix}.fft_block1.complex_conv1.weight" in state
        normed = self.norm(f"{prefix}.norm1", x, 1e-6)
        wide = self(f"{prefix}.conv2", self(f"{prefix}.conv1", normed), padding=1, groups=2 * c)
        gate = wide[:, :c] * wide[:, c:]
        spatial = self(f"{prefix}.conv3", gate * self(f"{prefix}.sca.{pool}", F.adaptive_avg_pool2d(gate, 1)))
        y = x + state[f"{prefix}.beta"] * (spatial + (self.fourier(f"{prefix}.fft_block1", normed) if fourier else 0))
        normed = self.norm(f"{prefix}.norm2", y, 1e-6)
        wide = self(f"{prefix}.conv4", normed)
        point = self(f"{prefix}.conv5", wide[:, :c] * wide[:, c:])
        return y + state[f"{prefix}.gamma"] * (point + (self.fourier(f"{prefix}.fft_block2", normed) if fourier else 0))

    def encoder(self, prefix: str, x: Tensor, enc, middle: int) -> list[Tensor]:
        x, features = self(f"{prefix}intro", x, padding=1), []
        for level, number in enumerate(enc):
            for block in range(number):
                x = self.naf(f"{prefix}encoders.{level}.{block}", x)
            features.append(x)
            x = self(f"{prefix}downs.{level}", x, stride=2)
        for block in range(middle):
            x = self.naf(f"{prefix}middle_blks.{block}", x)
        return [*features, x]


def nafnet_forward(state: dict[str, Tensor], images: Tensor, enc, middle: int, dec) -> Tensor:
    read, (height, width) = Reader(state), images.shape[-2:]
    multiple = 2 ** len(enc)
    images = F.pad(images, (0, -width % multiple, 0, -height % multiple))
    *skips, x = read.encoder("", images, enc, middle)
    for index, number in enumerate(dec):
        x = F.pixel_shuffle(read(f"ups.{index}.0", x), 2) + skips[-1 - index]
        for block in range(number):
            x = read.naf(f"decoders.{index}.{block}", x)
    return (images + read("ending", x, padding=1))[..., :height, :width]


def adarevd_forward(state: dict[str, Tensor], images: Tensor, enc, middle: int, layers, blocks) -> list[Tensor]:
    """The results of every head, for one tile."""
    read, levels = Reader(state), len(enc)
    features = read.encoder("encoder.", images, enc, middle)
    *c, x = (feature * state[f"conv_features.{level}"] for level, feature in enumerate(features))
    c, results = c[::-1], []
    for k in range(len(blocks)):
        for level in range(levels):
            prefix = f"subdenets.{k}.level{level}"
            y = F.pixel_shuffle(read(f"{prefix}.fusion.up.0", c[level - 1] if level else x), 2)
            if level < levels - 1:
                down = read(f"{prefix}.fusion.down.0", c[level + 1], stride=2)
                y = y + read.norm(f"{prefix}.fusion.down.1.body", down, 1e-5)
            for block in range(layers[level]):
                y = read.naf(f"{prefix}.blocks.{block}", y)
            c[level] = state[f"subdenets.{k}.alpha{level}"] * c[level] + y
        results.append(images + read(f"outputs.{k}.0", c[-1], padding=1))
    return results


def classifier_forward(state: dict[str, Tensor], features: Tensor) -> Tensor:
    read, head = Reader(state), 1
    if "0.weight" in state:
        features, head = read("0", features, stride=2), 2
    pooled = read.naf(str(head - 1), features).mean((2, 3))
    w = {name: state[f"{head}.classifier.{name}"] for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    hidden = F.linear(
        F.layer_norm(pooled, pooled.shape[1:], w["0.weight"], w["0.bias"], 1e-6), w["1.weight"], w["1.bias"]
    )
    last = state[f"{head}.classifier.3.weight"], state[f"{head}.classifier.3.bias"]
    return F.linear(F.gelu(hidden), *last) * state[f"{head}.alpha"]
