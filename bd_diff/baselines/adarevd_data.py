"""AdaRevD's training data, and the part held out for validation and early exits; the test set is not used."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bd_diff.baselines.validation import Cases, validation_cases
from bd_diff.data.crops import SharpCrops, dihedral, draw, seeded
from bd_diff.data.folders import read_item
from bd_diff.data.layouts import LAYOUTS, Item, recognise
from bd_diff.data.pairs import as_pair
from bd_diff.data.photographs import Photographs
from bd_diff.evaluation.evaluate import centre_window
from bd_diff.training.config import RunConfig
from bd_diff.training.pairs import BORDER, BlurConfig, DataConfig, Severities, make_pair

SHOWN_PAIRS = 16  # held-out pairs to validate on


def held_out_split(items: Sequence, groups: Sequence, every: int) -> tuple[list, list]:
    """Split items into those to train on, and those held out: every `every`-th group from the first, or none if 0.

    `groups` names each item's group (a video's frames stay together); if there is only one group, items are split one
    by one. Raises ValueError if nothing remains to train on.
    """
    if len(set(groups)) == 1:
        groups = range(len(items))
    names = [*dict.fromkeys(groups)]
    kept = set(names[::every]) if every else set()
    train = [item for item, group in zip(items, groups, strict=True) if group not in kept]
    if not train:
        raise ValueError(f"held_out={every} leaves none of {len(names)} photographs or scenes to train on; raise it")
    return train, [item for item, group in zip(items, groups, strict=True) if group in kept]


class PairCrops(Dataset):
    """Sample i: the same crop, turned and mirrored at random, of both sides of a pair: `blurry` and `sharp`."""

    def __init__(self, items: list[Item], size: int, seed: int = 0):
        self.items, self.size, self.seed = items, size, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = seeded(self.seed, index)
        sides = as_pair(read_item(self.items[draw(len(self.items), generator)]))
        height, width = sides.sharp.shape[1:]
        if min(height, width) < self.size:
            raise ValueError(f"{sides.name} is {width}x{height}; lower data.crop from {self.size}")
        top, left = draw(height - self.size + 1, generator), draw(width - self.size + 1, generator)
        pair = torch.stack([sides.blurry, sides.sharp])[..., top : top + self.size, left : left + self.size]
        blurry, sharp = dihedral(pair, draw(8, generator)).contiguous()
        return {"blurry": blurry, "sharp": sharp}


def paired_items(data: DataConfig) -> list[Item] | None:
    """The training pairs of a folder in any paired layout (GoPro, ...), or None for a folder of sharp photographs."""
    layout, items = recognise(data.folder, "train")
    kind = LAYOUTS[layout].kind
    if kind == "unpaired":
        raise ValueError(f"{data.folder} is in the layout {layout}: its blurry images have no sharp twins to train on")
    if kind == "paired" and data.validation is not None:
        raise ValueError("data.validation names sharp photographs; of pairs, every held_out-th scene is validated on")
    return items if kind == "paired" else None


def scenes(items: Sequence[Item]) -> list[str]:
    """The folder of each pair. Frames of one scene are alike, so they stay on one side of a split."""
    return [item.name.rpartition("/")[0] for item in items]


def crops(data: DataConfig, every: int, seed: int, held_out: bool = False) -> Dataset:
    """Crops to train on or, with `held_out`, held-out ones.

    They are crops of pairs, or of sharp photographs, then `BORDER` larger so that they can be blurred.
    """
    items = paired_items(data)
    if items:
        chosen = part_of(items, scenes(items), every, held_out)
        return PairCrops(chosen, data.crop, seed)
    size = data.crop + BORDER
    photographs = Photographs(data.folder, data.validation)
    photographs.sources = part_of(photographs.sources, range(len(photographs)), every, held_out)
    return SharpCrops(photographs.check_sizes(size), size, seed)


def part_of(items: Sequence, groups: Sequence, every: int, held_out: bool) -> list:
    """One of the two parts of `held_out_split`, which must not be empty."""
    chosen = held_out_split(items, groups, every)[held_out]
    if not chosen:
        raise ValueError("held_out is 0, so nothing is kept from training; give it, and train the stages again")
    return chosen


def training_crops(data: DataConfig, every: int, blur: BlurConfig, run: RunConfig, processes: int = 1) -> Dataset:
    """`crops` for training, with the severity of the blur's curriculum."""
    total = run.steps * run.batch_size * run.gradient_accumulation * processes
    return Severities(crops(data, every, run.seed), blur, total)


def held_out_pairs(
    data: DataConfig, every: int, blur: BlurConfig, count: int, seed: int, device: str | torch.device = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` held-out pairs (blurry, sharp), `(1, 3, crop, crop)` each."""
    samples = crops(data, every, seed, held_out=True)
    for index in range(count):
        batch = {name: tensor[None].to(device) for name, tensor in samples[index].items()}
        yield make_pair(batch, blur, seeded(seed, index, 1))


def cases(data: DataConfig, every: int) -> Cases:
    """The validation cases: the centres of held-out pairs, or the photographs of `data.validation`, blurred."""
    items = paired_items(data)
    if items is None:
        return validation_cases(data)
    kept = held_out_split(items, scenes(items), every)[1]
    samples = [read_item(item) for item in kept[:: -(-len(kept) // SHOWN_PAIRS) or 1]]
    sides = ([getattr(sample, side) for sample in samples] for side in ("blurry", "sharp"))
    blurry, sharp = (torch.stack([centre_window(i, data.validation_size, 0) for i in side]) for side in sides)
    return {"held-out": (blurry, sharp)}
