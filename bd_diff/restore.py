"""One way to use every system of the project: `load(folder)` gives a callable, blurry images in, sharp images out."""

import importlib
import logging
import warnings
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn

from bd_diff.assets import asset
from bd_diff.data.failures import out_of_memory
from bd_diff.data.images import crop_to, pad_to_multiple
from bd_diff.data.inputs import hidden_in, open_images, to_array, to_batch, to_images
from bd_diff.data.pixels import is_finite
from bd_diff.data.tiles import SMALLEST_TILE, Grid
from bd_diff.models.model_folder import find_folder, is_adapter, load_checked, read_json

logger = logging.getLogger(__name__)

NETWORKS = {  # config.json's _class_name: where the class is, and the lowest value of its pixels
    "UResNet": ("bd_diff.baselines.uresnet", 0),
    "NAFNet": ("bd_diff.baselines.nafnet", 0),
    "AdaRevD": ("bd_diff.baselines.adarevd", 0),
    "Generator": ("bd_diff.baselines.xdecode", -1),
}


class Restorer(ABC):
    """A system behind one call: blurry photographs in, sharp ones of the same kind out. `name` is the system's."""

    name: str

    def __call__(self, images, **settings):
        """Restore a photograph, or several.

        A batch `(B, 3, H, W)` or a photograph `(3, H, W)` as a tensor in [0, 1], arrays `(H, W, 3)`, `(B, H, W, 3)` or
        `(H, W)`, in [0, 1] or uint8, give the same again; paths and PIL images give PIL images of their mode, with ICC
        profile and EXIF; a list gives a list. Raises ValueError for what cannot be read or restored.
        """
        if isinstance(images, Tensor) and images.ndim != 3:
            return self.restore(images, **settings)
        if isinstance(images, list | tuple):
            return [self(one, **settings) for one in images]
        opened = open_images(images)
        batch = to_batch(opened)
        if isinstance(self, PipelineRestorer):
            settings = {"hidden": hidden_in(opened)} | settings
        restored = self.restore(batch, **settings)
        if isinstance(images, np.ndarray):
            return to_array(restored, images)
        return restored[0] if isinstance(images, Tensor) else to_images(restored, opened)[0]

    def __repr__(self) -> str:
        parameter = next(self.module.parameters())
        millions = sum(one.numel() for one in self.module.parameters()) / 1e6
        kind = str(parameter.dtype).removeprefix("torch.")
        return f"<{self.name}, {millions:.2f} million parameters, {kind} on {parameter.device}>"

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """All networks of the system."""

    @abstractmethod
    def restore(self, images: Tensor, **settings) -> Tensor:
        """Restore a batch `(B, 3, H, W)` in [0, 1]; returns the same shape and range."""

    @abstractmethod
    def check_settings(self, **settings) -> None:
        """Raise ValueError for settings of a call that no photograph can be restored with."""


class PipelineRestorer(Restorer):
    """BD-Diff: settings of a call are those of `BDDiffPipeline.__call__`. The pipeline itself is `.pipeline`."""

    name = "BD-Diff"

    def __init__(self, pipeline):
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)  # progress is shown by images, not by steps

    @property
    def module(self) -> nn.Module:
        return nn.ModuleList(part for part in self.pipeline.components.values() if isinstance(part, nn.Module))

    def restore(self, images: Tensor, **settings) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1], sides from 8, to the same."""
        return self.run(images, **settings).images

    def check_settings(self, generator=None, fast: bool = False, **settings) -> None:
        steps, most = settings.get("num_inference_steps") or 1, self.pipeline.config.most_steps
        if 0 < most < steps:
            raise ValueError(f"{steps} steps: this model's results get worse with more than {most}")
        self.pipeline.check_settings(**settings)

    def run(self, images: Tensor, **settings):
        """As `restore`, but returns the `BDDiffPipelineOutput`, which also has the kernels that were found.

        Where memory runs out, it warns and tries again with smaller tiles, down to `SMALLEST_TILE`.
        """
        images = check_images(images)
        generators = settings.get("generator") or []
        generators = generators if isinstance(generators, list) else [generators]
        states = [generator.get_state() for generator in generators]
        while True:
            try:
                output = self.pipeline(images, output_type="pt", **settings)
                check_result(output.images, self.name)
                return output
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                settings["tile"] = self.smaller_tile(settings.get("tile"), max(images.shape[-2:]))
                warnings.warn(f"out of memory; trying again with tiles of {settings['tile']} pixels", stacklevel=2)
                for generator, state in zip(generators, states, strict=True):
                    generator.set_state(state)

    def smaller_tile(self, tile: int | None, longest: int) -> int:
        """Half of `tile`, which did not fit into memory, rounded down to a multiple that the pipeline takes.

        longest: the longer side of the images in pixels, a bound on the tile. Raises `torch.OutOfMemoryError` when the
        tile was the smallest already.
        """
        tile = min(self.pipeline.config.tile if tile is None else tile or longest, longest)
        if tile <= SMALLEST_TILE:
            raise torch.OutOfMemoryError(f"out of memory even with tiles of {tile} pixels; use a smaller batch")
        return max(SMALLEST_TILE, tile // 2 // self.pipeline.multiple * self.pipeline.multiple)


class NetworkRestorer(Restorer):
    """A network that regresses the sharp image; it has no settings. The network itself is `.network`.

    lowest: its pixels lie in [lowest, 1], lowest 0 or -1.
    """

    def __init__(self, network: nn.Module, lowest: float = 0):
        self.network, self.lowest, self.name = network, lowest, type(network).__name__

    @property
    def module(self) -> nn.Module:
        return self.network

    @torch.no_grad()
    def restore(self, images: Tensor, **settings) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] of any size to the same."""
        self.check_settings(**settings)
        images = check_images(images)
        parameter = next(self.network.parameters())
        padded = pad_to_multiple(images.to(parameter), getattr(self.network, "multiple", 1))
        span = 1 - self.lowest
        restored = (self.run(padded * span + self.lowest) - self.lowest) / span
        check_result(restored, self.name)
        return crop_to(restored, *images.shape[-2:]).float().clamp(0, 1)

    def check_settings(self, **settings) -> None:
        if settings:
            raise ValueError(f"{self.name} has no setting {', '.join(settings)}; only BD-Diff has")

    def run(self, pixels: Tensor) -> Tensor:
        """The network on pixels of a size it takes; large images in the overlapping tiles that it asks for."""
        side, overlap = getattr(self.network, "tiling", (max(pixels.shape[-2:]), 0))
        height, width = pixels.shape[-2:]
        grid = Grid(height, width, side, overlap)
        if len(grid) == 1:
            return self.network(pixels)
        restored = torch.zeros_like(pixels)
        for image, canvas in zip(pixels, restored, strict=True):
            for tile in range(len(grid)):
                grid.paste(canvas, self.network(grid.cut(image, [tile])), [tile])
        return restored


