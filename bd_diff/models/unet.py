"""The small model's denoiser: a UNet of NAFNet blocks, called like diffusers' UNet2DConditionModel."""

import copy
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from bd_diff.models.positions import OCTAVES, position_codes


@dataclass
class NAFUNetOutput(UNet2DConditionOutput):
    """`sample` as in diffusers, and by radial band of frequency how far it is to be trusted against the photograph:
    factors `(B, bands)` of the solve's weights (`bd_diff.models.blur_operator.data_consistency`); and how much it
    thinks that the blur happened in linear light, `(B,)`, as odds in the logarithm (`bd_diff.conditioning.explain`).
    """

    trust: Tensor | None = None
    light: Tensor | float = 0.0


def widened(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The same convolution of `channels` input channels, the weights of the new ones zero."""
    new = copy.deepcopy(old)
    added = old.weight.new_zeros(old.out_channels, channels - old.in_channels, *old.kernel_size)
    new.in_channels, new.weight = channels, nn.Parameter(torch.cat([old.weight.detach(), added], 1))
    return new


class NAFBlock(nn.Module):
    """Gates instead of activations (Chen et al., "Simple baselines for image restoration", 2022), told the time."""

    def __init__(self, channels: int, time_channels: int):
        super().__init__()
        C = channels
        self.modulate = nn.Linear(time_channels, 2 * C)
        self.mix = nn.Sequential(
            nn.GroupNorm(1, C), nn.Conv2d(C, 2 * C, 1), nn.Conv2d(2 * C, 2 * C, 3, 1, 1, groups=2 * C)
        )
        self.attend = nn.Conv2d(C, C, 1)
        self.project = nn.Conv2d(C, C, 1)
        self.feed = nn.Sequential(nn.GroupNorm(1, C), nn.Conv2d(C, 2 * C, 1))
        self.forward_project = nn.Conv2d(C, C, 1)
        self.scales = nn.Parameter(torch.full((2, C, 1, 1), 0.1))
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        gain, offset = self.modulate(time)[..., None, None].chunk(2, 1)
        left, right = self.mix(x * (1 + gain) + offset).chunk(2, 1)
        gated = left * right
        gated = gated * self.attend(gated.mean((2, 3), keepdim=True))
        x = x + self.scales[0] * self.project(gated)
        left, right = self.feed(x).chunk(2, 1)
        return x + self.scales[1] * self.forward_project(left * right)


class TokenAttention(nn.Module):
    """Every position reads the tokens, with `located` knowing where it is; starts as the identity."""

    def __init__(self, channels: int, token_channels: int, located: bool = False):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.locate = nn.Linear(4 * OCTAVES, channels) if located else None
        self.attention = Attention(channels, cross_attention_dim=token_channels, heads=4, dim_head=channels // 4)
        nn.init.zeros_(self.attention.to_out[0].weight)
        nn.init.zeros_(self.attention.to_out[0].bias)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        positions = self.norm(x).flatten(2).transpose(1, 2)  # (B, H * W, C)
        if self.locate is not None:
            positions = positions + self.locate(position_codes(*x.shape[-2:], device=x.device).to(x.dtype))
        return x + self.attention(positions, encoder_hidden_states=tokens).transpose(1, 2).view_as(x)


class NAFUNet(ModelMixin, ConfigMixin):
    """Denoises `(B, in_channels, H, W)`: noisy latents first, then the condition; H and W multiples of 4.

    Inside, the condition is divided by `latent_scale` and the output multiplied by it: the layers see pixels in [-1, 1]
    and small differences between them. Predicts the clean latents (`prediction_type="sample"`). At the last timestep
    the latents are noise alone and are faded out, so that one step is a regression and does not depend on the seed.

    trust_bands: radial bands of frequency in which it says how far its prediction is to be trusted against what the
        photograph tells, and whether that was blurred in linear light; 0 says neither.
    located: positions that read the tokens know where they are.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 60,
        out_channels: int = 12,
        width: int = 32,
        encoder_blocks: tuple[int, ...] = (1, 1),
        middle_blocks: int = 4,
        decoder_blocks: tuple[int, ...] = (1, 1),
        cross_attention_dim: int = 128,
        num_train_timesteps: int = 1000,
        latent_scale: float = 8.0,
        trust_bands: int = 0,
        located: bool = False,
    ):
        super().__init__()
        time_channels = 4 * width
        self.time_features = Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(64, time_channels)
        self.enter = nn.Conv2d(in_channels, width, 3, padding=1)
        # A straight way from the condition to the output: most of the answer is a linear mix of the Wiener images.
        self.shortcut = nn.Conv2d(in_channels - out_channels, out_channels, 3, padding=1, bias=False)

        def blocks(count: int, channels: int) -> nn.ModuleList:
            return nn.ModuleList(NAFBlock(channels, time_channels) for _ in range(count))

        widths = [width * 2**level for level in range(len(encoder_blocks) + 1)]
        self.encoders = nn.ModuleList(blocks(n, C) for n, C in zip(encoder_blocks, widths, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(C, 2 * C, 2, stride=2) for C in widths[:-1])
        self.middle = blocks(middle_blocks, widths[-1])
        self.readers = nn.ModuleList(
            TokenAttention(widths[-1], cross_attention_dim, located) for _ in range(middle_blocks)
        )
        self.to_trust = nn.Linear(widths[-1], trust_bands + 1) if trust_bands else None
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * C, 4 * C, 1, bias=False), nn.PixelShuffle(2)) for C in reversed(widths[:-1])
        )
        self.decoders = nn.ModuleList(blocks(n, C) for n, C in zip(decoder_blocks, reversed(widths[:-1]), strict=True))
        self.leave = nn.Conv2d(width, out_channels, 3, padding=1)
        zeros = [self.shortcut.weight, self.leave.weight, self.leave.bias]
        zeros += [self.to_trust.weight, self.to_trust.bias] if trust_bands else []
        for zero in zeros:
            nn.init.zeros_(zero)
        if trust_bands:
            self.to_trust.bias.data[-1] = -1.0  # light has to show itself

    def widen_input(self, channels: int) -> None:
        """Let it take `channels` input channels: new weights are zero, so nothing changes until they are trained."""
        self.enter = widened(self.enter, channels)
        self.shortcut = widened(self.shortcut, channels - self.config.out_channels)
        self.register_to_config(in_channels=channels)

    def forward(self, sample: Tensor, timestep: Tensor | int, encoder_hidden_states: Tensor, return_dict: bool = True):
        """`sample` `(B, in_channels, H, W)`, `timestep` `()` or `(B,)`, tokens `(B, T, D)` -> clean latents."""
        timestep = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        time = self.time_embedding(self.time_features(timestep).to(sample.dtype))
        channels = self.config.out_channels
        known = 1 - (timestep.to(sample.dtype) / (self.config.num_train_timesteps - 1))[:, None, None, None] ** 4
        condition = sample[:, channels:] / self.config.latent_scale
        x = self.enter(torch.cat([sample[:, :channels] * known, condition], 1))
        skips = []
        for stage, down in zip(self.encoders, self.downs, strict=True):
            for block in stage:
                x = block(x, time)
            skips.append(x)
            x = down(x)
        for block, reader in zip(self.middle, self.readers, strict=True):
            x = reader(block(x, time), encoder_hidden_states)
        trust, light = None, 0.0
        if self.to_trust is not None:
            *bands, light = self.to_trust(x.mean((2, 3))).float().clamp(-6, 6).unbind(1)
            trust = torch.stack(bands, 1).exp()
        for up, stage in zip(self.ups, self.decoders, strict=True):
            x = up(x) + skips.pop()
            for block in stage:
                x = block(x, time)
        clean = (self.leave(x) + self.shortcut(condition)) * self.config.latent_scale
        return NAFUNetOutput(clean, trust, light) if return_dict else (clean, trust, light)
