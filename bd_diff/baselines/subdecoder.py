"""One reversible sub-decoder of AdaRevD (Mao et al., CVPR 2024): four levels, coarse to fine, and their coupling."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bd_diff.baselines.nafnet import LayerNorm2d, NAFBlock

LEAST_ALPHA = 1e-3  # AdaRevD, released code: the inverse divides by alpha


class FourierUnit(nn.Module):
    """Two pointwise layers on the real and imaginary parts of the spectrum of `(B, C, H, W)`: a global filter.

    Computed in float32 (float64 for float64 input) whatever autocast says: half-precision spectra overflow, and
    half-precision FFTs of most sizes do not exist.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.expand = nn.Conv2d(2 * channels, 4 * channels, 1)
        self.reduce = nn.Conv2d(4 * channels, 2 * channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            exact = torch.promote_types(features.dtype, torch.float32)
            spectrum = torch.fft.rfft2(features.to(exact))
            parts = torch.cat([spectrum.real, spectrum.imag], 1).to(self.expand.weight.dtype)
            real, imaginary = self.reduce(F.gelu(self.expand(parts))).to(exact).chunk(2, dim=1)
            return torch.fft.irfft2(torch.complex(real, imaginary), s=features.shape[-2:]).to(features.dtype)


class FourierNAFBlock(NAFBlock):
    """A NAFBlock with a Fourier unit beside each of its two branches (39 c^2 + 45 c parameters)."""

    def __init__(self, channels: int, window: int | None = None):
        super().__init__(channels, window)
        self.fourier1 = FourierUnit(channels)
        self.fourier2 = FourierUnit(channels)

    def spatial(self, normed: Tensor) -> Tensor:
        return super().spatial(normed) + self.fourier1(normed)

    def pointwise(self, normed: Tensor) -> Tensor:
        return super().pointwise(normed) + self.fourier2(normed)


BLOCKS = {"fourier": FourierNAFBlock, "naf": NAFBlock}


class Fuse(nn.Module):
    """Sum of the state of the next coarser level, upscaled by 2 with pixel shuffle, and that of the next finer level,
    downscaled by 2 with a strided convolution. The finest level has no finer one.
    """

    def __init__(self, channels: int, has_finer: bool):
        super().__init__()
        self.up = nn.Conv2d(2 * channels, 4 * channels, 1, bias=False)
        if has_finer:
            self.down = nn.Conv2d(channels // 2, channels, 2, stride=2)
            self.norm = LayerNorm2d(channels, eps=1e-5)

    def forward(self, coarser: Tensor, finer: Tensor | None = None) -> Tensor:
        enlarged = F.pixel_shuffle(self.up(coarser), 2)
        return enlarged if finer is None else self.norm(self.down(finer)) + enlarged


class Level(nn.Module):
    """Fuse, then `layers` blocks: what one level adds to its state."""

    def __init__(self, channels: int, layers: int, block: str, has_finer: bool):
        super().__init__()
        self.fuse = Fuse(channels, has_finer)
        self.blocks = nn.Sequential(*(BLOCKS[block](channels) for _ in range(layers)))

    def forward(self, coarser: Tensor, finer: Tensor | None = None) -> Tensor:
        return self.blocks(self.fuse(coarser, finer))


class SubDecoder(nn.Module):
    """new_l = alpha_l * old_l + L_l(new_{l-1}, old_{l+1}), level 0 the coarsest, with the bottleneck as new_{-1}.

    The state is a list of one map per level: level l has `channels[l]` channels and twice the size of level l - 1; the
    bottleneck has `2 * channels[0]` channels at half the size of level 0, and is never changed. Given the new state
    every old map follows, finest first (`inverse`).
    """

    def __init__(self, channels: Sequence[int], layers: Sequence[int], block: str = "fourier"):
        super().__init__()
        if block not in BLOCKS:
            raise ValueError(f"there is no block '{block}'; choose from {', '.join(BLOCKS)}")
        last = len(channels) - 1
        self.levels = nn.ModuleList(
            Level(c, number, block, has_finer=level < last)
            for level, (c, number) in enumerate(zip(channels, layers, strict=True))
        )
        self.alphas = nn.ParameterList(torch.full((1, c, 1, 1), 0.5) for c in channels)

    def alpha(self, level: int) -> Tensor:
        """The factor of the old state, kept `LEAST_ALPHA` away from zero; its gradient passes as if it were not."""
        alpha = self.alphas[level]
        kept = torch.where(alpha < 0, -1.0, 1.0) * alpha.abs().clamp_min(LEAST_ALPHA)  # not copysign: ONNX has none
        return alpha + (kept - alpha).detach()

    def forward(self, bottleneck: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
        """The state after this sub-decoder."""
        state = [*state]
        for level, add in enumerate(self.levels):
            coarser = state[level - 1] if level else bottleneck
            state[level] = self.alpha(level) * state[level] + add(coarser, *state[level + 1 : level + 2])
        return state

    def inverse(self, bottleneck: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
        """The state before this sub-decoder, given the one after it."""
        state = [*state]
        for level in reversed(range(len(state))):
            coarser = state[level - 1] if level else bottleneck
            state[level] = (state[level] - self.levels[level](coarser, *state[level + 1 : level + 2])) / self.alpha(
                level
            )
        return state