System = PipelineRestorer | NetworkRestorer


def load(
    folder_or_id: str | Path | None = None, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> System:
    """The system saved in a folder (`save_pretrained` of any of the four), or under an id of the Hugging Face hub; by
    default the BD-Diff that ships.

    device: the GPU where there is one, by default. dtype: float32 by default.
    A missing or damaged file and NaN in the weights are a `ValueError` naming file and tensor.
    """
    diffusers_logging.disable_progress_bar()  # no progress bar for seven small files
    folder = find_folder(asset("bd-diff-tiny") if folder_or_id is None else folder_or_id)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or torch.float32
    logger.info("loading %s to %s as %s", folder, device, dtype)
    if is_adapter(folder) or (folder / "model_index.json").exists():
        return PipelineRestorer(load_pipeline(folder, dtype).to(device))
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} is not a model folder: it has neither a model_index.json nor a config.json")
    name = read_json(folder / "config.json").get("_class_name")
    if name not in NETWORKS:
        raise ValueError(f"{folder / 'config.json'} is of class {name}; expected BDDiffPipeline, {', '.join(NETWORKS)}")
    module, lowest = NETWORKS[name]
    network = load_checked(getattr(importlib.import_module(module), name), folder, dtype=dtype)
    return NetworkRestorer(network.to(device).eval(), lowest)


def load_pipeline(folder: Path, dtype: torch.dtype):
    """The `BDDiffPipeline` of a folder, every file and tensor of it checked."""
    from bd_diff.pipeline import BDDiffPipeline

    if is_adapter(folder):
        return BDDiffPipeline.from_pretrained(folder, dtype=dtype)  # `load_adapter` checks its files and tensors
    name = read_json(folder / "model_index.json").get("_class_name")
    if name != "BDDiffPipeline":
        raise ValueError(f"{folder / 'model_index.json'} is of class {name}, not BDDiffPipeline")
    small = not list(folder.glob("*/*_model.safetensors")) and list(folder.glob("*/*.fp16.safetensors"))
    return load_checked(BDDiffPipeline, folder, dtype=dtype, variant="fp16" if small else None)


def call_settings(restorer: Restorer, seed: int, images: int = 1, **given) -> dict:
    """Keyword arguments for one call of `restorer`: what was given on the command line, and the seed where it counts.

    A new generator for every image, so that its result does not depend on those before or beside it.
    """
    settings = {name: value for name, value in given.items() if value is not None and value is not False}
    if not isinstance(restorer, PipelineRestorer):
        settings.pop("hidden", None)
    else:
        settings["generator"] = [torch.Generator().manual_seed(seed) for _ in range(images)]
    return settings


def require_pipeline(restorer: Restorer, model: str) -> PipelineRestorer:
    """The restorer itself where it is BD-Diff; another system, loaded from `model`, is a `ValueError`."""
    if not isinstance(restorer, PipelineRestorer):
        raise ValueError(f"{model} holds {restorer.name}; only BD-Diff sees kernels and moves blur")
    return restorer


def check_result(images: Tensor, name: str) -> None:
    """Raise ValueError for a result that is not finite: it would be written as black without a word."""
    if not is_finite(images):
        raise ValueError(f"{name} made NaN or infinite values of it; its weights, or half precision, do not fit")


def check_images(images: Tensor) -> Tensor:
    """The images, clamped to [0, 1]; they are copied only where clamping changes something. `ValueError` unless they
    are finite, `(B, 3, H, W)` and in [0, 1] but for rounding.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        what = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be a floating point tensor (B, 3, H, W) in [0, 1], not {what}")
    low, high = images.aminmax()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"images must lie in [0, 1]; these lie in [{low:.3g}, {high:.3g}]")
    return images if low >= 0 and high <= 1 else images.clamp(0, 1)
