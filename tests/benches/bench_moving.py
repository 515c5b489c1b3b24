"""Things that move by themselves before backgrounds that shake, or stand still in every second scene.

python tests/benches/bench_moving.py PHOTOS NAMES --count 8 [--out FOLDER]

says what is gained in all of a scene (registered, since a result may lie a pixel beside the truth of mid-exposure), in
the thing and around it, and writes blurry, result and truth side by side.
"""

import argparse
from pathlib import Path

import torch

from bd_diff import BDDiffPipeline
from bd_diff.blur.camera import Camera
from bd_diff.blur.layers import expose, moving_thing, still
from bd_diff.data.images import listed_images, read_image, save_image, to_image, to_tensor
from bd_diff.evaluation.metrics import psnr, psnr_registered

SIDES = 320, 448  # pixels
CAMERA = Camera("srgb", read=5e-4)
WHERE = "in all", "not registered", "thing", "around"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("names", type=Path, help="a text file with the names of those to use")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    middles = []
    for path in listed_images(given.photographs, given.names):
        image = to_tensor(read_image(path))
        top, left = ((side - wanted) // 2 for side, wanted in zip((image.shape[1], image.shape[2]), SIDES, strict=True))
        if top >= 0 and left >= 0:
            middles.append(image[:, top : top + SIDES[0], left : left + SIDES[1]])
    pipe = BDDiffPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    gains = []
    for index in range(given.count):
        generator = torch.Generator().manual_seed(1000 + index)
        pair = (middles[(index + more) % len(middles)] for more in (0, 7))
        layers = moving_thing(*pair, generator, shaken=index % 2 == 0)
        sharp, blurry = still(layers)[None], (expose(layers, CAMERA, generator)[None] * 255).round() / 255
        output = pipe(blurry, output_type="pt", generator=torch.Generator().manual_seed(0))
        thing = layers[1].mask[None]
        parts = [torch.ones_like(thing), (thing == 1).to(thing), (thing == 0).to(thing)]
        gained = [psnr_registered(output.images, sharp) - psnr_registered(blurry, sharp)]
        gained += [psnr(output.images, sharp, part) - psnr(blurry, sharp, part) for part in parts]
        gains.append([float(gain) for gain in gained])
        words = ", ".join(f"{gain:+.2f} {where}" for gain, where in zip(gains[-1], WHERE, strict=True))
        print(f"{index}: {float(psnr(blurry, sharp)):.2f} dB, {words} ({output.blur[0]})", flush=True)
        if given.out:
            seen = torch.cat([blurry[0], output.images[0], sharp[0]], 2)
            save_image(to_image(seen), given.out / f"scene-{index}.png")
    for which, every in zip(WHERE, torch.tensor(gains).unbind(1), strict=True):
        print(f"{which}: mean {every.mean():+.2f}, worst {every.min():+.2f}")


if __name__ == "__main__":
    main()
