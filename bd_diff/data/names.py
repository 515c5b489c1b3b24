"""Names of image files: which are read and which are written, by their endings, and which a folder holds."""

import os
import re
import warnings
from collections import Counter
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from PIL import Image

from bd_diff.data.encoding import WRITTEN

HEIC = (".heic", ".heif", ".hif")  # with the extra `heic`
EXTENSIONS: tuple[str, ...] = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".dib",
    ".gif",
    ".ppm",
)
EXTENSIONS += (".pgm", ".pbm", ".pnm", ".avif", ".mpo", *HEIC)
RAW: tuple[str, ...] = (
    ".dng",
    ".cr2",
    ".cr3",
    ".crw",
    ".nef",
    ".nrw",
    ".arw",
    ".srf",
    ".sr2",
    ".raf",
    ".rw2",
    ".orf",
    ".pef",
    ".srw",
)
RAW += (".raw", ".rwl", ".x3f", ".3fr", ".fff", ".iiq", ".kdc", ".dcr", ".erf", ".mef", ".mos", ".mrw")
VIDEO = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".3gp", ".wmv", ".mpg", ".mpeg", ".insv")
FITS = (".fits", ".fit", ".fts")
OTHER = (".jp2", ".jxl", ".psd", ".exr", ".hdr", ".svg", ".insp", ".tga", ".ico", ".pdf")
LEFT_OUT = {"camera RAW": RAW, "video": VIDEO, "FITS, which is read for kernels only": FITS, "not read here": OTHER}


def file_kind(path: str | os.PathLike) -> str | None:
    """The format that the ending of the path stands for."""
    init_formats()
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    return {"MPO": "JPEG", "DIB": "BMP"}.get(kind, kind) if kind else None


def can_write(path: str | os.PathLike) -> bool:
    """Whether `save_image` writes the format that the path ends in."""
    return file_kind(path) in WRITTEN


@cache
def init_formats() -> None:
    """Register every format with Pillow, HEIC only if its library is installed."""
    Image.init()
    if "HEIF" not in Image.OPEN:
        with suppress(ImportError):
            import_module("pillow_heif").register_heif_opener()


def list_images(folder: str | os.PathLike, recursive: bool = False) -> list[Path]:
    """Paths of the image files in a folder, in natural order (2 before 10); hidden files are left out.

    No image at all is a `ValueError` naming the folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if recursive:
        there = [
            path
            for path in folder.glob("**/*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
    else:  # a hundred thousand files take a second or two so
        with os.scandir(folder) as entries:
            there = [folder / entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    found = [path for path in there if path.suffix.lower() in EXTENSIONS]
    warn_of_left_out(there, folder)
    if not found:
        deeper = "" if recursive else ", not counting its subfolders"
        raise ValueError(f"{folder} holds no images ({', '.join(EXTENSIONS)}){deeper}")
    return sorted(found, key=natural_order)


def warn_of_left_out(paths: list[Path], where: str | os.PathLike) -> None:
    """Warn, in one line, of photographs and videos whose format cannot be read."""
    endings = Counter(path.suffix.lower() for path in paths)
    for what, unread in LEFT_OUT.items():
        if count := sum(endings[ending] for ending in unread):
            seen = ", ".join(ending for ending in unread if endings[ending])
            warnings.warn(f"{where}: {count} left out, {what} ({seen})", stacklevel=3)


def listed_images(folder: str | os.PathLike, listed: str | os.PathLike, images: list[Path] | None = None) -> list[Path]:
    """The images of a folder that the text file `listed` names, in its order; an unknown name is a `ValueError`.

    images: the paths of the folder's images, if the caller has them already.
    """
    there = {path.name: path for path in images or list_images(folder)}
    names = Path(listed).read_text().split()
    if absent := [name for name in names if name not in there]:
        raise ValueError(f"{listed} lists {absent[0]}, which is not in {folder}")
    return [there[name] for name in names]


def natural_order(path: Path) -> list:
    """A sort key in which numbers inside names count as numbers."""
    return [int(piece) if piece.isdecimal() else piece.lower() for piece in re.split(r"(\d+)", str(path))]
