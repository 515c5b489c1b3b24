"""How far a long run is: a bar on a terminal, and where no terminal is, a line every half minute for the log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

EVERY = 30.0  # seconds from one line to the next


def progress(
    items: Iterable | None = None,
    total: int | None = None,
    unit: str = "image",
    desc: str = "",
    silent: bool = False,
    done: int = 0,
    brief: bool = False,
) -> Any:
    """`tqdm` or, off a terminal, `Lines`: iterate over it, or `update` it inside `with`.

    done: how many of `total` an earlier run did. brief: for what mostly takes no time, a bar that shows after two
    seconds and goes at the end. Nothing is shown where `silent`, and where the logger "bd_diff" tells no warnings
    (`bd-diff --quiet`).
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    silent = silent or not logging.getLogger("bd_diff").isEnabledFor(logging.WARNING)
    if silent or sys.stderr.isatty():
        shown = {"delay": 2, "leave": False} if brief else {}
        return tqdm(items, total=total, unit=unit, desc=desc or None, disable=silent, initial=done, **shown)
    return Lines(items, total, unit, desc, done)


class Lines:
    """Counts what is done and says so on stderr, at most every `EVERY` seconds: `312 of 1000 images, 0.42 images/s,
    27:18 left`.
    """

    def __init__(self, items: Iterable | None, total: int | None, unit: str, desc: str, done: int = 0):
        self.items, self.total, self.unit, self.desc = items or (), total, unit, desc
        self.count, self.done, self.started = done, done, time.monotonic()
        self.told = self.started

    def __iter__(self) -> Iterator:
        for item in self.items:
            yield item
            self.update()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error) -> None:
        pass

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self.count += count
        now = time.monotonic()
        if now - self.told >= EVERY and self.count != self.total:  # the end is told by who counts
            self.told = now
            print(self.line(now - self.started), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """What there is to say after so many seconds."""
        about = f"{self.desc}: " if self.desc else ""
        of = f" of {self.total}" if self.total else ""
        rate = (self.count - self.done) / seconds
        left = f", {tqdm.format_interval((self.total - self.count) / rate)} left" if self.total else ""
        return f"{about}{self.count}{of} {self.unit}s, {rate:.3g} {self.unit}s/s{left}"
