"""AdaRevD's depth: PSNR of every head, beside other models of any kind (a plain decoder of equal size, a NAFNet).

    python tests/benches/bench_adarevd_depth.py PHOTOGRAPHS [--names FILE] [--size 256] [--limit 40] MODEL [MODEL ...]

MODELs are folders that train/adarevd.py left. Each photograph is blurred by the project's families; figures are dB.
"""

import argparse
from functools import partial
from itertools import islice

import torch
from tqdm import tqdm

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.data.photographs import Photographs
from bd_diff.evaluation.evaluate import TABLE_FAMILIES, family_pairs
from bd_diff.evaluation.metrics import psnr
from bd_diff.restore import load


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--names")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--limit", type=int, default=40)
    given = parser.parse_args()
    pairs = family_pairs(list(islice(Photographs(given.photographs, only=given.names), given.limit)), size=given.size)

    def show(name: str, restore) -> None:
        figures = {family: [] for family in TABLE_FAMILIES}
        for pair in tqdm(pairs, desc=name, leave=False):
            restored = restore(pair.blurry[None]).clamp(0, 1)
            figures[pair.family].append(psnr(restored, pair.sharp[None]).item())
        print(f"{name:44}" + "".join(f"{sum(found) / len(found):10.2f}" for found in figures.values()), flush=True)

    print(f"{len(pairs)} images".ljust(44) + "".join(f"{family:>10}" for family in TABLE_FAMILIES))
    show("blurry input", lambda images: images)
    for path in given.models:
        network = load(path, device="cpu").network
        size = sum(parameter.numel() for parameter in network.parameters())
        if isinstance(network, AdaRevD):
            for depth in range(1, network.depth + 1):
                show(f"{path} ({size:,}), depth {depth}", partial(at_depth, network, depth))
        else:
            show(f"{path} ({size:,})", network)


def at_depth(network: AdaRevD, depth: int, images: torch.Tensor) -> torch.Tensor:
    return network.restore(images, depth=depth).images


if __name__ == "__main__":
    main()
