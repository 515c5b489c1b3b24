"""One run at a time in a folder: two would write the same files, and tidy away each other's unfinished ones."""

from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".bd-diff.lock"  # stays in the folder: who removes it may remove that of another run
PATIENCE = 10.0  # seconds: the helpers of a run that was killed die a little later than it does
held: dict[Path, FileLock] = {}  # by this process


def claim(folder: Path) -> None:
    """Have the folder to this process until it ends, however it ends. Raises ValueError where another run has it.

    A folder that this process has already is no error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve()
    if path in held:
        return
    lock = FileLock(path / LOCK, timeout=PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another run is writing to {folder}; wait for its end, or give another folder") from None
    held[path] = lock
