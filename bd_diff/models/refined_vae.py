"""BD-Diff's refined VAE (arXiv 2502.01522, appendix): refiners after the stages of a frozen VAE, joined by skips."""

from functools import wraps

import torch
from diffusers import AutoencoderKL, ModelMixin
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Generator, Tensor, nn


class Refiner(nn.Module):
    """Adds to features `(B, C, H, W)` what it makes of them and of a skip `(B, S, H, W)`; untrained, nothing."""

    def __init__(self, channels: int, skip_channels: int = 0, groups: int = 32):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.mix = nn.Conv2d(channels + skip_channels, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, skip: Tensor | None = None) -> Tensor:
        seen = self.norm(features)
        seen = seen if skip is None else torch.cat([seen, skip], 1)
        return features + self.leave(nn.functional.silu(self.mix(seen)))


class RefinedVAE(AutoencoderKL, ModelMixin):
    """An `AutoencoderKL` that also takes the degraded image an output belongs to, for the detail that 8x compression
    loses: `decode(latents, source=pixels)`, and whose latents of a degraded image are nearly those of the clean one:
    `refine(pixels)`. In `encode`, and in `decode` without a source, it is the frozen VAE itself.

    A refiner after each encoder stage filters the degraded features; a refiner after each decoder stage takes the
    filtered features of its resolution by a skip connection. In a pipeline the UNet sees the photograph as filtered.
    """

    borrowed = ("encoder", "decoder", "quant_conv", "post_quant_conv")

    @wraps(AutoencoderKL.__init__)  # type: ignore[misc]  # its type is unknown where diffusers is not followed
    def __init__(self, **settings):
        super().__init__(**settings)
        widths, groups = list(self.config.block_out_channels), self.config.norm_num_groups
        stages = [widths[0], *widths]  # the entry, then the down blocks: features of 1, 1/2, ... 1/8, 1/8 of the side
        self.encoder_refiners = nn.ModuleList(Refiner(width, groups=groups) for width in stages)
        self.skips = [max(len(widths) - 2 - stage, 0) for stage in range(len(widths))]  # each up block's, by resolution
        self.decoder_refiners = nn.ModuleList(
            Refiner(width, stages[skip], groups) for width, skip in zip(reversed(widths), self.skips, strict=True)
        )

    @classmethod
    def around(cls, vae: AutoencoderKL) -> "RefinedVAE":
        """A VAE with untrained refiners, which change nothing."""
        refined = cls.from_config(vae.config)
        refined.load_state_dict(vae.state_dict(), strict=False)
        return refined.eval()

    def refine(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Filtered latents `(B, c, h, w)` of a degraded image in [-1, 1], and the filtered features of every stage."""
        x, features = pixels, []
        for stage, refiner in zip(self.stages, self.encoder_refiners, strict=True):
            x = refiner(stage(x))
            features.append(x)
        x = self.encoder.mid_block(x)
        moments = self.encoder.conv_out(self.encoder.conv_act(self.encoder.conv_norm_out(x)))
        moments = moments if self.quant_conv is None else self.quant_conv(moments)
        return moments.chunk(2, 1)[0], features

    @property
    def stages(self) -> list[nn.Module]:
        """The frozen encoder's entry and down blocks, each followed by a refiner."""
        return [self.encoder.conv_in, *self.encoder.down_blocks]

    def features(self, pixels: Tensor) -> list[Tensor]:
        """The frozen encoder's own features of an image in [-1, 1] after every stage, nothing filtered."""
        found = []
        for stage in self.stages:
            pixels = stage(pixels)
            found.append(pixels)
        return found

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: Generator | None = None, source: Tensor | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """As `AutoencoderKL.decode`; with `source` `(B, 3, H, W)` in [-1, 1], with that image's detail."""
        if source is None:
            return super().decode(z, return_dict, generator)
        _, features = self.refine(source)
        x = self.decoder.conv_in(z if self.post_quant_conv is None else self.post_quant_conv(z))
        x = self.decoder.mid_block(x)
        for block, refiner, skip in zip(self.decoder.up_blocks, self.decoder_refiners, self.skips, strict=True):
            x = refiner(block(x), features[skip])
        sample = self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(x)))
        return DecoderOutput(sample=sample) if return_dict else (sample,)
