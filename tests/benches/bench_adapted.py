"""What `bd-diff adapt` gained on made domains: on pairs that are only scored on, in default mode and fast.

python tests/benches/made_domains.py PHOTOS NAMES OUT --draw 1
for domain in OUT/*; do bd-diff adapt --target $domain/train --out ADAPTED/$(basename $domain); done
python tests/benches/bench_adapted.py OUT ADAPTED [--count 8] [--control MODEL]

Of each domain that was adapted to: what was kept, and gain in dB of the model that ships, of the adapted one (where it
was rejected, of the last one of the training), of the one that ships given the true kernel, and of two controls: one
that was adapted to the domain before (a wrong target), and MODEL, trained as long without any photograph of the target.
"""

import argparse
import json
from pathlib import Path

import torch
from bench_lens import gains

from bd_diff import BDDiffPipeline


def model(folder: Path | None = None) -> BDDiffPipeline:
    """The model in a folder, by default the one that ships."""
    pipeline = BDDiffPipeline.from_pretrained(*([folder] if folder else []))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def told(values: torch.Tensor, shipped: torch.Tensor) -> str:
    """Mean gain, and what it is above the shipped model's: mean, standard error and worst."""
    less = values - shipped
    error = less.std() / len(less) ** 0.5
    return f"{values.mean():+.2f} ({less.mean():+.2f} +- {error:.2f}, worst {less.min():+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("adapted", type=Path)
    parser.add_argument("--count", type=int, default=8, help="pairs of each domain")
    parser.add_argument("--domains", nargs="*", help="by default all that are adapted to")
    parser.add_argument("--control", type=Path, help="folder of a model that was trained without the target")
    given = parser.parse_args()
    before: Path | None = None
    for name in given.domains or sorted(path.parent.name for path in given.adapted.glob("*/report.json")):
        test, home = given.folder / name / "test", given.adapted / name
        report = json.loads((home / "report.json").read_text())
        print(f"{name}: {report['judged']['kept'] or 'rejected'}, {report['steps']} steps", flush=True)
        for fast in (False, True):
            shipped = gains(model(), test, given.count, fast=fast)
            row = f"    {'fast' if fast else 'default'}: shipped {shipped.mean():+.2f}"
            made, called = ("pipeline", "adapted") if report["judged"]["kept"] else ("last", "rejected")
            row += f"; {called} {told(gains(model(home / made), test, given.count, fast=fast), shipped)}"
            if before is not None and not fast:
                row += f"; adapted to another {told(gains(model(before), test, given.count), shipped)}"
            if given.control is not None:
                row += f"; control {told(gains(model(given.control), test, given.count, fast=fast), shipped)}"
            if not fast:
                row += f"; true kernel {told(gains(model(), test, given.count, kernels=True), shipped)}"
            print(row, flush=True)
        before = home / "pipeline" if report["judged"]["kept"] else before


if __name__ == "__main__":
    main()
