"""A lock on a folder of results: two runs would write the same files and remove each other's unfinished ones."""

from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".bd-diff.lock"  # stays in the folder: who removes it may remove that of another run
PATIENCE = 10.0  # seconds: the helpers of a run that was killed die a little later than it does
held: dict[Path, FileLock] = {}  # by this process


def claim(folder: Path) -> None:
    """Lock a folder for this process until it ends, however it ends. Raises ValueError if another run holds the lock.

    Locking a folder twice from one process is no error.
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
