"""BD-Diff beside other methods on one set of photographs, in one run: every figure is of `bd-diff eval`.

    python tests/benches/public_test_set.py public
    python tests/benches/bench_peers.py public --out runs/peers

The blurry images are written once. What is no method of `bd-diff eval` restores these files into a folder of results,
which is scored like the others: the unsharp mask, and MAXIM where `--maxim` names its Python and its model. CPU seconds
and peak memory are of that method's own process, one thread each, for all images and the start; of a method of `bd-diff
eval` without the seconds that `input` takes, which only starts and scores. Run again after a stop, or with `--maxim`
added, it keeps what is done.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from bd_diff.evaluation.card_tables import IDENTICAL, comparison, read_card
from bd_diff.training.run_settings import keep_settings

ASSETS = Path(__file__).parents[2] / "assets"
METHODS = {  # title: arguments of `bd-diff eval`
    "BD-Diff": ["bd-diff-tiny"],
    "BD-Diff --fast": ["bd-diff-tiny", "--fast"],
    "BD-Diff, true kernel": ["bd-diff-tiny", "--fast", "--true-kernel"],
    "U-ResNet": [str(ASSETS / "uresnet")],
    "AdaRevD, small": [str(ASSETS / "adarevd")],
    "Wiener, true kernel": ["wiener"],
    "Wiener, estimated kernel": ["wiener", "--kernel-from", "bd-diff-tiny"],
    "Richardson-Lucy, true kernel": ["richardson-lucy"],
    "Richardson-Lucy, estimated kernel": ["richardson-lucy", "--kernel-from", "bd-diff-tiny"],
}


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


def restore(python: str, script: str, blurry: Path, out: Path, *more: str) -> Cost:
    """Restore every image below `blurry` into the same place below `out`, by a script beside this one."""
    return run([python, str(Path(__file__).with_name(script)), str(blurry), str(out), *more])


def bench(photographs: Path, out: Path, protocol: str, seed: int, maxim: list[str] | None) -> dict[str, Cost]:
    """Cards of all methods in `out/cards`, and what each cost.

    Raises `ValueError` where MAXIM's files are missing, and for an `out` of other photographs, protocol or seed.
    """
    if missing := [name for name in maxim or [] if not Path(name).exists()]:
        raise ValueError(f"--maxim: {' and '.join(missing)} do not exist; run_maxim.py says how to make them")
    out.mkdir(parents=True, exist_ok=True)
    keep_settings(out, {"photographs": str(photographs.resolve()), "--protocol": protocol, "--seed": seed})
    given = ["--data", str(photographs), "--protocol", protocol, "--seed", str(seed)]
    given += ["--metric", "psnr_registered", "--overwrite"]
    evaluate = [sys.executable, "-m", "bd_diff", "eval"]
    cards = out / "cards"
    blurry = cards / "input" / "images"

    def measured(title: str, work: Callable[[], Cost]) -> Cost:
        """What the work cost, done now or by an earlier run on the same images."""
        kept = out / "costs" / f"{title}.json"
        if kept.exists():
            return Cost(**json.loads(kept.read_text()))
        print(title, flush=True)
        cost = work()
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(vars(cost)))
        return cost

    def score(entry: str, title: str, *more: str) -> Cost:
        return run([*evaluate, entry, *more, *given, "--out", str(cards / title)])

    def restore_and_score(title: str, python: str, script: str, *more: str) -> Cost:
        cost = restore(python, script, blurry, out / title, *more)
        score(str(out / title), title)
        return cost

    costs = {"input": measured("input", lambda: score("input", "input", "--save-images"))}
    for title, (entry, *more) in METHODS.items():
        cost = measured(title, partial(score, entry, title, *more))
        spent = max(0.0, cost.seconds - costs["input"].seconds)  # a difference of two runs, of which none is exact
        costs[title] = Cost(spent, cost.memory)
    others: dict[str, tuple[str, ...]] = {"unsharp mask": (sys.executable, "run_unsharp_mask.py")}
    if maxim:
        others["MAXIM"] = (maxim[0], "run_maxim.py", "--model", maxim[1])
    for title, arguments in others.items():
        costs[title] = measured(title, partial(restore_and_score, title, *arguments))
    return costs


def table(cards: Path, costs: dict[str, Cost]) -> str:
    """All methods as a Markdown table: by kind of blur the gain in dB, plain and registered, and the worst photograph's
    plain gain; what is left of a sharp photograph in dB; the cost.
    """
    read = {title: read_card(cards / title) for title in costs}
    comparison(list(read.values()))  # refuses cards of different images
    groups = {group: before for group, before in read["input"]["results"].items() if group != "all"}
    lines = ["| | " + " | ".join(groups) + " | CPU s/image | peak MiB |", "|---" * (len(groups) + 3) + "|"]
    for title, card in read.items():
        cells = []
        for group, before in groups.items():
            after, worst = card["results"][group], card["results"][group]["worst"]
            if before["psnr"] >= IDENTICAL:
                cells.append(f"{after['psnr']:.1f} dB, worst {worst['psnr']:.1f}" if title != "input" else "")
            elif title == "input":
                cells.append(f"{before['psnr']:.2f} dB")
            else:
                registered = after["psnr_registered"] - before["psnr_registered"]
                cells.append(f"{after['gain']:+.2f}, {registered:+.2f}, worst {worst['gain']:+.2f}")
        cost = costs[title]
        spent = f"{cost.seconds / card['data']['images']:.2f} | {cost.memory:.0f}" if title != "input" else " | "
        lines.append(f"| {title} | {' | '.join(cells)} | {spent} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder of sharp photographs")
    parser.add_argument("--out", type=Path, required=True, help="a folder for results, cards, table.md and costs.csv")
    parser.add_argument("--protocol", default="blur-families", help="blur-families, or one of its cameras")
    parser.add_argument("--seed", type=int, default=0, help="of kernels and noise")
    parser.add_argument("--maxim", nargs=2, metavar=("PYTHON", "MODEL"), help="see run_maxim.py")
    options = parser.parse_args()
    try:
        found = bench(options.photographs, options.out, options.protocol, options.seed, options.maxim)
        made = table(options.out / "cards", found)
    except ValueError as error:
        sys.exit(str(error))
    with (options.out / "costs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "CPU seconds, all images and start", "peak MiB"))
        writer.writerows((title, f"{cost.seconds:.1f}", f"{cost.memory:.0f}") for title, cost in found.items())
    (options.out / "table.md").write_text(made + "\n", encoding="utf-8")
    print(made)
