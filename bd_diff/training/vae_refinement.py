"""Training a refined VAE in its two phases (arXiv 2502.01522, appendix)."""

import torch
from torch import Generator, Tensor, nn

from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.training.losses import WeightedLosses
from bd_diff.training.pairs import BlurConfig, make_pair

PHASES = ("encoder", "decoder")


class RefineObjective(nn.Module):
    """One of the two phases of training a `RefinedVAE`.

    `encoder`: the refined encoder learns the frozen VAE's latent of the sharp image from the degraded one (mean squared
    error). `decoder`: the refined decoder learns the sharp image (`losses`, of images in [0, 1]).

    With a `layer_weight` the encoder also learns the frozen encoder's features of the sharp image after every stage, as
    UniRestore's feature restoration does (Chen et al. 2025, arXiv 2501.13134): mean squared error by the features' mean
    square, averaged over stages.
    """

    def __init__(
        self, vae: RefinedVAE, phase: str, losses: WeightedLosses, blur: BlurConfig, layer_weight: float = 0.0
    ):
        super().__init__()
        if phase not in PHASES:
            raise ValueError(f"phase is {phase!r}; it must be {' or '.join(PHASES)}")
        self.vae, self.phase, self.losses, self.blur, self.layer_weight = vae, phase, losses, blur, layer_weight
        vae.requires_grad_(False)
        getattr(vae, f"{phase}_refiners").requires_grad_(True)

    def forward(self, batch: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """Losses of a batch, scalars: `loss`, and the named parts of it.

        `batch["sharp"]` is `(B, 3, H + k - 1, W + k - 1)` in [0, 1]: blurring by kernels of k pixels a side leaves
        images of `(H, W)`.
        """
        with torch.autocast(batch["sharp"].device.type, enabled=False):
            blurry, sharp = make_pair(batch, self.blur, generator)
        latents, features = self.vae.refine(blurry * 2 - 1)
        if self.phase == "encoder":
            with torch.no_grad():
                wanted = self.vae.encode(sharp * 2 - 1).latent_dist.mode()
                sharp_features = self.vae.features(sharp * 2 - 1) if self.layer_weight else []
            scale = self.vae.config.scaling_factor
            loss = nn.functional.mse_loss(latents.float() * scale, wanted.float() * scale)
            if not self.layer_weight:
                return {"loss": loss}
            pairs = zip(features, sharp_features, strict=True)
            layers = torch.stack([(f.float() - s).square().mean() / s.float().square().mean() for f, s in pairs]).mean()
            return {"loss": loss + self.layer_weight * layers, "latent": loss, "layers": layers}
        restored = self.vae.decode(latents, source=blurry * 2 - 1).sample
        return self.losses(restored.float() / 2 + 0.5, sharp)
