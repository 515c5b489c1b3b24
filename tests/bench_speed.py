"""Seconds the shipped model takes for a 512x512 photograph, after loading: `python tests/bench_speed.py`."""

import statistics
import time
from pathlib import Path

import torch

from bd_diff import BDDiffPipeline
from bd_diff.data.images import read_image, to_tensor

ASSETS = Path(__file__).parents[1] / "assets"

if __name__ == "__main__":
    pipe = BDDiffPipeline.from_pretrained(ASSETS / "bd-diff-tiny")
    pipe.set_progress_bar_config(disable=True)
    photograph = to_tensor(read_image(ASSETS / "samples/blurry/kwentar_180_HONOR-10_M.jpg"))[None, :, :512, :512]
    for fast in (False, True):
        seconds = []
        for _ in range(6):
            begin = time.perf_counter()
            pipe(photograph, fast=fast)
            seconds.append(time.perf_counter() - begin)
        counted = sorted(seconds[1:])  # the first warms up
        print(
            f"{'fast' if fast else 'default':8} {statistics.median(counted):.2f} s "
            f"({counted[0]:.2f} to {counted[-1]:.2f}, {torch.get_num_threads()} threads)"
        )
