"""Photographs for training that need not fit into memory: read when they are drawn, kept while there is room."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from bd_diff.data.bombs import check_claim
from bd_diff.data.deep import DeepImage
from bd_diff.data.failures import in_one_line
from bd_diff.data.images import known_formats, list_images, read_image, to_tensor, upright
from bd_diff.data.progress import progress

GIB = 2**30
MEMORY = 2.0  # GiB of decoded photographs that the processes and workers of one machine keep together


class Photographs:
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
        self.folder, self.memory, self.held = Path(folder), memory, 0  # bytes of those kept
        self.kept: dict[int, Tensor] = {}
        self.table = read_shards(self.folder) if holds_shards(self.folder) else None
        named = named_sources(self.folder, self.table)
        present = {name for name, _ in named}
        for listed in (exclude, only):
            if absent := [name for name in names_in(listed) if name not in present]:
                raise ValueError(f"{listed} lists {absent[0]}, which is not in {folder}")
        if only:
            place = {name: index for index, name in enumerate(names_in(only))}
            named = sorted((one for one in named if one[0] in place), key=lambda one: place[one[0]])
        left_out = set(names_in(exclude))
        kept = [one for one in named if one[0] not in left_out]
        self.names, self.sources = [name for name, _ in kept], [source for _, source in kept]
        if not self.sources:
            left = f" that {exclude} does not leave out" if exclude else ""
            raise ValueError(f"{folder} holds no photograph{left}")

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

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
        return image_of(self.table[source]["image"], f"{self.folder}: row {source}")

    @property
    def share(self) -> float:
        """Bytes that this process may keep: `memory`, divided evenly among all workers of this machine's processes."""
        worker = get_worker_info()
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) * (worker.num_workers if worker else 1)
        return self.memory * GIB / sharing

    def check_sizes(self, smallest: int) -> "Photographs":
        """Return `self` if a photograph has at least `smallest` pixels on both sides. Raises ValueError otherwise."""
        for index in progress(range(len(self)), desc=f"looking through {self.folder}", brief=True):
            if min(self[index].shape[1:]) >= smallest:
                return self
        raise ValueError(f"{self.folder} has no photograph of at least {smallest} pixels a side")


class Joined:
    """Photographs, and others after them."""

    def __init__(self, first: Photographs, others: list[Tensor]):
        self.first, self.others = first, others

    def __len__(self) -> int:
        return len(self.first) + len(self.others)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        return self.first[index] if index < len(self.first) else self.others[index - len(self.first)]


def holds_shards(folder: Path) -> bool:
    """Whether a folder is a data set that `datasets` saved (`save_to_disk`)."""
    return (folder / "dataset_info.json").exists()


def read_shards(folder: Path):
    """A data set as `datasets` saved it, its column `image` undecoded. Raises ValueError without that column."""
    from datasets import Image as Images

    table = open_shards(folder)
    if "image" not in table.column_names:
        raise ValueError(f"{folder} is a data set of {', '.join(table.column_names)}; it needs a column image")
    return table.cast_column("image", Images(decode=False))


def open_shards(folder: Path):
    """The table of a data set that `datasets` saved. Raises ValueError naming the folder where it is damaged."""
    from datasets import load_from_disk

    try:
        return load_from_disk(str(folder))
    except Exception as error:  # a file that is missing, cut, or of another version: each has its own class there
        raise ValueError(f"{folder} cannot be read as shards of a data set: {in_one_line(error)}") from error


def image_of(image: dict, name: str) -> Image.Image | DeepImage:
    """The photograph of an undecoded row, upright. Raises ValueError naming it where it cannot be read."""
    try:
        if image["bytes"] is None:
            return read_image(image["path"])
        with Image.open(io.BytesIO(image["bytes"]), formats=known_formats()) as file:
            check_claim(file, len(image["bytes"]))
            return upright(file)
    except Exception as error:  # decoders raise anything
        raise ValueError(f"{name} ({image['path']}) cannot be read: {in_one_line(error)}") from error


def named_sources(folder: Path, table) -> list[tuple[str, Any]]:
    """Name and path of every file of a folder; or name and number of every row of a table, whose files are not read for
    that. Rows of different folders may share a name.
    """
    if table is None:
        return [(path.name, path) for path in list_images(folder)]
    from pyarrow.compute import struct_field

    paths = struct_field(table.data["image"], "path").to_pylist()
    return [(Path(path).name if path else str(row), row) for row, path in enumerate(paths)]


def names_in(listed: str | Path | None) -> list[str]:
    """The words of a text file; none without one."""
    return Path(listed).read_text().split() if listed else []
