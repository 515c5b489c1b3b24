"""Pipelines from a configuration: which class each component is, and how it is built or loaded."""

import shutil
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDIMScheduler

from bd_diff.config import construct
from bd_diff.models.blur_decoder import BlurDecoder
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.pixel_vae import PixelVAE
from bd_diff.models.qformer import QFormer
from bd_diff.models.unet import NAFUNet
from bd_diff.pipeline import BDDiffPipeline

COMPONENTS = {
    "image_encoder": ImageEncoder,
    "structure_qformer": QFormer,
    "blur_qformer": QFormer,
    "blur_decoder": BlurDecoder,
    "unet": NAFUNet,
    "vae": PixelVAE,
    "scheduler": DDIMScheduler,
}


def build_pipeline(sections: dict[str, Any], **ready) -> BDDiffPipeline:
    """An untrained pipeline. Each section holds the keyword arguments of its component's constructor; `class` in a
    section names another class of diffusers; `pipeline` holds the plain settings. Components in `ready` are taken as
    they are. Raises ValueError for unknown names.
    """
    if unknown := sorted(set(sections) - {*COMPONENTS, "pipeline"}):
        raise ValueError(f"networks: there is no component {unknown[0]}; known are {', '.join(COMPONENTS)}, pipeline")
    components = {}
    for name, default in COMPONENTS.items():
        if name in ready:
            components[name] = ready[name]
            continue
        arguments = dict(sections.get(name) or {})
        kind = arguments.pop("class", None)
        if kind is not None and not hasattr(diffusers, kind):
            raise ValueError(f"networks.{name}: diffusers has no class {kind}")
        components[name] = construct(getattr(diffusers, kind) if kind else default, arguments, f"networks.{name}")
    return construct(BDDiffPipeline, components | (sections.get("pipeline") or {}), "networks.pipeline")


def save_pipeline(pipeline: BDDiffPipeline, folder: Path) -> None:
    """Save under a temporary name, then rename: the folder is never half written."""
    temporary = folder.with_name(folder.name + "-saving")
    if temporary.exists():
        shutil.rmtree(temporary)
    pipeline.save_pretrained(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def load_pipeline(folder: str) -> BDDiffPipeline:
    """A saved pipeline, checked as `bd_diff.restore.load` checks it."""
    from bd_diff.model_folder import find_folder, load_checked

    return load_checked(BDDiffPipeline, find_folder(folder))
