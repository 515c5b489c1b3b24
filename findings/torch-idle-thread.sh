#!/usr/bin/env bash
# Guess:   a thread that has done one small torch operation on the CPU and then waits for a queue costs nothing: reading photographs
#          ahead in a ThreadPoolExecutor cannot slow the model in the main thread down.
# Truth:   for as long as that thread lives, small operations of the main thread take 2 to 3 times as long. Both threads keep an OpenMP
#          team, and libgomp counts the members of both: more than there are cores, and waiting threads sleep at once instead of
#          spinning. torch.set_num_threads(1) in the other thread, before it computes, keeps the main thread fast.
# Version: torch 2.14.1 (its libgomp), Linux, 2 cores and more.
# Matters: our command line read and wrote photographs in threads: 12 megapixels took 50 seconds instead of 41, and 0.2
#          megapixels in a web page 1.7 times as long. Threads beside the one that computes now have one core each, and so have those of a web page.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1
shown=$(env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT "$folder/venv/bin/python" - <<'PY'
import os
import resource
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch

torch.set_num_threads(len(os.sched_getaffinity(0)))
image = torch.rand(300, 300)


def work() -> tuple[float, int]:
    started, slept = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    for _ in range(1500):
        torch.fft.irfft2(torch.fft.rfft2((image * 2).add_(1).sqrt_()), s=image.shape).mul_(0.5)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - slept


def measured(name: str) -> int:
    seconds, slept = (statistics.median(values) for values in zip(*(work() for _ in range(7)), strict=True))
    print(f"  {name}: {seconds:.2f} s, threads fell asleep {slept:.0f} times", file=sys.stderr)
    return slept


def beside(cores: int | None) -> int:
    with ThreadPoolExecutor(1) as pool:
        if cores:
            pool.submit(torch.set_num_threads, cores).result()
        pool.submit(lambda: float(image.mul(2).sum())).result()
        return measured("beside a thread that once computed" + (f" with {cores} core" if cores else ""))


work()
alone = measured("alone")
print("beside an idle thread that once computed, they sleep more than ten times as often:", beside(None) > 10 * (alone + 30))
print("where it computed with one core:", beside(1) > 10 * (alone + 30))
PY
)
echo "$shown"
[ "$shown" = "beside an idle thread that once computed, they sleep more than ten times as often: True
where it computed with one core: False" ] || { echo "changed" >&2; exit 1; }
