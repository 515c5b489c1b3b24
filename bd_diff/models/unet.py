"""The small model's denoiser: a UNet of NAFNet blocks, called like diffusers' UNet2DConditionModel."""

import copy
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

LARGE = 512  # pixels a side from which time counts for more than the last bits, see `quick_unet` (ours)
READ = 128  # the same where blur is read: kernels are fitted to what the UNet makes, and it is thrown away (ours)
MOST = 128.0  # of a gate; on blurred training photographs it reached 104 (ours)


def widened(old: nn.Conv2d, channels: int) -> nn.Conv2d:
    """The same convolution of `channels` input channels, the weights of the new ones zero."""
    new = copy.deepcopy(old)
    added = old.weight.new_zeros(old.out_channels, channels - old.in_channels, *old.kernel_size)
    new.in_channels, new.weight = channels, nn.Parameter(torch.cat([old.weight.detach(), added], 1))
    return new


class NAFBlock(nn.Module):
    """Gates instead of activations (Chen et al., "Simple baselines for image restoration", 2022), told the time.

    A product of two features explodes once in a few million pixels and spoils the image around; it is bounded by
    `MOST`.
    """

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
        left, right = self.mix(torch.addcmul(offset, x, 1 + gain)).chunk(2, 1)
        gated = (left * right).clamp_(-MOST, MOST)
        gated = gated * self.attend(gated.mean((2, 3), keepdim=True))
        x = torch.addcmul(x, self.scales[0], self.project(gated))
        left, right = self.feed(x).chunk(2, 1)
        return torch.addcmul(x, self.scales[1], self.forward_project((left * right).clamp_(-MOST, MOST)))


class TokenAttention(nn.Module):
    """Every position reads the tokens; starts as the identity."""

    def __init__(self, channels: int, token_channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.attention = Attention(channels, cross_attention_dim=token_channels, heads=4, dim_head=channels // 4)
        nn.init.zeros_(self.attention.to_out[0].weight)
        nn.init.zeros_(self.attention.to_out[0].bias)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        positions = self.norm(x).flatten(2).transpose(1, 2)  # (B, H * W, C)
        return x + self.attention(positions, encoder_hidden_states=tokens).transpose(1, 2).view_as(x)


class NAFUNet(ModelMixin, ConfigMixin):
    """Denoises `(B, in_channels, H, W)`: noisy latents first, then the condition; H and W multiples of 4.

    Inside, the condition is divided by `latent_scale` and the output multiplied by it: the layers see pixels in [-1, 1]
    and small differences between them. Predicts the clean latents (`prediction_type="sample"`). At the last timestep
    the latents are noise alone and are faded out, so that one step is a regression and does not depend on the seed.
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
        self.readers = nn.ModuleList(TokenAttention(widths[-1], cross_attention_dim) for _ in range(middle_blocks))
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * C, 4 * C, 1, bias=False), nn.PixelShuffle(2)) for C in reversed(widths[:-1])
        )
        self.decoders = nn.ModuleList(blocks(n, C) for n, C in zip(decoder_blocks, reversed(widths[:-1]), strict=True))
        self.leave = nn.Conv2d(width, out_channels, 3, padding=1)
        for zero in (*self.shortcut.parameters(), *self.leave.parameters()):
            nn.init.zeros_(zero)

    encoders: Any  # nn.ModuleList of nn.ModuleList
    decoders: Any

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
        fading = 1 - (timestep.float() / (self.config.num_train_timesteps - 1))[:, None, None, None] ** 4
        scale = self.config.latent_scale
        seen = sample / scale
        # In place: allocating large maps costs more than computing them.
        seen[:, :channels].mul_((fading * scale).to(seen))
        condition, x = seen[:, channels:], self.enter(seen)
        skips = []
        for stage, down in zip(self.encoders, self.downs, strict=True):
            for block in stage:
                x = block(x, time)
            skips.append(x)
            x = down(x)
        for block, reader in zip(self.middle, self.readers, strict=True):
            x = reader(block(x, time), encoder_hidden_states)
        for up, stage in zip(self.ups, self.decoders, strict=True):
            x = up(x) + skips.pop()
            for block in stage:
                x = block(x, time)
        clean = (self.leave(x) + self.shortcut(condition)) * scale
        return UNet2DConditionOutput(sample=clean) if return_dict else (clean,)


class RoundedUNet:
    """A `NAFUNet` that computes in bfloat16, channels last: on CPUs that multiply such numbers in 0.4 of the time
    (measured). Called like the UNet, with tensors of any type.
    """

    dtype = torch.bfloat16

    def __init__(self, unet: NAFUNet):
        self.unet = rounded(unet, self.dtype)

    def __call__(self, sample: Tensor, timestep: Tensor | int, encoder_hidden_states: Tensor) -> UNet2DConditionOutput:
        seen = sample.to(dtype=self.dtype, memory_format=torch.channels_last)
        clean = self.unet(seen, timestep, encoder_hidden_states.to(self.dtype)).sample
        return UNet2DConditionOutput(sample=clean.contiguous())


def rounded(module: nn.Module, dtype: torch.dtype) -> Any:
    """A copy of a module with parameters of another type, channels last, that shares all else with it, in a quarter
    of the time of a deep copy, which takes as long as the UNet does on a small window.
    """

    def round_one(parameter: Tensor) -> Any:
        layout = torch.channels_last if parameter.ndim == 4 else torch.preserve_format
        return parameter.detach().to(dtype, memory_format=layout)

    new = copy.copy(module)
    new._parameters = {name: None if one is None else round_one(one) for name, one in module._parameters.items()}
    new._modules = {name: None if one is None else rounded(one, dtype) for name, one in module._modules.items()}
    return new


def quick_unet(unet: Any, size: tuple[int, int], least: int = LARGE) -> Any:
    """The fastest way to run a UNet on images of `size`, height and width in pixels: where both are `least` or more, a
    `RoundedUNet` of a `NAFUNet` of float32 on a CPU that has instructions for bfloat16; else the UNet itself. One of
    which hooks, wrappers or parametrizations make more than its parameters say (offloading, casting) stays itself, too.
    """
    if min(size) < least or not isinstance(unet, NAFUNet) or not has_bfloat16():
        return unet
    plain = unet.dtype == torch.float32 and unet.device.type == "cpu"
    return RoundedUNet(unet) if plain and not any(map(is_changed, unet.modules())) else unet


def is_changed(module: nn.Module) -> bool:
    """Whether a module does something else than its class says: a hook, another `forward`, or parametrizations."""
    own = vars(module)
    return any(own.get(name) for name in ("forward", "_hf_hook", "_forward_hooks", "_forward_pre_hooks")) or (
        "parametrizations" in module._modules
    )


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; False where PyTorch is too old to tell."""
    return hasattr(torch.cpu, "get_capabilities") and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
