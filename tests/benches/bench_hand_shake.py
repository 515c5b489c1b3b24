"""Hand-held shakes, whose paths are thick and smooth: registered gain with the blur found, and by the true kernel.

python tests/benches/bench_hand_shake.py PHOTOS NAMES

Middles of 256 pixels a side, noise 1/255, 8 bit, seed 0. NAMES: a file of the names of the photographs in PHOTOS. Told
is, too, how far the result by the true kernel is above the best of the Wiener images that the UNet is given.
"""

import argparse
from pathlib import Path

import torch

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import SIZE, blur
from bd_diff.blur.synthesis import draw_kernels
from bd_diff.data.images import read_image, to_tensor
from bd_diff.evaluation.evaluate import eight_bit
from bd_diff.evaluation.metrics import psnr, psnr_registered
from bd_diff.models.conditioning import deblur_guesses

SIDE = 256


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("names", type=Path)
    given = parser.parse_args()
    pipeline = BDDiffPipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    draws, rows = torch.Generator().manual_seed(0), []
    for name in given.names.read_text().split():
        sharp = to_tensor(read_image(given.photographs / name))[None]
        wide = SIDE + SIZE - 1
        top, left = (max(side - wide, 0) // 2 for side in sharp.shape[-2:])
        sharp = sharp[..., top : top + wide, left : left + wide]
        kernel, _ = draw_kernels(1, draws, {"hand_shake": 1.0})
        blurry = blur(sharp, kernel, mode="valid")
        blurry = eight_bit(blurry + torch.randn(blurry.shape, generator=draws) / 255)
        sharp = sharp[..., SIZE // 2 : -(SIZE // 2), SIZE // 2 : -(SIZE // 2)]
        results = [
            eight_bit(
                pipeline(blurry, kernels=kernels, generator=torch.Generator().manual_seed(0), output_type="pt").images
            )
            for kernels in (None, kernel)
        ]
        gains = [float(psnr_registered(one, sharp) - psnr_registered(blurry, sharp)) for one in results]
        wiener = (deblur_guesses(blurry * 2 - 1, kernel, linear_light=True)[0, 1:] / 2 + 0.5).clamp(0, 1)
        gains.append(float(psnr(results[1], sharp)) - max(float(psnr(one[None], sharp)) for one in wiener))
        rows.append(gains)
        print(f"{name}: {gains[0]:+.2f} dB, true kernel {gains[1]:+.2f}, {gains[2]:+.2f} over Wiener", flush=True)
    each = torch.tensor(rows)
    means, worst = each.mean(0), each.amin(0)
    print(
        f"mean {means[0]:+.2f}, worst {worst[0]:+.2f}; true kernel {means[1]:+.2f}, {worst[2]:+.2f} or more over Wiener"
    )


if __name__ == "__main__":
    main()
