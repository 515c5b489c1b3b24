"""Which signs of a good result follow the truth: signs against true gain of models on made domains, in default mode.

python tests/benches/made_domains.py PHOTOS NAMES OUT
python tests/benches/bench_judge.py OUT [NAME=MODEL ...] --count 8

Beside the models that are named (NAME is what the table calls it; {domain} in MODEL is the name of
each domain) it judges the one that ships, harmed in ways that
adapting may harm. What each of them made is kept in OUT/judged, so that a second run only compares.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor

from bd_diff import BDDiffPipeline
from bd_diff.adaptation import signs
from bd_diff.blur.kernels import same_size
from bd_diff.data.crops import seeded
from bd_diff.data.images import list_images, read_image, to_tensor
from bd_diff.evaluation.metrics import psnr_registered

SIDE = 224  # pixels of the middle that are judged
SHIPPED = "shipped"
HARMS = "UNet shaken", "reader shaken", "photograph hardly counts", "no search"


def middle(path: Path) -> Tensor:
    """The middle of a photograph, `(1, 3, SIDE, SIDE)` in [0, 1]."""
    image = to_tensor(read_image(path))
    image = image / 255 if image.dtype == torch.uint8 else image.float()
    top, left = ((side - SIDE) // 2 for side in image.shape[1:])
    return image[None, :, top : top + SIDE, left : left + SIDE]


def shaken(network: torch.nn.Module, share: float) -> None:
    """Change every weight by noise of that share of its tensor's deviation."""
    generator = seeded(7)
    for weight in network.parameters():
        if weight.ndim > 1:
            weight.data += share * weight.data.std() * torch.randn(weight.shape, generator=generator)


def harmed() -> dict[str, BDDiffPipeline]:
    """The model that ships, and what may become of it."""
    found = {name: BDDiffPipeline.from_pretrained() for name in (SHIPPED, *HARMS)}
    shaken(found["UNet shaken"].unet, 0.3)
    shaken(found["reader shaken"].blur_decoder, 0.3)
    shaken(found["reader shaken"].blur_qformer, 0.3)
    found["photograph hardly counts"].register_to_config(consistency=1.0)
    found["no search"].register_to_config(search=False)
    return found


def made_by(pipeline: BDDiffPipeline, blurry: Tensor, **given) -> tuple[Tensor, Tensor]:
    """The result `(1, 3, H, W)` and the kernel `(1, k, k)` of one photograph in default mode."""
    output = pipeline(blurry, output_type="pt", generator=torch.Generator().manual_seed(0), **given)
    return output.images, output.kernels


def run(pipeline: BDDiffPipeline, folder: Path, count: int) -> dict[str, Tensor]:
    """What a model makes of the pairs in a folder."""
    found: dict[str, list[Tensor]] = {"results": [], "kernels": [], "elsewhere": [], "gain": []}
    for path in list_images(folder / "blurry")[:count]:
        blurry, truth = middle(path), middle(folder / "sharp" / path.name)
        result, kernel = made_by(pipeline, blurry)
        half = SIDE // 2
        quarters = blurry.unfold(2, half, half).unfold(3, half, half).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        found["elsewhere"].append(pipeline.read_blur(quarters * 2 - 1).kernels[None])
        found["gain"].append(psnr_registered(result, truth) - psnr_registered(blurry, truth))
        found["results"].append(result)
        found["kernels"].append(kernel)
    found["kernels"] = same_size(found["kernels"])
    return {name: torch.cat(values).float().contiguous() for name, values in found.items()}


def judged(made: dict[str, Tensor], folder: Path) -> dict[str, list[float]]:
    """All signs of all photographs; lower is better."""
    rows: dict[str, list[float]] = {}
    for index, path in enumerate(list_images(folder / "blurry")[: len(made["results"])]):
        blurry, result, kernel = middle(path), made["results"][index, None], made["kernels"][index, None]
        row = {
            "kernel unexplained": signs.unexplained(blurry, kernel),
            "photograph contradicted": signs.contradicted(blurry, result, kernel),
            "unsharp": signs.unsharp(result),
            "ringing": signs.ringing(blurry, result),
            "score: first + third": signs.score(blurry, result, kernel),
            "windows disagree": signs.disagreement(kernel, made["elsewhere"][index]),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domains", type=Path)
    parser.add_argument("models", nargs="*", help="NAME=FOLDER")
    parser.add_argument("--count", type=int, default=8, help="pairs of each domain")
    parser.add_argument("--harms", nargs="*", default=HARMS, choices=HARMS, help="ways of harming, by default all")
    parser.add_argument("--cached", action="store_true", help="compare what earlier runs made, and make nothing")
    given = parser.parse_args()
    damaged = {name: model for name, model in harmed().items() if name in (SHIPPED, *given.harms)}
    models: dict = {SHIPPED: damaged.pop(SHIPPED)} | dict(one.split("=", 1) for one in given.models) | damaged
    points: list[dict] = []
    for folder in sorted(given.domains.glob("*/test")):
        domain, before = folder.parent.name, {}
        for name, model in models.items():
            path = given.domains / "judged" / domain / f"{name.replace(' ', '-')}.safetensors"
            if given.cached and not path.exists():
                continue
            if not path.exists():
                named = isinstance(model, str)
                pipeline = BDDiffPipeline.from_pretrained(model.format(domain=domain)) if named else model
                pipeline.set_progress_bar_config(disable=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file(run(pipeline, folder, given.count), path)
            made = load_file(path)
            row = judged(made, folder)
            if name == SHIPPED:
                before = {"made": made, "row": row}
                print(f"\n{domain}: {SHIPPED} {made['gain'].mean():+.2f} dB", flush=True)
                continue
            less = {sign: [b - a for a, b in zip(row[sign], before["row"][sign], strict=True)] for sign in row}
            gains = (made["gain"] - before["made"]["gain"]).tolist()
            points.append({"domain": domain, "model": name, "gains": gains, "signs": less})
            told = ", ".join(f"{sign} {sum(values) / len(values):+.3f}" for sign, values in less.items())
            print(f"{name:<26}{sum(gains) / len(gains):+.2f} dB   {told}", flush=True)
    (given.domains / "judged/points.json").write_text(json.dumps(points))
    print(f"\n{len(points)} comparisons; Spearman's rank correlation with the gain, of means and of photographs")
    for sign in points[0]["signs"]:
        means = [[sum(values) / len(values) for values in (p["gains"], p["signs"][sign])] for p in points]
        single = [pair for p in points for pair in zip(p["gains"], p["signs"][sign], strict=True)]
        whole, each = (spearmanr(*zip(*pairs, strict=True)).statistic for pairs in (means, single))
        right = [math.copysign(1, g) == math.copysign(1, s) for g, s in means if abs(g) > 0.05]
        print(f"{sign:<26}{whole:>6.2f}{each:>8.2f}   right about the sign of the gain: {sum(right)} of {len(right)}")


if __name__ == "__main__":
    main()
