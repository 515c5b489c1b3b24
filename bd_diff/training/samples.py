"""Samples of BD-Diff's joint training, and how they become a batch."""

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from bd_diff.data.crops import PhotographSource, SharpCrops, dihedral, draw, draw_photograph, random_crop, seeded
from bd_diff.data.procedural import ProceduralImages


class JointSamples(Dataset):
    """Sample i of BD-Diff's training.

    `sharp` `(3, window + 32, window + 32)` float32 in [0, 1]; with `targets`, two crops of one blurry photograph as
    `target` `(2, 3, crop, crop)`. With a `bank` (`kernel_bank.read_bank`), every second sample carries an entry of it,
    turned and mirrored at random, as `bank`. With `estimates`, true kernels and the model's estimates of them, three of
    four samples carry an entry of those instead, as `estimates`: their kernel need not be estimated.
    """

    def __init__(
        self,
        sharp: SharpCrops | ProceduralImages,
        crop: int,
        targets: PhotographSource | None = None,
        bank: dict[str, Tensor] | None = None,
        estimates: dict[str, Tensor] | None = None,
    ):
        self.sharp, self.crop, self.targets, self.bank, self.estimates = sharp, crop, targets, bank, estimates

    def __getitem__(self, index: int) -> dict[str, Tensor | dict[str, Tensor]]:
        sample: dict[str, Tensor | dict[str, Tensor]] = {**self.sharp[index]}
        generator = seeded(self.sharp.seed, index, 2)
        if self.targets:
            photograph = draw_photograph(self.targets, self.crop, generator)
            crops = [random_crop(photograph, self.crop, generator, turn=0) for _ in range(2)]
            sample["target"] = dihedral(torch.stack(crops), draw(8, generator)) / 255
        if self.estimates and index % 4 > 0:
            sample["estimates"] = self.entry(self.estimates, generator)
        elif self.bank and index % (8 if self.estimates else 2) == 0:
            sample["bank"] = self.entry(self.bank, generator)
        return sample

    @staticmethod
    def entry(bank: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """One of a bank's samples, turned and mirrored at random."""
        index, turn = draw(len(bank["kernel"]), generator), draw(8, generator)
        return {name: dihedral(values[index], turn).float() for name, values in bank.items()}


def collate_joint(samples: list[dict]) -> dict[str, Tensor]:
    """One batch from samples of `JointSamples`: tensors stacked by name, `(B, ...)`.

    Samples with an item of the kernel bank come first, and their items are stacked as `bank_<name>`; those with an
    estimate come last, stacked as `estimates_<name>`.
    """
    samples = sorted(samples, key=lambda sample: ("estimates" in sample) - ("bank" in sample))
    batch = {name: [sample[name] for sample in samples] for name in samples[0].keys() - {"bank", "estimates"}}
    for kind in ("bank", "estimates"):
        entries = [sample[kind] for sample in samples if kind in sample]
        batch |= {f"{kind}_{name}": [entry[name] for entry in entries] for name in (entries[0] if entries else ())}
    return {name: torch.stack(values) for name, values in batch.items()}
