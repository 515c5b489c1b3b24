"""Photographs for training that need not fit into memory: read when they are drawn, kept while there is room."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from tqdm import tqdm

from bd_diff.data.images import list_images, read_image, to_tensor

GIB = 2**30
MEMORY = 2.0  # GiB of decoded photographs that the processes and workers of one machine keep together


class Photographs(Sequence):
    """The photographs of a folder as uint8 `(3, H, W)`: image files, or shards that `datasets` saved (`save_to_disk`).

    A file is decoded when it is asked for, in whichever worker asks, and kept until those of one machine hold `memory`
    GiB together. The order is that of the names, or of the shards; which photograph sample i draws therefore never
    depends on what was read before. `exclude` is a text file of names to leave out, `only` one of those to take, in
    order.

    Raises ValueError for a folder without images and a listed name not there; for an unreadable photograph, by name,
    when it is drawn.
    """

    def __init__(
        self,
        folder: str | Path,
        exclude: str | Path | None = None,
        only: str | Path | None = None,
        memory: float = MEMORY,
    ):
        self.folder, self.memory = Path(folder), memory
        self.kept: dict[int, Tensor] = {}
        self.held = 0  # bytes of those
        self.table = read_shards(self.folder) if (self.folder / "dataset_info.json").exists() else None
        there = sources_of(self.folder, self.table)
        for names in (exclude, only):
            if absent := [name for name in names_in(names) if name not in there]:
                raise ValueError(f"{names} lists {absent[0]}, which is not in {folder}")
        left_out = set(names_in(exclude))
        chosen = names_in(only) if only else there
        self.sources = [there[name] for name in chosen if name not in left_out]
        if not self.sources:
            raise ValueError(f"{folder} holds no photograph that {exclude} does not leave out")

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Tensor:
        if (kept := self.kept.get(index)) is not None:
            return kept
        source = self.sources[index]
        image = read_image(source) if isinstance(source, Path) else self.read_row(source)
        photograph = (to_tensor(image) * 255).round().byte()
        if self.held + photograph.nbytes <= self.share:
            self.kept[index], self.held = photograph, self.held + photograph.nbytes
        return photograph

    def read_row(self, row: int) -> Image.Image:
        """A row of the shards, through the file's bytes."""
        assert self.table is not None
        image = self.table[row]["image"]
        try:
            return Image.open(io.BytesIO(image["bytes"])).convert("RGB")
        except OSError as error:
            raise ValueError(f"{self.folder}: row {row} ({image['path']}) cannot be read: {error}") from error

    @property
    def share(self) -> float:
        """Bytes that this process may keep: all workers of all processes on this machine have the same."""
        worker = get_worker_info()
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) * (worker.num_workers if worker else 1)
        return self.memory * GIB / sharing

    def check_sizes(self, smallest: int) -> "Photographs":
        """Itself, once one photograph of at least `smallest` pixels a side was found; ValueError where none is."""
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


def sources_of(folder: Path, table) -> dict[str, Path | int]:
    """By name: every file of a folder, or every row of a table, whose files are not read for that."""
    if table is None:
        return {path.name: path for path in list_images(folder)}
    from pyarrow.compute import struct_field

    paths = struct_field(table.data["image"], "path").to_pylist()
    return {Path(path).name if path else str(row): row for row, path in enumerate(paths)}


def names_in(listed: str | Path | None) -> list[str]:
    """The words of a text file; none without one."""
    return Path(listed).read_text().split() if listed else []
