"""Peak memory of restoring one photograph by its size, in fresh processes: `python tests/benches/bench_memory.py`."""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

MODEL = Path(__file__).parents[2] / "assets" / "bd-diff-tiny"


def restore_one(model: str, side: int) -> None:
    """Print peak resident memory in MiB and seconds for a `side` x `side` image of smooth noise."""
    import torch

    from bd_diff.restore import load

    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, side // 4, side // 4), scale_factor=4, mode="bilinear")
    restorer = load(model)
    began = time.perf_counter()
    restorer(image)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024, 2048, 4096])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return restore_one(given.model, given.one)
    print(f"{'pixels':>12} {'peak MiB':>9} {'seconds':>8}")
    for side in given.sides:
        command = [sys.executable, __file__, "--model", given.model, "--one", str(side)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peak, seconds = map(float, output.split())
        print(f"{side:>7}x{side:<5} {peak:>8.0f} {seconds:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
