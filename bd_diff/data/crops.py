"""Training samples: photographs cut into crops that are a pure function of (seed, index).

Because sample i never depends on what was drawn before it, a training resumed at any step sees the same batches.
"""

from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

MOST_DRAWS = 1000  # photographs in a row that are too small


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
    """Images or kernels `(..., n, n)` turned and mirrored; `which`, 0 to 7, is the symmetry of the square."""
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
