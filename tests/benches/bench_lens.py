"""The kernel of a lens from a folder of its photographs: what it gains on pairs that are only scored on, default mode.

python tests/benches/made_domains.py PHOTOS NAMES OUT
python tests/benches/bench_lens.py OUT [--count 8] [--domains comatic-lens ghost]

Of each domain: whether its training photographs are of one lens, and if so what the judge says of its kernel on those
held out, as in `bd-diff adapt`; gain in dB of the model that ships, with that kernel, with the true kernel, and of a
control that knows the kernel of the lens before (a wrong target).
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from bd_diff import BDDiffPipeline
from bd_diff.adaptation.candidates import LENS, lens_of, with_lens
from bd_diff.adaptation.judge import judge
from bd_diff.adaptation.material import hold_out
from bd_diff.assets import asset
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.data.photographs import Photographs
from bd_diff.evaluation.metrics import psnr_registered


def gains(pipeline, folder: Path, count: int, kernels: bool = False, fast: bool = False) -> torch.Tensor:
    """Gain in dB PSNR over each of the first pairs of a folder; given their true kernels, or fast, if wanted."""
    known, found = load_file(folder / "kernels.safetensors"), []
    for path in list_images(folder / "blurry")[:count]:
        blurry, sharp = (to_tensor(read_image(one))[None] for one in (path, folder / "sharp" / path.name))
        generator = torch.Generator().manual_seed(0)
        given = {"kernels": known[path.stem]} if kernels else {"fast": fast}
        result = pipeline(blurry, output_type="pt", generator=generator, **given).images
        found.append(float(psnr_registered(result, sharp) - psnr_registered(blurry, sharp)))
    return torch.tensor(found)


def model(kernel: torch.Tensor | None = None) -> BDDiffPipeline:
    """The model that ships, with the kernel `(1, k, k)` of a lens if there is one."""
    pipeline = BDDiffPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline if kernel is None else with_lens(pipeline, kernel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--domains", nargs="*", help="by default all")
    parser.add_argument("--count", type=int, default=16, help="pairs of each domain")
    parser.add_argument("--judged", type=int, default=16, help="held-out photographs of each, at most")
    given = parser.parse_args()
    sharp, before = Photographs(asset("sharp")), None
    for name in given.domains or sorted(path.parent.name for path in given.folder.glob("*/test")):
        train, test, started = given.folder / name / "train", given.folder / name / "test", time.process_time()
        held_out = hold_out(train, 128, every=3)
        images = {path.name: to_tensor(read_image(path))[None] for path in list_images(train)}
        shipped = model()
        lens = lens_of(shipped, [image for key, image in images.items() if key not in held_out], sharp)
        told = f"unlike {lens.unlike:.4f}"
        kept = None
        if not lens.why_not:
            judgement = judge(
                shipped, {LENS: model(lens.kernel)}, [images[key] for key in held_out[: given.judged]], by_kernel=True
            )
            one, kept = judgement.compared[LENS], judgement.kept
            told += (
                f"; explained better by {one.better:.3f} +- {one.error:.3f}, {one.wins:.0%} of {judgement.photographs}"
            )
        print(
            f"{name}: {'lens kept' if kept else 'no lens'} ({told}; {time.process_time() - started:.0f} s)", flush=True
        )
        if lens.why_not:
            continue  # what training gives is not measured here
        first = gains(shipped, test, given.count)
        rows = {"lens": gains(model(lens.kernel), test, given.count)}
        rows["true kernel"] = gains(shipped, test, given.count, kernels=True)
        if before is not None:
            rows["lens of another domain"] = gains(model(before), test, given.count)
        before = lens.kernel if kept else before
        print(f"    shipped {first.mean():+.2f} dB", end="")
        for row, values in rows.items():
            less = values - first
            print(f"; {row} {values.mean():+.2f} ({less.mean():+.2f}, worst {less.min():+.2f})", end="")
        print(f", {len(first)} pairs", flush=True)


if __name__ == "__main__":
    main()
