"""Restores many photographs: reads ahead, runs batches of one size, writes in the background, records every outcome.

The outcome of each photograph is a line of `.bd-diff.jsonl` in the folder of results, so that a run that was stopped at
any moment can go on, and several processes can share the work.
"""

import errno
import json
import logging
import os
import re
import signal
import sys
import time
from collections import Counter, deque
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
from bd_diff.data.progress import progress
from bd_diff.data.writing import temporary_name
from bd_diff.serving.threads import others_compute_alone

MANIFEST = ".bd-diff.jsonl"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A photograph and where its result goes."""

    source: Path
    target: Path


@dataclass
class Summary:
    """What a run did: `failed` maps sources to reasons; `blur` counts what was found in those that are done; `stopped`
    is its exit code where Ctrl-C or SIGTERM ended it, and `left` how many photographs it had not come to.
    """

    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    blur: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: int = 0
    left: int = 0


class Manifest:
    """The outcomes of all photographs, one JSON object a line.

    A line is `{"target": ..., "source": ..., "failed": reason or null, "again": bool, "blur": words}`: `again` marks
    failures of the machine, which `--resume` tries again, `blur` says what was found. A line is appended in one piece
    after the result is in its place. A kill or a full disk may leave a result without a line, or with a part of one:
    parts are ignored, and `complete` adds the missing lines.
    """

    def __init__(self, folder: Path):
        self.path = folder / MANIFEST

    def read(self) -> dict[str, str | None]:
        """For each target the reason of its failure, or None; its last line counts. Incomplete lines are ignored."""
        return {entry["target"]: entry["failed"] for entry in self.entries()}

    def given_up(self) -> set[str]:
        """Targets of photographs that failed for a reason of their own, so that trying again is of no use."""
        last = {entry["target"]: entry for entry in self.entries()}
        return {target for target, entry in last.items() if entry["failed"] is not None and not entry.get("again")}

    def entries(self) -> Iterator[dict]:
        """The lines of the manifest as objects; lines that were cut off are left out."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else ()
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("target"), str) and "failed" in entry:
                yield entry

    def add(self, job: Job, failed: str | None, again: bool = False, blur: str | None = None) -> None:
        """Append the line of a job."""
        entry = {"target": str(job.target), "source": str(job.source), "failed": failed}
        more = ({"again": True} if again else {}) | ({"blur": blur} if blur else {})
        line = json.dumps(entry | more).encode() + b"\n"
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
        """Add the missing lines of results that exist."""
        recorded = self.read()
        for job in jobs:
            if recorded.get(str(job.target), "") is not None and job.target.is_file():
                self.add(job, None)


def remove_parts(jobs: list[Job]) -> None:
    """Remove half-written results of these jobs that killed runs left behind (see `data.writing`).

    What runs that are still going on are writing stays.
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
    blur: dict[Path, str] | None = None,
) -> Summary:
    """Restore photographs. One that cannot be read, restored or written is named on stderr, and the run goes on.

    Nothing that a photograph raises ends the run. Ctrl-C does, after what is being written is in its place.

    restore: `(B, 3, H, W)` in [0, 1] to the same; where some of it is a fill, it is called with the mask `hidden`, too
    (`hidden_in`). batch_size: the most photographs of one size that it gets at once.
    workers: threads that read and write. quality: of JPEG, WebP and AVIF results. beside: called with the job, the
    photograph's `Part` and its result `(3, h, w)`, to write more files. silent: show no progress. open_image: reads a
    photograph. blur: what was found in a photograph, by its target, which `restore` or `beside` fills.
    """
    summary, started = Summary(), time.monotonic()
    with (
        others_compute_alone(),
        ThreadPoolExecutor(workers) as pool,
        progress(total=len(jobs), silent=silent) as shown,
    ):

        def settle(job: Job, error: BaseException | None) -> None:
            reason = None if error is None else in_one_line(error)
            found = blur.pop(job.target, None) if blur else None
            if reason is None:
                summary.done += 1
                summary.blur.update([found] if found else [])
            else:
                summary.failed[str(job.source)] = reason
                about = "" if str(job.source) in reason else f"{job.source}: "
                tell(f"error: {about}{reason}")
            if manifest:
                try:
                    manifest.add(job, reason, error is not None and of_the_machine(error), None if reason else found)
                except OSError as unwritten:  # a resumed run adds it
                    tell(f"error: {manifest.path} lacks {job.target}: {unwritten.strerror}")
            logger.info("%s: %s", job.target, reason or found or "written")
            shown.update()

        def read(job: Job) -> tuple[Part, Tensor]:
            part = part_of(open_image(job.source), str(job.source))
            return part, part.pixels

        def write(part: Part, result: Tensor, job: Job) -> None:
            save_image(to_image(part.put_back(result), like=part.photograph), job.target, quality)

        writing: deque[tuple[Job, Future]] = deque()
        try:
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
        except KeyboardInterrupt as stop:
            summary.stopped = 128 + (stop.args[0] if stop.args else signal.SIGINT)  # what shells make of signals
        while writing:
            finish(writing, settle)
    summary.left = len(jobs) - summary.done - len(summary.failed)
    summary.seconds = time.monotonic() - started
    return summary


def tell(line: str) -> None:
    """Print a line on stderr, above the progress bar.

    The line is lost where stderr is a file on a full disk; the summary names the failure all the same.
    """
    with suppress(OSError):
        tqdm.write(line, file=sys.stderr)


def ahead(pool: ThreadPoolExecutor, read: Callable, jobs: Iterable[Job], most: int) -> Iterator[tuple[Job, Future]]:
    """Yield the jobs in order, each with the future that reads its photograph; at most `most` are read ahead."""
    reading: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        reading.append((job, pool.submit(read, job)))
        if len(reading) > most:
            yield reading.popleft()
    yield from reading


def batches(reading: Iterable[tuple[Job, Future]], size: int, settle: Callable) -> Iterator[list[tuple]]:
    """Group consecutive photographs of one size as `(job, part, pixels)`, at most `size` at a time."""
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
    """Yield `(job, part, result)` of a batch; if the batch fails, its photographs are tried one by one. Those that stay
    as they are, whatever is made of them, come back at once.
    """
    yield from (one for one in batch if one[1].unchanged)
    batch = [one for one in batch if not one[1].unchanged]
    if not batch:
        return
    try:
        hidden = hidden_in([part for _, part, _ in batch])
        masks = {} if hidden is None else {"hidden": hidden}
        pixels = [one[None] for _, _, one in batch]
        results = restore(pixels[0] if len(batch) == 1 else torch.cat(pixels), **masks).cpu()  # large ones not copied
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
