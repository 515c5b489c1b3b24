"""BD-Diff beside other methods on one set of photographs, in one run: every figure is of `bd-diff eval`.

    python tests/benches/public_test_set.py public
    python tests/benches/bench_peers.py public --out runs/peers

The blurry images are written once. What is no method of `bd-diff eval` restores these files into a folder of results,
which is scored like the others: the unsharp mask here, and MAXIM by `run_maxim.py` where `--maxim` names its Python and
its model. Seconds and peak memory are of that method's own process, one thread each.
"""

import argparse
import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image, ImageFilter

METHODS = {  # title: arguments of `bd-diff eval`
    "input": ["input"],
    "BD-Diff": ["bd-diff-tiny"],
    "BD-Diff --fast": ["bd-diff-tiny", "--fast"],
    "Wiener, true kernel": ["wiener"],
    "Wiener, estimated kernel": ["wiener", "--kernel-from", "bd-diff-tiny"],
    "Richardson-Lucy, true kernel": ["richardson-lucy"],
    "Richardson-Lucy, estimated kernel": ["richardson-lucy", "--kernel-from", "bd-diff-tiny"],
}
UNSHARP = ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0)  # Pillow's defaults but for the threshold


@dataclass
class Cost:
    """CPU seconds and peak memory in MiB of a process and its children."""

    seconds: float
    memory: float


def run(command: list[str]) -> Cost:
    """Run a command to its end with one thread. Raises `ValueError` where it fails."""
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    watched, cost = psutil.Process(process.pid), Cost(0.0, 0.0)
    while process.poll() is None:
        try:
            members = [watched, *watched.children(recursive=True)]
            times = [member.cpu_times() for member in members]
            cost.seconds = max(cost.seconds, sum(time.user + time.system for time in times))
            cost.memory = max(cost.memory, sum(member.memory_info().rss for member in members) / 2**20)
        except psutil.NoSuchProcess:
            pass  # it ended meanwhile
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    if process.returncode:
        raise ValueError(f"{' '.join(command)} failed with exit code {process.returncode}")
    return cost


def unsharp_mask(blurry: Path, out: Path) -> Cost:
    """Restore every image below `blurry` into the same place below `out`."""
    before = sum(psutil.Process().cpu_times()[:2])
    for path in sorted(blurry.rglob("*.png")):
        (out / path.relative_to(blurry)).parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).filter(UNSHARP).save(out / path.relative_to(blurry))
    return Cost(sum(psutil.Process().cpu_times()[:2]) - before, psutil.Process().memory_info().rss / 2**20)


def bench(photographs: Path, out: Path, protocol: str, seed: int, maxim: list[str] | None) -> dict[str, Cost]:
    """Cards of all methods in `out/cards`, and what each cost."""
    given = ["--data", str(photographs), "--protocol", protocol, "--seed", str(seed)]
    given += ["--metric", "psnr_registered", "--overwrite"]
    evaluate = [sys.executable, "-m", "bd_diff", "eval"]
    cards, costs = out / "cards", {}
    for title, arguments in METHODS.items():
        keep = ["--save-images"] if title == "input" else []
        costs[title] = run([*evaluate, *arguments, *given, *keep, "--out", str(cards / title)])
    blurry = cards / "input" / "images"
    costs["unsharp mask"] = unsharp_mask(blurry, out / "unsharp mask")
    if maxim:
        python, model = maxim
        script = Path(__file__).with_name("run_maxim.py")
        costs["MAXIM"] = run([python, str(script), str(blurry), str(out / "MAXIM"), "--model", model])
    for title in ("unsharp mask", "MAXIM"):
        if title in costs:
            run([*evaluate, str(out / title), *given, "--out", str(cards / title)])
    return costs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder of sharp photographs")
    parser.add_argument("--out", type=Path, required=True, help="a folder for results, cards, table.md and costs.csv")
    parser.add_argument("--protocol", default="blur-families", help="blur-families, or one of its cameras")
    parser.add_argument("--seed", type=int, default=0, help="of kernels and noise")
    parser.add_argument("--maxim", nargs=2, metavar=("PYTHON", "MODEL"), help="see run_maxim.py")
    options = parser.parse_args()
    found = bench(options.photographs, options.out, options.protocol, options.seed, options.maxim)
    with (options.out / "costs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "CPU seconds, all images and start", "peak MiB"))
        writer.writerows((title, f"{cost.seconds:.1f}", f"{cost.memory:.0f}") for title, cost in found.items())
    folders = [str(options.out / "cards" / title) for title in found]
    table = ["compare", *folders, "--out", str(options.out / "table.md")]
    subprocess.run([sys.executable, "-m", "bd_diff", *table], check=True)
    print((options.out / "costs.csv").read_text())
