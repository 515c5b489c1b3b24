"""Training samples: photographs cut into crops that are a pure function of (seed, index).

Because sample i never depends on what was drawn before it, a training resumed at any step sees the same batches.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from bd_diff.data.images import list_images, listed_images, read_image, to_tensor
from bd_diff.data.progress import progress

MOST_DRAWS = 1000  # photographs in a row that are too small


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
    shown = progress(paths, desc=f"reading {folder}", brief=True)
    photographs = [(to_tensor(read_image(path)) * 255).round().byte() for path in shown]
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


class PhotographSource(Protocol):
    """Photographs `(3, H, W)` by number: a list of them, or a reader."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


def draw_photograph(photographs: PhotographSource, smallest: int, generator: Generator) -> Tensor:
    """A random photograph of at least `smallest` pixels a side; those that are smaller are passed over."""
    for _ in range(MOST_DRAWS):
        photograph = photographs[draw(len(photographs), generator)]
        if min(photograph.shape[1:]) >= smallest:
            return photograph
    raise ValueError(f"{MOST_DRAWS} photographs in a row have less than {smallest} pixels a side; lower the crop")


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

    def __init__(self, photographs: PhotographSource, size: int, seed: int = 0):
        self.photographs, self.size, self.seed = photographs, size, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = seeded(self.seed, index)
        photograph = draw_photograph(self.photographs, self.size, generator)
        return {"sharp": random_crop(photograph, self.size, generator) / 255}
