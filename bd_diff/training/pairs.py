"""Training pairs (blurry, sharp): read from a paired data set, or made by blurring sharp photographs in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.curriculum import level, severity
from bd_diff.blur.kernels import SIZE
from bd_diff.blur.synthesis import draw_kernels
from bd_diff.data.crops import PhotographSource, SharpCrops, draw, random_crop, seeded
from bd_diff.data.folders import Folder, read_item
from bd_diff.data.layouts import Item
from bd_diff.data.pairs import Pair, as_pair
from bd_diff.data.photographs import Photographs
from bd_diff.training.config import RunConfig

BORDER = SIZE - 1  # pixels by which a crop exceeds what the network sees, so that kernels stay inside it


@dataclass(frozen=True)
class BlurConfig:
    """The blur of training pairs.

    families: share of each family (`bd_diff.blur.synthesis.FAMILIES`); the share of `delta` is that of sharp-sharp
        pairs, 0.1 by default: the best of X-DECODE's ablation.
    noise: standard deviation of the noise, drawn per image from [0, noise], on the scale of [0, 1].
    curriculum: how the severity grows (`bd_diff.blur.curriculum.CURRICULA`); "none" is the whole range throughout.
    epochs: how many parts of equal length the run has; the curriculum's argument counts them.
    """

    families: dict[str, float] = field(default_factory=lambda: {"delta": 0.1, "box": 0.9})
    noise: float = 0.0
    curriculum: str = "none"
    epochs: int = 100


@dataclass(frozen=True)
class DataConfig:
    """Where photographs come from.

    dataset_dir, dataset_name: the folder is `dataset_dir/dataset_name`: sharp photographs, or pairs in any layout.
    validation: text file with the names of the photographs that are for validation only, or a folder of pairs, of which
        the split `validation_split` is taken; without it there is no validation.
    own_blur: pairs are trained on as they are; false takes their sharp images only, to be blurred while training.
    crop: pixels a side of what the network sees in training.
    validation_size: pixels a side of the centre that is validated on.
    levels: widths of the boxes that validation blurs with, X-DECODE's test; empty is the project's families.
    """

    dataset_dir: str
    dataset_name: str
    validation: str | None = None
    validation_split: str = "val"
    own_blur: bool = True
    crop: int = 256
    validation_size: int = 256
    levels: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        return Path(self.dataset_dir) / self.dataset_name


class Severities(Dataset):
    """Sample i of `samples`, with the curriculum's `severity` in [0, 1] after i of `total` samples."""

    def __init__(self, samples: Dataset, config: BlurConfig, total: int):
        level(config.curriculum, 0)  # a name that does not exist is an error now, not at the first sample
        self.samples, self.config, self.total = samples, config, total

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        epoch = min(self.config.epochs * index // self.total, self.config.epochs - 1)
        return {**self.samples[index], "severity": torch.tensor(severity(level(self.config.curriculum, epoch)))}


class PairedCrops(Dataset):
    """Sample i: the same square of a random pair, turned and mirrored alike, as `blurry` and `sharp` `(3, size, size)`.

    Values are float32 in [0, 1]. Pairs are read when they are needed: `run.workers` reads them ahead.
    """

    def __init__(self, items: Sequence[Item], size: int, seed: int = 0):
        self.items, self.size, self.seed = items, size, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = seeded(self.seed, index)
        pair = read_large(self.items[draw(len(self.items), generator)], self.size)
        blurry, sharp = random_crop(torch.cat([pair.blurry, pair.sharp]), self.size, generator).chunk(2)
        return {"blurry": blurry, "sharp": sharp}


class SharpSides:
    """The sharp images of pairs as uint8 `(3, H, W)`, read when they are needed."""

    def __init__(self, items: Sequence[Item], size: int):
        self.items, self.size = items, size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return (read_large(self.items[index], self.size).sharp * 255).round().byte()


def read_large(item: Item, size: int) -> Pair:
    """A pair, or a ValueError where a crop of `size` pixels does not fit into it."""
    pair = as_pair(read_item(item))
    if min(pair.sharp.shape[1:]) < size:
        raise ValueError(f"{pair.name} has less than {size} pixels a side; lower data.crop or leave it out")
    return pair


def training_samples(data: DataConfig, blur: BlurConfig, run: RunConfig, processes: int = 1) -> Dataset:
    """Pairs, where the folder holds pairs (in any layout); otherwise crops of sharp photographs, to be blurred.

    Crops carry the curriculum's severity and are `BORDER` pixels larger than what the network sees. The photographs
    named for validation are left out. Raises ValueError for a folder in no known layout, with too small photographs,
    or with pairs where a curriculum is asked for.
    """
    folder, size = Folder(data.folder, split="train"), data.crop + BORDER
    if folder.kind == "paired" and data.own_blur:
        if blur.curriculum != "none":
            raise ValueError(f"{data.folder} holds pairs, whose blur follows no curriculum; set data.own_blur=false")
        return PairedCrops(folder.items, data.crop, run.seed)
    photographs: PhotographSource
    if folder.kind == "paired":
        photographs = SharpSides(folder.items, size)
    else:
        held_out = data.validation if data.validation and not Path(data.validation).is_dir() else None
        photographs = Photographs(data.folder, held_out).check_sizes(size)
    total = run.steps * run.batch_size * run.gradient_accumulation * processes
    return Severities(SharpCrops(photographs, size, run.seed), blur, total)


def make_pair(batch: Mapping[str, Tensor], config: BlurConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blurry and sharp images, both `(B, 3, H, W)` in [0, 1].

    A batch with `blurry` is such a pair already. Otherwise `sharp` is blurred by kernels drawn at the largest severity
    in the batch (1 without any), and the border of 16 pixels, where kernels reach beyond the image, is cut off.
    """
    sharp = batch["sharp"]
    if "blurry" in batch:
        return batch["blurry"], sharp
    hardest = float(batch["severity"].max()) if "severity" in batch else 1.0
    kernels, _ = draw_kernels(len(sharp), generator, config.families, hardest, device=sharp.device)
    blurry = RandomCamera(config.noise).capture(sharp, kernels, generator)
    inside = slice(BORDER // 2, -(BORDER // 2))
    return blurry, sharp[..., inside, inside]
