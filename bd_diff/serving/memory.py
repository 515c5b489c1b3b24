"""The largest photograph that fits into the available memory."""

from pathlib import Path

import psutil

BYTES_READ = 20  # a pixel of a photograph that waits: 16 bits a colour, and as floats
BYTES_RESTORED = 60  # a pixel of one that is restored, written or both: copies of floats
MOST = 250_000_000  # pixels, where there is more memory than anybody needs
FEWEST = 4_000_000
SHARE = 0.5  # of the memory that is there: others need some, too
CGROUPS = (  # limit and use, of version 2 and of version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def most_pixels(in_flight: int) -> int:
    """The largest number of pixels of a photograph, if `in_flight` photographs are in memory at once."""
    fit = int(SHARE * available_memory() / (in_flight * BYTES_READ + BYTES_RESTORED))
    return min(MOST, max(FEWEST, fit))


def available_memory() -> int:
    """Bytes of memory that this process can still allocate, within the limits of its container."""
    free = psutil.virtual_memory().available
    for limit, used in CGROUPS:
        if Path(limit).exists() and Path(used).exists():
            most = Path(limit).read_text().strip()
            if most != "max":
                free = min(free, int(most) - int(Path(used).read_text()))
    return max(free, 0)
