"""Many photographs through one restorer: read ahead, in batches of one size, written behind, each accounted for.

What became of each photograph is a line of `.bd-diff.jsonl` in the folder of results, so that a run that was stopped at
any moment can go on, and several processes can share the work.
"""

import errno
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from bd_diff.data.deep import DeepImage
from bd_diff.data.failures import in_one_line, of_the_machine
from bd_diff.data.images import read_image, save_image, to_image
from bd_diff.data.inputs import hidden_in, part_of
from bd_diff.data.part import Part
from bd_diff.data.writing import temporary_name

MANIFEST = ".bd-diff.jsonl"


@dataclass(frozen=True)
class Job:
    """A photograph and where its result goes."""

    source: Path
    target: Path


@dataclass
class Summary:
    """What a run did: `failed` maps sources to reasons."""

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Manifest:
    """The outcome of every photograph, `{"target": ..., "source": ..., "failed": reason or null, "again": bool}` each.

    `again` tells failures of the machine, which `--resume` tries again, from those of the photograph. A line is
    appended in one piece after the result is in its place. A kill or a full disk may leave a result without a line or
    with a part of one: parts are read over, and `complete` gives the lines that are lacking.
    """

    def __init__(self, folder: Path):
        self.path = folder / MANIFEST

    def read(self) -> dict[str, str | None]:
        """Reason of failure, or None, by target; the last line of each counts. A line that was cut off is left out."""
        return {entry["target"]: entry["failed"] for entry in self.entries()}

    def given_up(self) -> set[str]:
        """Targets of photographs that failed by themselves."""
        last = {entry["target"]: entry for entry in self.entries()}
        return {target for target, entry in last.items() if entry["failed"] is not None and not entry.get("again")}

    def entries(self) -> Iterator[dict]:
        """All whole lines."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else ()
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("target"), str) and "failed" in entry:
                yield entry

    def add(self, job: Job, failed: str | None, again: bool = False) -> None:
        """Append a line."""
        entry = {"target": str(job.target), "source": str(job.source), "failed": failed}
        line = json.dumps(entry | ({"again": True} if again else {})).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if file.read(1) not in (b"\n", b""):
                line = b"\n" + line  # the one before was cut off
            written = file.write(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def complete(self, jobs: list[Job]) -> None:
        """Add the lines of results that are there without one."""
        known = self.read()
        for job in jobs:
            if known.get(str(job.target), "") is not None and job.target.exists():
                self.add(job, None)


def remove_parts(jobs: list[Job]) -> None:
    """Remove what runs that were killed left of half written results of these jobs (see `data.writing`), and leave what
    runs that go on are writing.
    """
    parts = {(job.target.parent, temporary_name(job.target, "").name) for job in jobs}
    for folder in {target for target, _ in parts}:
        for part in folder.glob(".*.part"):
            found = re.fullmatch(r"(\..+)\.(\d+)\.part", part.name)
            if found and (folder, found[1]) in parts and not psutil.pid_exists(int(found[2])):
                part.unlink(missing_ok=True)


def run_jobs(
    jobs: list[Job],
    restore: Callable[..., Tensor],
    manifest: Manifest | None = None,
    batch_size: int = 1,
    workers: int = 2,
    quality: int | None = None,
    beside: Callable[[Job, Part, Tensor], None] | None = None,
    silent: bool = False,
    open_image: Callable[[Path], Image.Image | DeepImage] = read_image,
) -> Summary:
    """Restore photographs; one that cannot be read, restored or written is named on stderr, the others are done.

    Nothing that a photograph raises ends the run.

    restore: `(B, 3, H, W)` in [0, 1] to the same; where some of it is a fill, it is called with the mask `hidden`, too
    (`hidden_in`). batch_size: photographs of one size in a row that it gets at once.
    workers: threads that read and write. quality: of JPEG, WebP and AVIF results. beside: called with the job, the
    photograph's `Part` and the result of that `(3, h, w)`, for what else is to be written. silent: no progress bar.
    open_image: reads a photograph.
    """
    summary, started = Summary(), time.monotonic()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(jobs), unit="image", disable=silent or None) as progress:

        def settle(job: Job, error: BaseException | None) -> None:
            reason = None if error is None else in_one_line(error)
            if reason is None:
                summary.done += 1
            else:
                summary.failed[str(job.source)] = reason
                about = "" if str(job.source) in reason else f"{job.source}: "
                tell(f"error: {about}{reason}")
            if manifest:
                try:
                    manifest.add(job, reason, again=error is not None and of_the_machine(error))
                except OSError as unwritten:  # a resumed run adds it
                    tell(f"error: {manifest.path} lacks {job.target}: {unwritten.strerror}")
            progress.update()

        def read(job: Job) -> tuple[Part, Tensor]:
            part = part_of(open_image(job.source), str(job.source))
            return part, part.pixels

        def write(part: Part, result: Tensor, job: Job) -> None:
            save_image(to_image(part.put_back(result), like=part.photograph), job.target, quality)

        writing: deque[tuple[Job, Future]] = deque()
        for batch in batches(ahead(pool, read, jobs, workers + batch_size), batch_size, settle):
            for job, part, result in restored(batch, restore, settle):
                try:
                    if beside:
                        beside(job, part, result)
                except Exception as error:
                    settle(job, error)
                    continue
                writing.append((job, pool.submit(write, part, result, job)))
            while len(writing) > workers:
                finish(writing, settle)
        while writing:
            finish(writing, settle)
    summary.seconds = time.monotonic() - started
    return summary


def tell(line: str) -> None:
    """A line on stderr, above the progress bar; where that is a file on a full disk, too, the summary has to do."""
    with suppress(OSError):
        tqdm.write(line, file=sys.stderr)


def ahead(pool: ThreadPoolExecutor, read: Callable, jobs: Iterable[Job], most: int) -> Iterator[tuple[Job, Future]]:
    """Jobs in order, each with its photograph being read, at most so many before their turn."""
    reading: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        reading.append((job, pool.submit(read, job)))
        if len(reading) > most:
            yield reading.popleft()
    yield from reading


def batches(reading: Iterable[tuple[Job, Future]], size: int, settle: Callable) -> Iterator[list[tuple]]:
    """`(job, part, pixels)` in a row that are of one size, at most `size` together."""
    batch: list[tuple] = []
    for job, future in reading:
        try:
            part, pixels = future.result()
        except Exception as error:  # decoders raise anything
            settle(job, error)
            continue
        if batch and (len(batch) == size or batch[0][2].shape != pixels.shape):
            yield batch
            batch = []
        batch.append((job, part, pixels))
    if batch:
        yield batch


def restored(batch: list[tuple], restore: Callable, settle: Callable) -> Iterator[tuple[Job, Part, Tensor]]:
    """`(job, part, result)` of a batch; where the batch fails, its photographs are tried one by one."""
    try:
        hidden = hidden_in([part for _, part, _ in batch])
        masks = {} if hidden is None else {"hidden": hidden}
        results = restore(torch.stack([pixels for _, _, pixels in batch]), **masks).cpu()
    except Exception as error:
        if len(batch) == 1:
            settle(batch[0][0], error)
        else:
            for one in batch:
                yield from restored([one], restore, settle)
        return
    for (job, part, _), result in zip(batch, results, strict=True):
        yield job, part, result


def finish(writing: deque[tuple[Job, Future]], settle: Callable) -> None:
    """Wait for the oldest result to be written."""
    job, future = writing.popleft()
    try:
        future.result()
    except Exception as error:
        settle(job, error)
    else:
        settle(job, None)
