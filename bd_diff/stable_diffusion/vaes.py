"""Replaces a pipeline's VAE by a refined one, or by a small fast one of the same latents (TAESD)."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline

from bd_diff.models.model_folder import find_folder, load_checked, read_json
from bd_diff.models.refined_vae import RefinedVAE

CLASSES = {"RefinedVAE": RefinedVAE, "AutoencoderTiny": AutoencoderTiny}


def put_vae(pipeline: DiffusionPipeline, place: str | Path) -> DiffusionPipeline:
    """Put the VAE of a folder or hub id in place of the pipeline's, and return the pipeline; the UNet stays as it is.

    A refined VAE (train/refine_vae.py) also filters the photograph that the UNet sees. Raises ValueError for a VAE of
    another class or with other latents, and for one that was refined around another VAE than the pipeline's.
    """
    folder = find_folder(place)
    name = read_json(folder / "config.json").get("_class_name")
    if name not in CLASSES:
        raise ValueError(f"{place} holds a {name}; a pipeline takes the VAE of its base, or {' or '.join(CLASSES)}")
    vae, own = load_checked(CLASSES[name], folder, dtype=pipeline.vae.dtype).eval(), pipeline.vae
    if vae.config.latent_channels != own.config.latent_channels:
        channels = f"{vae.config.latent_channels} channels, and those of the pipeline's {own.config.latent_channels}"
        raise ValueError(f"{place}: its latents have {channels}")
    if len(vae.config.block_out_channels) != len(own.config.block_out_channels):
        raise ValueError(f"{place} reduces images by another factor than the pipeline's VAE")
    if isinstance(vae, RefinedVAE) and not same_frozen(vae, own):
        raise ValueError(f"{place} was refined around another VAE than the pipeline's; refine that of its base")
    pipeline.register_modules(vae=vae)
    return pipeline


def same_frozen(vae: RefinedVAE, own: Any) -> bool:
    """Whether the frozen tensors of a refined VAE all equal those of `own`, which may itself be refined."""
    wanted, found = own.state_dict(), vae.state_dict()
    frozen = [name for name in found if name.split(".")[0] in RefinedVAE.borrowed]
    scales = [(one.config.scaling_factor, one.config.get("shift_factor")) for one in (vae, own)]
    return scales[0] == scales[1] and all(
        name in wanted and torch.equal(found[name].cpu(), wanted[name].cpu()) for name in frozen
    )
