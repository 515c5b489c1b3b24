"""Deblurring data of any layout, or from the Hugging Face hub, as one kind of sample."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from bd_diff.data.images import read_image, to_tensor
from bd_diff.data.layouts import BLURRY, LAYOUTS, SHARP, Item, recognise
from bd_diff.data.photographs import holds_shards, image_of, open_shards

BLURRY_COLUMNS = (*BLURRY, "image")
SHARP_COLUMNS = (*SHARP, "GT", "ground_truth")


@dataclass(frozen=True)
class Sample:
    """One image or pair: `(3, H, W)` in [0, 1], or None for a side that does not exist; a kernel `(k, k)` if known."""

    name: str
    blurry: Tensor | None
    sharp: Tensor | None
    group: str = "all"
    kernel: Tensor | None = None


class Folder:
    """A folder of images as a Hugging Face table of paths and a reader of samples.

    `table` is a `datasets.Dataset` with the columns name, group, blurry and sharp (paths or None).
    Raises `ValueError` for a folder in no known layout (see `bd_diff.data.layouts.recognise`).
    """

    def __init__(self, root: str | Path, split: str = "test", layout: str | None = None):
        self.root, self.split = Path(root), split
        self.layout, self.items = recognise(root, split, layout)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        return read_item(self.items[index])

    def readers(self) -> Iterator[tuple[str, Callable[[], Sample]]]:
        """The name of each sample and a function that reads it, so that an unreadable one can be named and skipped."""
        return ((item.name, partial(read_item, item)) for item in self.items)

    @property
    def kind(self) -> str:
        """One of paired, unpaired and images (see `Layout`)."""
        return LAYOUTS[self.layout].kind

    @property
    def table(self):
        from datasets import Dataset, Features, Value

        columns = Features({column: Value("string") for column in ("name", "group", "blurry", "sharp")})
        rows = [
            {"name": item.name, "group": item.group, "blurry": text(item.blurry), "sharp": text(item.sharp)}
            for item in self.items
        ]
        return Dataset.from_list(rows, features=columns)


class HubData:
    """A data set of the Hugging Face hub, streamed: nothing is kept on disk, samples come in order.

    Its image columns are found by name (`BLURRY_COLUMNS`, `SHARP_COLUMNS`). Raises `ValueError` for a data set that
    cannot be loaded or has no such columns.
    """

    kind, layout = "paired", "hub"

    def __init__(self, repository: str, split: str = "test"):
        from datasets import load_dataset

        self.root, self.split = repository, split
        try:
            self.rows = load_dataset(repository, split=split, streaming=True)
        except Exception as error:  # no network, no such repository or split, a script instead of files: many types
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{repository}, split {split}, is neither a folder here nor a data set of the hub: {reason}"
            ) from error

    def readers(self) -> Iterator[tuple[str, Callable[[], Sample]]]:
        """As `Folder.readers`."""
        for index, row in enumerate(self.rows):
            yield f"{self.split}/{index}", partial(read_row, f"{self.split}/{index}", row)


class Shards:
    """Pairs in shards that `datasets` saved on this disk (`save_to_disk`), in columns called as in `HubData`.

    Raises `ValueError` for a table without such columns.
    """

    kind, layout = "paired", "shards"

    def __init__(self, root: str | Path, split: str = "test"):
        from datasets import Image

        self.root, self.split = Path(root), split
        table = open_shards(self.root)
        if isinstance(table, dict):
            if split not in table:
                raise ValueError(f"{root} has the splits {', '.join(table)}; there is no {split}")
            table = table[split]
        self.columns = columns_of(table.column_names, str(root))
        for column in self.columns:
            table = table.cast_column(column, Image(decode=False))
        self.table = table

    def readers(self) -> Iterator[tuple[str, Callable[[], Sample]]]:
        """As `Folder.readers`."""
        return ((f"{self.split}/{index}", partial(self.read, index)) for index in range(len(self.table)))

    def read(self, index: int) -> Sample:
        """The pair in a row."""
        row = self.table[index]
        blurry, sharp = (to_tensor(image_of(row[name], f"{self.root}: row {index}, {name}")) for name in self.columns)
        return same_size(Sample(f"{self.split}/{index}", blurry, sharp))


def open_data(source: str | Path, split: str = "test", layout: str | None = None) -> Folder | HubData | Shards:
    """The folder `source` or, if there is none and it has the form owner/name, the data set of that id on the hub."""
    if not Path(source).exists() and str(source).count("/") == 1 and not str(source).startswith((".", "~", "/")):
        return HubData(str(source), split)
    return open_folder(source, split, layout)


def open_folder(source: str | Path, split: str = "test", layout: str | None = None) -> Folder | Shards:
    """The images of a folder, or the pairs of the shards in it."""
    if layout is None and (holds_shards(Path(source)) or (Path(source) / "dataset_dict.json").exists()):
        return Shards(source, split)
    return Folder(source, split, layout)


def read_row(name: str, row: dict) -> Sample:
    """A sample from a row of a hub data set, whose image columns hold PIL images."""
    blurry, sharp = (to_tensor(row[column].convert("RGB")) for column in columns_of(row, name))
    return same_size(Sample(name, blurry, sharp))


def columns_of(there: Collection[str], name: str) -> list[str]:
    """The columns of the blurry and of the sharp image. Raises ValueError, with the `name` of the data, without one."""
    found = []
    for side, columns in (("blurry", BLURRY_COLUMNS), ("sharp", SHARP_COLUMNS)):
        column = next((column for column in columns if column in there), None)
        if column is None:
            raise ValueError(f"{name} has {', '.join(there)}; its {side} image must be called {' or '.join(columns)}")
        found.append(column)
    return found


def read_item(item: Item) -> Sample:
    """Read the images of an item.

    Raises `ValueError` naming the file that cannot be read, or the pair whose sides differ in size.
    """
    blurry, sharp = (to_tensor(read_image(path)) if path else None for path in (item.blurry, item.sharp))
    return same_size(Sample(item.name, blurry, sharp, item.group))


def same_size(sample: Sample) -> Sample:
    """The sample itself. Raises `ValueError` if its two images differ in size."""
    blurry, sharp = sample.blurry, sample.sharp
    if blurry is not None and sharp is not None and blurry.shape != sharp.shape:
        raise ValueError(
            f"{sample.name}: the blurry image is {blurry.shape[2]}x{blurry.shape[1]}, "
            f"the sharp one {sharp.shape[2]}x{sharp.shape[1]}"
        )
    return sample


def text(path: Path | None) -> str | None:
    return None if path is None else str(path)
