"""The small model's "VAE": an exact rearrangement of pixels behind the interface of diffusers' AutoencoderKL."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn


class Exact:
    """What diffusers calls `latent_dist`, without spread: its mode and its samples are `mean`."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean


class PixelVAE(ModelMixin, ConfigMixin):
    """Images `(B, 3, H, W)` to latents `(B, 12, H / 2, W / 2)` and back, without loss and without parameters.

    `scaling_factor` brings the residual between a blurry image and a sharp one (about 0.12 in [-1, 1]) to unit
    variance, so that the noise schedule meets it where it meets a Stable Diffusion latent.
    """

    @register_to_config
    def __init__(
        self, latent_channels: int = 12, block_out_channels: tuple[int, ...] = (3, 12), scaling_factor: float = 8.0
    ):
        super().__init__()
        if latent_channels != 3 * 4 ** (len(block_out_channels) - 1):
            raise ValueError(f"{len(block_out_channels)} resolutions make 3 * 4^n channels, not {latent_channels}")
        self.factor = 2 ** (len(block_out_channels) - 1)
        # diffusers reads a model's dtype and device from its parameters.
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)

    @apply_forward_hook
    def encode(self, pixels: Tensor) -> AutoencoderKLOutput:
        """`latent_dist` whose mode and samples are the rearranged pixels."""
        return AutoencoderKLOutput(latent_dist=Exact(nn.functional.pixel_unshuffle(pixels, self.factor)))

    @apply_forward_hook
    def decode(self, latents: Tensor) -> DecoderOutput:
        """`sample`: the pixels, exactly."""
        return DecoderOutput(sample=nn.functional.pixel_shuffle(latents, self.factor))
