"""Cameras that turned while they shook: gain where blur changes as smoothly over the photograph as theirs does.

python tests/benches/bench_turned.py PHOTOS NAMES --along 17

Photographs, paths and cameras are those of `bd-diff synth --domain rolling-shake`, seed 0. That blurs by 3 x 3 kernels
and fades between them, so that halfway every edge is seen twice. The more kernels along each side, the closer this
comes to what a camera averages; at 17, neighbours differ by about a pixel.
"""

import argparse
from pathlib import Path

import torch
from torch import Generator

from bd_diff import BDDiffPipeline
from bd_diff.blur.domains import DOMAINS
from bd_diff.data.images import listed_images, read_image, to_tensor
from bd_diff.evaluation.metrics import psnr, psnr_registered

DOMAIN = DOMAINS["rolling-shake"]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("names", type=Path, help="a text file with the names of those to use")
    parser.add_argument("--along", type=int, default=17, help="kernels along each side")
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), metavar=("FIRST", "EVERY"), help="FIRST, FIRST + EVERY, and so on"
    )
    given = parser.parse_args()
    first, every = given.part
    pipe = BDDiffPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    gains = []
    for index, path in enumerate(listed_images(given.photographs, given.names)):
        if index % every != first:
            continue
        generator = Generator().manual_seed(index)
        blur, camera = DOMAIN.draw(generator)
        noise = Generator().manual_seed(int(torch.randint(2**31, (), generator=generator)))
        sharp = to_tensor(read_image(path))[None]
        blurry = (camera.capture(sharp, blur.field(along=given.along)[None], noise) * 255).round() / 255
        output = pipe(blurry, output_type="pt", generator=Generator().manual_seed(0))
        gained = [float(one(output.images, sharp) - one(blurry, sharp)) for one in (psnr, psnr_registered)]
        gains.append(gained)
        words = ", registered ".join(f"{gain:+.2f}" for gain in gained)
        print(f"{path.stem}: {float(psnr(blurry, sharp)):.2f} dB, {words} ({output.blur[0]})", flush=True)
    for which, each in zip(("gain", "registered"), torch.tensor(gains).T, strict=True):
        print(f"{which}: mean {each.mean():+.2f}, worst {each.min():+.2f}")


if __name__ == "__main__":
    main()
