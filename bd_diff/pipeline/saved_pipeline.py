"""Where a pipeline comes from and goes to: the model that ships, a folder, a hub id, an adapter on its base."""

from pathlib import Path
from typing import TypeVar

from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download
from torch import nn

from bd_diff.assets import asset
from bd_diff.models.model_folder import HARMLESS, align, is_adapter
from bd_diff.stable_diffusion.adapters import has_lora, load_adapter

Pipeline = TypeVar("Pipeline", bound="SavedPipeline")


class SavedPipeline(DiffusionPipeline):
    """A pipeline of diffusers that also loads adapters, and nothing pickled."""

    @classmethod
    def from_pretrained(cls: type[Pipeline], folder_or_id: str | Path | None = None, **settings) -> Pipeline:
        """Load a pipeline or an adapter from a folder or a hub id; without one, the model that ships.

        settings: those of diffusers' `from_pretrained`; for an adapter, which is put onto its base, also those of
        `load_adapter`. Raises ValueError for an adapter that is damaged or whose base is not found.
        """
        folder = asset("bd-diff-tiny") if folder_or_id is None else Path(folder_or_id)
        if not folder.is_dir():
            folder = Path(cls.download(str(folder_or_id), **settings))
        if not is_adapter(folder):
            pipeline = super().from_pretrained(folder, **settings | {"use_safetensors": True})  # and nothing pickled
            for part in pipeline.components.values():
                if isinstance(part, nn.Module):
                    align(part)
            return pipeline
        return load_adapter(cls, folder, **settings)

    def save_pretrained(self, save_directory, **settings) -> None:
        """Save all components, as diffusers does.

        Raises ValueError where the UNet carries LoRA: `stable_diffusion.adapters.save_adapter` saves that.
        """
        if has_lora(self.unet):
            raise ValueError(
                "the UNet carries LoRA; save it by stable_diffusion.adapters.save_adapter, or merge_lora first"
            )
        super().save_pretrained(save_directory, **settings)

    @classmethod
    def download(cls, pretrained_model_name: str, **settings) -> str:
        """Download the repository of a hub id; returns its folder. Only weights, JSON and text are downloaded.

        diffusers' own `download` would look for the source code of our component classes in that repository.
        """
        names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
        given = {name: settings[name] for name in names if settings.get(name) is not None}
        return snapshot_download(pretrained_model_name, allow_patterns=HARMLESS, **given)
