"""Photographs for training that need not fit into memory: read when they are drawn, kept while there is room."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from tqdm import tqdm

from bd_diff.data.deep import DeepImage
from bd_diff.data.images import list_images, listed_images, read_image, to_tensor

GIB = 2**30
MEMORY = 2.0  # GiB of decoded photographs that the processes and workers of one machine keep together


class Photographs:
    """The photographs of a folder as uint8 `(3, H, W)`: image files, or shards that `datasets` saved (`save_to_disk`).

    A file is decoded when it is asked for, in whichever worker asks, and kept until those of one machine hold `memory`
    GiB together. The order is that of the names, or of the shards; which photograph sample i draws therefore never
    depends on what was read before. `exclude` is a text file of names to leave out.

    Raises ValueError for a folder without images; for an unreadable photograph, by its name, when it is drawn.
    """

    def __init__(self, folder: str | Path, exclude: str | Path | None = None, memory: float = MEMORY):
        self.folder, self.memory, self.held = Path(folder), memory, 0
        self.kept: dict[int, Tensor] = {}
        self.sources: Sequence[Any]  # paths of files, or rows of the table
        self.table = None
        if (self.folder / "dataset_info.json").exists():
            self.table = read_shards(self.folder)
            left_out = set(Path(exclude).read_text().split()) if exclude else set()
            self.sources = range(len(self.table))
            if left_out:
                names = [Path(image["path"] or "").name for image in self.table["image"]]
                self.sources = [row for row, name in enumerate(names) if name not in left_out]
        else:
            there = list_images(folder)
            excluded = set(listed_images(folder, exclude, there)) if exclude else set()
            self.sources = [path for path in there if path not in excluded]
        if not self.sources:
            raise ValueError(f"{folder} holds no photograph that {exclude} does not leave out")

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Tensor:
        if (kept := self.kept.get(index)) is not None:
            return kept
        photograph = (to_tensor(self.read(self.sources[index])) * 255).round().byte()
        if self.held + photograph.nbytes <= self.share:
            self.kept[index], self.held = photograph, self.held + photograph.nbytes
        return photograph

    def read(self, source: Any) -> Image.Image | DeepImage:
        """The photograph of a path, or of a row of the table."""
        if self.table is None:
            return read_image(source)
        image = self.table[source]["image"]
        try:
            return Image.open(io.BytesIO(image["bytes"])).convert("RGB")
        except OSError as error:
            raise ValueError(f"{self.folder}: row {source} ({image['path']}) cannot be read: {error}") from error

    @property
    def share(self) -> float:
        """Bytes that this process may keep: `memory`, divided evenly among all workers of this machine's processes."""
        worker = get_worker_info()
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) * (worker.num_workers if worker else 1)
        return self.memory * GIB / sharing

    def check_sizes(self, smallest: int) -> "Photographs":
        """Return `self` if a photograph has at least `smallest` pixels on both sides. Raises ValueError otherwise."""
        for index in tqdm(range(len(self)), desc=f"looking through {self.folder}", unit="image", delay=2, leave=False):
            if min(self[index].shape[1:]) >= smallest:
                return self
        raise ValueError(f"{self.folder} has no photograph of at least {smallest} pixels a side")


def read_shards(folder: Path):
    """A data set as `datasets` saved it, its column `image` undecoded. Raises ValueError without that column."""
    from datasets import Image as Images
    from datasets import load_from_disk

    table = load_from_disk(str(folder))
    if "image" not in table.column_names:
        raise ValueError(f"{folder} is a data set of {', '.join(table.column_names)}; it needs a column image")
    return table.cast_column("image", Images(decode=False))
