"""Atomic writing: a file or folder is complete or does not exist, even after a kill, a full disk or a power cut.

What is written goes to a temporary name beside its place, is flushed to the disk, and is renamed; then the folder is
flushed.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

LONGEST_NAME = 255  # bytes, of most file systems
ROOM = 24  # of these for what a temporary name adds


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Context with a temporary name beside `path` to write a file to; renamed to `path` on success, removed on failure.

    Encode to memory first: many encoders do not notice that a disk is full. Missing folders are made. An `OSError` is
    raised again, with its number, in one sentence that names `path`.
    """
    path = Path(path)
    part = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        flush(part)
        os.replace(part, path)
        flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise failed(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink()


class Failed(OSError):
    """An `OSError` with a number, whose text is the given sentence alone."""

    def __str__(self) -> str:
        return str(self.strerror)


def failed(path: Path, error: Exception) -> OSError:
    """The error to raise where `path` could not be written."""
    number, told = getattr(error, "errno", None), getattr(error, "strerror", None) or error
    if code := re.search(r"\(os error (\d+)\)", str(error)):  # of a library in Rust, which has no errno
        number = int(code[1])
        told = os.strerror(number)
    told = f"cannot write {path}: {told}"
    return OSError(told) if number is None else Failed(number, told)


def temporary_name(path: Path, ending: str | None = None) -> Path:
    """The temporary name of a file for this process: hidden, short enough, ending in the number of the process."""
    name = os.fsdecode(os.fsencode(path.name)[: LONGEST_NAME - ROOM])
    return path.with_name(f".{name}{f'.{os.getpid()}.part' if ending is None else ending}")


@contextmanager
def replacing_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Context with an empty folder to write into, which replaces `folder` once all is written and flushed.

    Raises `OSError` naming `folder` where it cannot be written.
    """
    folder = Path(folder)
    temporary, before = (folder.with_name(f"{folder.name}-{what}") for what in ("saving", "before"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        flush_folder(temporary)
        take_place(temporary, folder, before)
    except (OSError, SafetensorError) as error:
        raise failed(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_place(temporary: Path, folder: Path, before: Path) -> None:
    """Rename the folder `temporary` to `folder`; what was there is removed only after that."""
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    temporary.rename(folder)
    flush(folder.parent)
    shutil.rmtree(before, ignore_errors=True)


def flush_folder(folder: Path) -> None:
    """Flush all that a folder holds, and itself, to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside comes before the folder around it
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and keeps their names by itself
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
