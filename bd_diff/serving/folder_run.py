"""Many photographs through one restorer: read ahead, in batches of one size, written behind, each accounted for.

What became of each photograph is a line of `.bd-diff.jsonl` in the folder of results, so that a run that was stopped at
any moment can go on, and several processes can share the work.
"""

import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from bd_diff.data.deep import DeepImage
from bd_diff.data.images import read_image, save_image, to_image, to_tensor

MANIFEST = ".bd-diff.jsonl"
ERRORS = ValueError, OSError, torch.OutOfMemoryError  # of one photograph; the others go on


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
    """The fate of every photograph: `{"target": ..., "source": ..., "failed": reason or null}` a line.

    A line is appended in one piece after the result is in its place, so a kill leaves a result without a line at worst.
    """

    def __init__(self, folder: Path):
        self.path = folder / MANIFEST

    def read(self) -> dict[str, str | None]:
        """Reason of failure, or None, by target; the last line of each counts. A line that was cut off is left out."""
        fates = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            fates[entry["target"]] = entry["failed"]
        return fates

    def add(self, job: Job, failed: str | None) -> None:
        """Append a line."""
        line = json.dumps({"target": str(job.target), "source": str(job.source), "failed": failed}) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def remove_parts(jobs: list[Job]) -> None:
    """Remove what runs that were killed left of half written results of these jobs (see `images.replacing`)."""
    targets = {job.target for job in jobs}
    for folder in {target.parent for target in targets}:
        for part in folder.glob(".*.part"):
            result = re.fullmatch(r"\.(.+)\.\d+\.part", part.name)
            if result and folder / result[1] in targets:
                part.unlink()


def run_jobs(
    jobs: list[Job],
    restore: Callable[[Tensor], Tensor],
    manifest: Manifest | None = None,
    batch_size: int = 1,
    workers: int = 2,
    quality: int | None = None,
    beside: Callable[[Job, Image.Image, Tensor], None] | None = None,
    silent: bool = False,
) -> Summary:
    """Restore photographs; one that cannot be read, restored or written is named on stderr, the others are done.

    restore: `(B, 3, H, W)` in [0, 1] to the same. batch_size: photographs of one size in a row that it gets at once.
    workers: threads that read and write. quality: of JPEG, WebP and AVIF results. beside: called with the job, the
    photograph and its result `(3, H, W)`, for what else is to be written. silent: without a progress bar.
    """
    summary, started = Summary(), time.monotonic()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(jobs), unit="image", disable=silent or None) as progress:

        def settle(job: Job, error: BaseException | None) -> None:
            reason = None if error is None else " ".join(str(error).split())
            if reason is None:
                summary.done += 1
            else:
                summary.failed[str(job.source)] = reason
                about = "" if str(job.source) in reason else f"{job.source}: "
                tqdm.write(f"error: {about}{reason}", file=sys.stderr)
            if manifest:
                manifest.add(job, reason)
            progress.update()

        def read(job: Job) -> tuple[Image.Image | DeepImage, Tensor]:
            photograph = read_image(job.source)
            return photograph, to_tensor(photograph)

        def write(photograph: Image.Image | DeepImage, result: Tensor, job: Job) -> None:
            save_image(to_image(result, like=photograph), job.target, quality)

        writing: deque[tuple[Job, Future]] = deque()
        for batch in batches(ahead(pool, read, jobs, workers + batch_size), batch_size, settle):
            for job, photograph, result in restored(batch, restore, settle):
                try:
                    if beside:
                        beside(job, photograph, result)
                except ERRORS as error:
                    settle(job, error)
                    continue
                writing.append((job, pool.submit(write, photograph, result, job)))
            while len(writing) > workers:
                finish(writing, settle)
        while writing:
            finish(writing, settle)
    summary.seconds = time.monotonic() - started
    return summary


def ahead(pool: ThreadPoolExecutor, read: Callable, jobs: Iterable[Job], most: int) -> Iterator[tuple[Job, Future]]:
    """Jobs in order, each with its photograph being read, at most so many before their turn."""
    reading: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        reading.append((job, pool.submit(read, job)))
        if len(reading) > most:
            yield reading.popleft()
    yield from reading


def batches(reading: Iterable[tuple[Job, Future]], size: int, settle: Callable) -> Iterator[list[tuple]]:
    """`(job, photograph, pixels)` in a row that are of one size, at most `size` together."""
    batch: list[tuple] = []
    for job, future in reading:
        try:
            photograph, pixels = future.result()
        except ERRORS as error:
            settle(job, error)
            continue
        if batch and (len(batch) == size or batch[0][2].shape != pixels.shape):
            yield batch
            batch = []
        batch.append((job, photograph, pixels))
    if batch:
        yield batch


def restored(batch: list[tuple], restore: Callable, settle: Callable) -> Iterator[tuple[Job, Image.Image, Tensor]]:
    """`(job, photograph, result)` of a batch; where the batch fails, its photographs are tried one by one."""
    try:
        results = restore(torch.stack([pixels for _, _, pixels in batch])).cpu()
    except ERRORS as error:
        if len(batch) == 1:
            settle(batch[0][0], error)
        else:
            for one in batch:
                yield from restored([one], restore, settle)
        return
    for (job, photograph, _), result in zip(batch, results, strict=True):
        yield job, photograph, result


def finish(writing: deque[tuple[Job, Future]], settle: Callable) -> None:
    """Wait for the oldest result to be written."""
    job, future = writing.popleft()
    error = future.exception()
    if error is not None and not isinstance(error, ERRORS):
        raise error
    settle(job, error)
