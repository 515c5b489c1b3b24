"""A lock on a folder of results: two runs would write the same files and remove each other's unfinished ones."""

import atexit
import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOCK = ".bd-diff.lock"  # removed with the claim; a kill leaves it, for the next run to take and remove
PATIENCE = 10.0  # seconds: the helpers of a run that was killed die a little later than it does
PAUSE = 0.05  # seconds between two tries
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
held: dict[Path, int] = {}  # by which process: children that are forked have it, too, but their end is not its end


def claim(folder: Path) -> None:
    """Lock a folder for this process until it ends, however it ends. Raises ValueError if another run holds the lock.

    Locking a folder twice from one process is no error. Where the disk has no locks, a line says so.
    """
    path, until = folder.resolve(), time.monotonic() + PATIENCE
    if path in held:
        return
    while (let_go := take(path)) is None:
        if time.monotonic() > until:
            raise ValueError(f"another run is writing to {folder}; wait for its end, or give another folder")
        time.sleep(PAUSE)
    held[path] = os.getpid()

    def end() -> None:
        if held.get(path) == os.getpid():
            let_go()

    atexit.register(end)


def take(folder: Path) -> Callable[[], None] | None:
    """Lock a folder, which is made if need be; gives what unlocks it, or None where another process has it.

    Whoever unlocks removes the file first, while nobody else can have it. Who waited for that file has a lock then that
    nobody meets, so a lock counts only while its file is the one in the folder.
    """
    if os.name == "nt":
        return take_on_windows(folder)
    import fcntl

    made = not folder.exists()
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except FileNotFoundError:  # the folder was removed meanwhile
        return None
    except FileExistsError as error:  # it was, while it was looked at; or what has its name is no folder
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(error.filename).st_mode):
                raise
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        told = f"warning: the disk of {folder} knows no locks ({error.strerror}); let no other run write there"
        print(told, file=sys.stderr, flush=True)
    if not is_at(handle, path):
        os.close(handle)
        return None

    def let_go() -> None:
        with suppress(OSError):  # the folder is gone, or may not be written any more
            if is_at(handle, path):
                path.unlink()
            if made:
                folder.rmdir()  # unless something came of it
        os.close(handle)

    return let_go


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def take_on_windows(folder: Path) -> Callable[[], None] | None:
    """As `take`; a file that is open cannot be removed there, so whoever can remove it is the last one."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None

    def let_go() -> None:
        lock.release()
        with suppress(OSError):
            (folder / LOCK).unlink()

    return let_go
