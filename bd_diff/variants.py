"""Pipelines from a configuration: which class each component is, and how it is built or loaded."""

from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDIMScheduler

from bd_diff.config import construct
from bd_diff.model_folder import find_folder, is_adapter, load_checked, replacing_folder
from bd_diff.models.blur_decoder import BlurDecoder
from bd_diff.models.clip_encoder import ClipImageEncoder
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.patch_decoder import PatchDecoder
from bd_diff.models.patch_qformer import PatchQFormer
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
OWN_CLASSES = {kind.__name__: kind for kind in (*COMPONENTS.values(), ClipImageEncoder, PatchDecoder, PatchQFormer)}


def build_pipeline(sections: dict[str, Any], **ready) -> BDDiffPipeline:
    """An untrained pipeline. Each section holds the keyword arguments of its component's constructor; `class` in a
    section names another class of this package or of diffusers; `pipeline` holds the plain settings. Components in
    `ready` are taken as they are; a section `blur_decoder` that is None leaves it out. Raises ValueError for unknown
    names.
    """
    if unknown := sorted(set(sections) - {*COMPONENTS, "pipeline"}):
        raise ValueError(f"networks: there is no component {unknown[0]}; known are {', '.join(COMPONENTS)}, pipeline")
    components = {}
    for name, default in COMPONENTS.items():
        if name in ready:
            components[name] = ready[name]
            continue
        if name == "blur_decoder" and sections.get(name, {}) is None:
            components[name] = None
            continue
        arguments = dict(sections.get(name) or {})
        kind = arguments.pop("class", None)
        cls = default if kind is None else OWN_CLASSES.get(kind) or getattr(diffusers, kind, None)
        if cls is None:
            raise ValueError(
                f"networks.{name}: there is no class {kind} in diffusers, nor among {', '.join(OWN_CLASSES)}"
            )
        components[name] = construct(cls, arguments, f"networks.{name}")
    return construct(BDDiffPipeline, components | (sections.get("pipeline") or {}), "networks.pipeline")


def save_pipeline(pipeline: BDDiffPipeline, folder: Path) -> None:
    """Save under a temporary name, then rename: the folder is never half written. With LoRA it is an adapter folder."""
    from bd_diff.adapters import has_lora, save_adapter

    if has_lora(pipeline.unet):
        return save_adapter(pipeline, folder)
    save_network(pipeline, folder)


def save_network(network, folder: Path) -> None:
    """`network.save_pretrained(folder)`, under a temporary name first."""
    with replacing_folder(folder) as temporary:
        network.save_pretrained(temporary)


def load_pipeline(folder: str) -> BDDiffPipeline:
    """A saved pipeline or adapter, checked as `bd_diff.restore.load` checks it."""
    found = find_folder(folder)
    return BDDiffPipeline.from_pretrained(found) if is_adapter(found) else load_checked(BDDiffPipeline, found)
