"""Training a refined VAE in its two phases (arXiv 2502.01522, appendix)."""

import torch
from torch import Generator, Tensor, nn

from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.training.losses import WeightedLosses
from bd_diff.training.pairs import BlurConfig, make_pair

PHASES = ("encoder", "decoder")


class RefineObjective(nn.Module):
    """One of the two phases: `encoder` learns the frozen VAE's latent of the sharp image from the degraded one (mean
    squared error), then `decoder` learns the sharp image (`losses`, of images in [0, 1]).
    """

    def __init__(self, vae: RefinedVAE, phase: str, losses: WeightedLosses, blur: BlurConfig):
        super().__init__()
        if phase not in PHASES:
            raise ValueError(f"phase is {phase!r}; it must be {' or '.join(PHASES)}")
        self.vae, self.phase, self.losses, self.blur = vae, phase, losses, blur
        vae.requires_grad_(False)
        getattr(vae, f"{phase}_refiners").requires_grad_(True)

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """`batch["sharp"]` `(B, 3, H + k - 1, W + k - 1)` in [0, 1], k the size of kernels."""
        with torch.autocast(batch["sharp"].device.type, enabled=False):
            blurry, sharp = make_pair(batch, self.blur, generator)
        latents, _ = self.vae.refine(blurry * 2 - 1)
        if self.phase == "encoder":
            with torch.no_grad():
                wanted = self.vae.encode(sharp * 2 - 1).latent_dist.mode()
            scale = self.vae.config.scaling_factor
            return {"loss": nn.functional.mse_loss(latents.float() * scale, wanted.float() * scale)}
        restored = self.vae.decode(latents, source=blurry * 2 - 1).sample
        return self.losses(restored.float() / 2 + 0.5, sharp)
