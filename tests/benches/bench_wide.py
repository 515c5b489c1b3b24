"""Wide shakes on photographs set side by side: gain with the blur found, beside that by the true kernel.

python tests/benches/bench_wide.py PHOTOS NAMES --extent 40 --side 500 --count 8
"""

import argparse
import time
from pathlib import Path

import torch

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import blur, shake
from bd_diff.data.images import listed_images, read_image, to_tensor
from bd_diff.evaluation.metrics import REGISTERED_SHIFT, psnr, psnr_registered

TILE = 224, 300  # pixels of each photograph, rows and columns


def mosaic(paths: list[Path], rows: int, columns: int, first: int) -> torch.Tensor:
    """Middles of photographs side by side, `(1, 3, rows * 224, columns * 300)`, from photograph number `first` on."""
    middles = []
    number = first
    while len(middles) < rows * columns:
        image = to_tensor(read_image(paths[number % len(paths)]))
        number += 1
        top, left = (image.shape[1] - TILE[0]) // 2, (image.shape[2] - TILE[1]) // 2
        if top >= 0 and left >= 0:
            middles.append(image[:, top : top + TILE[0], left : left + TILE[1]])
    lines = [torch.cat(middles[row * columns : (row + 1) * columns], 2) for row in range(rows)]
    return torch.cat(lines, 1)[None]


def psnr_at_best_shift(a: torch.Tensor, b: torch.Tensor, side: int = 768) -> torch.Tensor:
    """`psnr_registered` of large images: all shifts are compared in the middle `side` pixels, and the four best of them
    over all pixels.
    """
    reach, (height, width) = REGISTERED_SHIFT, a.shape[-2:]
    high, wide = (min(length - 2 * reach, side) for length in (height, width))
    top, left = (height - high) // 2, (width - wide) // 2
    middle, near = b[..., top : top + high, left : left + wide], a[..., top - reach :, left - reach :]
    shifts = [(down, right) for down in range(2 * reach + 1) for right in range(2 * reach + 1)]
    errors = [
        float((near[..., down : down + high, right : right + wide] - middle).square().mean()) for down, right in shifts
    ]
    inside = b[..., reach:-reach, reach:-reach]
    best = sorted(range(len(shifts)), key=errors.__getitem__)[:4]
    return torch.stack(
        [
            psnr(a[..., down : down + inside.shape[-2], right : right + inside.shape[-1]], inside)
            for down, right in (shifts[index] for index in best)
        ]
    ).amax(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("names", type=Path, help="a text file with the names of those to use")
    parser.add_argument("--extent", type=float, default=40, help="of the shake, pixels")
    parser.add_argument("--height", type=int, default=500)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--count", type=int, default=8)
    given = parser.parse_args()
    paths, size = listed_images(given.photographs, given.names), 129 if given.extent > 30 else 33
    pipe = BDDiffPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    gains = []
    for index in range(given.count):
        rows, columns = (
            -(-(side + size) // tile) for side, tile in zip((given.height, given.width), TILE, strict=True)
        )
        generator = torch.Generator().manual_seed(index)
        wide = mosaic(paths, rows, columns, 7 * index)[..., : given.height + size - 1, : given.width + size - 1]
        kernels = shake(torch.tensor([given.extent]), generator, size)
        blurry = blur(wide, kernels, "valid")
        blurry = (blurry + torch.randn(blurry.shape, generator=generator) / 255).clamp(0, 1)
        blurry = (blurry * 255).round() / 255
        sharp = wide[..., size // 2 : -(size // 2), size // 2 : -(size // 2)]
        if index == 0:  # the short way to the best shift finds what the long one finds
            crops = [one[..., :500, :500] for one in (blurry, sharp)]
            assert torch.equal(psnr_at_best_shift(*crops, side=200), psnr_registered(*crops))
        before, seconds = float(psnr_at_best_shift(blurry, sharp)), time.perf_counter()
        found = pipe(blurry, output_type="pt", generator=torch.Generator().manual_seed(0))
        seconds = time.perf_counter() - seconds
        true = pipe(blurry, output_type="pt", generator=torch.Generator().manual_seed(0), kernels=kernels)
        gains.append([float(psnr_at_best_shift(one.images, sharp)) - before for one in (found, true)])
        print(
            f"{index}: {before:.2f} dB, {gains[-1][0]:+.2f} ({found.blur[0]}), true kernel {gains[-1][1]:+.2f}, "
            f"{seconds:.1f} s",
            flush=True,
        )
    mean = torch.tensor(gains).mean(0)
    print(f"mean {mean[0]:+.2f}, worst {min(gain for gain, _ in gains):+.2f}, true kernel {mean[1]:+.2f}")


if __name__ == "__main__":
    main()
