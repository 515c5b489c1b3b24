"""Pipelines to train: built from a configuration or over a Stable Diffusion; saved and loaded whole or as adapters."""

from pathlib import Path
from typing import Any

from bd_diff.data.writing import replacing_folder
from bd_diff.models.components import build_components, construct
from bd_diff.models.model_folder import find_folder, is_adapter, load_checked
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.stable_diffusion.adapters import has_lora, save_adapter
from bd_diff.stable_diffusion.base_model import Base, components_from_base


def build_pipeline(sections: dict[str, Any]) -> BDDiffPipeline:
    """An untrained pipeline from the sections of a configuration, see `bd_diff.models.components.build_components`."""
    return construct(BDDiffPipeline, build_components(sections), "networks.pipeline")


def pipeline_from_base(base: Base, sections: dict[str, Any] | None = None) -> BDDiffPipeline:
    """An untrained pipeline over a Stable Diffusion, see `bd_diff.stable_diffusion.base_model.components_from_base`."""
    return construct(BDDiffPipeline, components_from_base(base, sections), "networks.pipeline")


def save_pipeline(pipeline: BDDiffPipeline, folder: Path) -> None:
    """Save a pipeline, with LoRA as an adapter; the folder is complete or not there."""
    if has_lora(pipeline.unet):
        return save_adapter(pipeline, folder)
    save_network(pipeline, folder)


def save_network(network, folder: Path) -> None:
    """Save a network; the folder is complete or not there."""
    with replacing_folder(folder) as temporary:
        network.save_pretrained(temporary)


def load_pipeline(folder: str) -> BDDiffPipeline:
    """A saved pipeline or adapter, checked as `bd_diff.restore.load` checks it."""
    found = find_folder(folder)
    return BDDiffPipeline.from_pretrained(found) if is_adapter(found) else load_checked(BDDiffPipeline, found)
