"""Training samples: photographs held in memory, cut into crops that are a pure function of (seed, index).

Because sample i never depends on what was drawn before it, a training resumed at any step sees the same batches.
"""

from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from bd_diff.data.images import list_images, listed_images, read_image, to_tensor


def read_photographs(
    folder: str | Path,
    exclude: str | Path | None = None,
    only: str | Path | None = None,
    skip_smaller_than: int = 0,
) -> list[Tensor]:
    """All photographs of a folder as uint8 `(3, H, W)`, sorted by name, without those named in the text file `exclude`
    or, with `only`, those named there and in its order.

    Raises ValueError for a folder without images, an unreadable photograph (by name), a listed name not there.
    """
    left_out = set(listed_images(folder, exclude)) if exclude else set()
    paths = [path for path in (listed_images(folder, only) if only else list_images(folder)) if path not in left_out]
    photographs = [(to_tensor(read_image(path)) * 255).round().byte() for path in paths]
    large = [photograph for photograph in photographs if min(photograph.shape[1:]) >= skip_smaller_than]
    if not large:
        raise ValueError(f"{folder} has no photograph of at least {skip_smaller_than} pixels a side")
    return large


def seeded(*numbers: int) -> Generator:
    """A CPU generator whose stream is fixed by all the numbers together."""
    seed = 0
    for number in numbers:
        seed = (seed * 0x5851F42D4C957F2D + number + 0x14057B7EF767814F) % 2**63
    generator = Generator().manual_seed(seed)
    torch.rand(4, generator=generator)
    return generator


def draw(high: int, generator: Generator) -> int:
    """A whole number from 0 up to, not including, `high`."""
    return int(torch.randint(high, (), generator=generator))


def random_crop(photograph: Tensor, size: int, generator: Generator, turn: int | None = None) -> Tensor:
    """A square crop `(3, size, size)`, turned and mirrored at random unless `turn` says how."""
    height, width = photograph.shape[1:]
    top, left = draw(height - size + 1, generator), draw(width - size + 1, generator)
    return dihedral(photograph[:, top : top + size, left : left + size], draw(8, generator) if turn is None else turn)


def dihedral(images: Tensor, which: int) -> Tensor:
    """One of the 8 symmetries of the square, on the last two dimensions; kernels turn with their images."""
    if which & 1:
        images = images.flip(-1)
    if which & 2:
        images = images.flip(-2)
    return images.transpose(-1, -2) if which & 4 else images


class SharpCrops(Dataset):
    """Sample i: `{"sharp": (3, size, size)}` float32 in [0, 1], from a random photograph."""

    def __init__(self, photographs: list[Tensor], size: int, seed: int = 0):
        self.photographs, self.size, self.seed = photographs, size, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = seeded(self.seed, index)
        photograph = self.photographs[draw(len(self.photographs), generator)]
        return {"sharp": random_crop(photograph, self.size, generator) / 255}


class JointSamples(Dataset):
    """Sample i of BD-Diff's training.

    `sharp` `(3, window + 32, window + 32)` float32 in [0, 1]; with `targets`, two crops of one blurry photograph as
    `target` `(2, 3, crop, crop)`. With a `bank` (`bd_diff.data.kernel_bank.read_bank`), every second sample carries an
    entry of it, turned and mirrored at random, as `bank`. With `estimates`, kernels and what the model took them for,
    a share of the samples, by default three of four, carry an entry of those instead, as `known`: their blur need not
    be read.
    """

    def __init__(
        self,
        sharp: SharpCrops,
        crop: int,
        targets: list[Tensor] | None = None,
        bank: dict[str, Tensor] | None = None,
        estimates: dict[str, Tensor] | None = None,
        estimates_share: float = 0.75,
    ):
        self.sharp, self.crop, self.targets, self.bank, self.estimates = sharp, crop, targets, bank, estimates
        self.estimates_share = estimates_share

    def __getitem__(self, index: int) -> dict[str, Tensor | dict[str, Tensor]]:
        sample = self.sharp[index]
        generator = seeded(self.sharp.seed, index, 2)
        if self.targets:
            photograph = self.targets[draw(len(self.targets), generator)]
            crops = [random_crop(photograph, self.crop, generator, turn=0) for _ in range(2)]
            sample["target"] = dihedral(torch.stack(crops), draw(8, generator)) / 255
        if self.estimates and (index + 1) * self.estimates_share // 1 > index * self.estimates_share // 1:
            sample["known"] = self.entry(self.estimates, generator)
        elif self.bank and index % (8 if self.estimates else 2) == 0:
            sample["bank"] = self.entry(self.bank, generator)
        return sample

    @staticmethod
    def entry(bank: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        """One of a bank's samples, turned and mirrored at random."""
        index, turn = draw(len(bank["kernel"]), generator), draw(8, generator)
        return {name: dihedral(values[index], turn).float() for name, values in bank.items()}


def collate_joint(samples: list[dict]) -> dict[str, Tensor]:
    """Samples with an entry of the bank first, as `bank_<name>`, those with known estimates last, as `known_<name>`."""
    samples = sorted(samples, key=lambda sample: ("known" in sample) - ("bank" in sample))
    batch = {name: [sample[name] for sample in samples] for name in samples[0].keys() - {"bank", "known"}}
    for kind in ("bank", "known"):
        entries = [sample[kind] for sample in samples if kind in sample]
        batch |= {f"{kind}_{name}": [entry[name] for entry in entries] for name in (entries[0] if entries else ())}
    return {name: torch.stack(values) for name, values in batch.items()}
