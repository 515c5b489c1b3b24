"""Made domains to judge adapting by: 24 blurry photographs without twins, and 16 pairs that are only scored on.

python tests/benches/made_domains.py PHOTOS NAMES OUT [--draw N]

writes OUT/DOMAIN/train, OUT/DOMAIN/test/blurry and OUT/DOMAIN/test/sharp from PHOTOS, without those listed in the text
file NAMES, and the kernels `(k, k)` of the test pairs by name to OUT/DOMAIN/test/kernels.safetensors.
No photograph is in both parts. Photographs are taken in linear light (sRGB), with noise and JPEG.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

from bd_diff.adaptation.domain_gap import TRAINED_ON
from bd_diff.blur.camera import Camera
from bd_diff.blur.kernels import blur, centre, disc, gaussian, grid, line, normalize, shake
from bd_diff.blur.synthesis import draw_kernels
from bd_diff.data.crops import draw, seeded
from bd_diff.data.images import list_images, read_image, save_image, to_image, to_tensor

SIDE, SIZE = 256, 41  # pixels a side of photographs and of kernels
TRAIN, TEST = 24, 16  # photographs


def between(low: float, high: float, generator: Generator) -> Tensor:
    """A number `(1,)`, evenly drawn."""
    return low + (high - low) * torch.rand(1, generator=generator)


def ellipse(long: float, short: float, angle: float) -> Tensor:
    """A Gaussian `(k, k)` with these standard deviations along and across an angle in radians."""
    rows, columns = grid(SIZE)
    turn = torch.tensor(angle)
    along, across = columns * turn.cos() + rows * turn.sin(), rows * turn.cos() - columns * turn.sin()
    return normalize(torch.exp(-0.5 * ((along / long).square() + (across / short).square())))


def pulses(apart: Tensor, angle: Tensor, share: float, sigma: float = 0.7) -> Tensor:
    """Two soft points `(k, k)`, so many pixels apart; the second one has that share of the light."""
    rows, columns = grid(SIZE)
    half = torch.stack([apart * angle.sin(), apart * angle.cos()]) / 2
    points = [
        torch.exp(-((rows - side * half[0]).square() + (columns - side * half[1]).square()) / (2 * sigma**2))
        for side in (-1, 1)
    ]
    return centre(normalize((1 - share) * points[0] + share * points[1])[None])[0]


def thick_shake(generator: Generator) -> Tensor:
    """A long path with the width that real ones have."""
    path = shake(between(20, 28, generator), generator, SIZE)
    return normalize(blur(path[None], gaussian(between(0.8, 1.3, generator), 9), "replicate")[0, 0])


def aberrated(long: float, short: float, angle: float, halo: float, share: float) -> Tensor:
    """An ellipse in a wide halo: a disc of that radius, with that share of the light."""
    return (1 - share) * ellipse(long, short, angle) + share * disc(torch.tensor([halo]), SIZE)[0]


def astigmatic(arms: tuple[float, float], thick: float, angle: float, across: float, halo: float) -> Tensor:
    """A soft cross, of a lens between its two foci, in a halo; `angle` and `across` are those of its arms."""
    cross = 0.45 * ellipse(arms[0], thick, angle) + 0.3 * ellipse(arms[1], thick, across)
    return normalize(cross + 0.25 * ellipse(halo, halo, 0))


def comatic(radius: float, growth: float, down: float, right: float) -> Tensor:
    """Discs that grow by so many pixels as they move down and right by so many, the first the brightest (coma)."""
    rows, columns = grid(SIZE)
    tail = [
        (4 - step)
        * (growth * step + radius - torch.hypot(rows - step * down, columns - step * right)).clamp(0, 1)
        / (step + 1)
        for step in range(4)
    ]
    return centre(normalize(sum(tail))[None])[0]


def lenses(drawn: int) -> dict[str, Tensor]:
    """Kernels `(k, k)` of lenses, each the same for every photograph of its domain. The bounds of
    `bd_diff.adaptation.lens` and of the judge were chosen on those of number 0; others are drawn by their number.
    """
    if not drawn:
        return {
            "aberrated-lens": aberrated(2.4, 1.2, 0.6, halo=8.0, share=0.25),
            "comatic-lens": comatic(1.5, 0.8, down=-1.0, right=1.6),
            "elliptic-lens": ellipse(2.6, 1.0, 1.1),
            "astigmatic-lens": astigmatic((4.0, 2.5), 0.8, 0.5, 2.07, halo=5.0),
            "defocused-lens": disc(torch.tensor([4.0]), SIZE)[0],
        }
    generator = seeded(1000, drawn)

    def some(low: float, high: float) -> float:
        return float(between(low, high, generator))

    angles = [some(0, math.pi) for _ in range(3)]
    pace, way = some(1.4, 2.4), some(0, 2 * math.pi)
    return {
        "aberrated-lens": aberrated(some(1.8, 3.0), some(0.8, 1.5), angles[0], some(5, 10), some(0.15, 0.35)),
        "comatic-lens": comatic(some(1.2, 2.0), some(0.5, 1.0), pace * math.sin(way), pace * math.cos(way)),
        "elliptic-lens": ellipse(some(2.0, 3.4), some(0.7, 1.4), angles[1]),
        "astigmatic-lens": astigmatic(
            (some(3, 5), some(2, 3)), some(0.6, 1.0), angles[2], angles[2] + math.pi / 2, some(4, 6)
        ),
        "defocused-lens": disc(between(2.5, 5.5, generator), SIZE)[0],
    }


def of(families: dict[str, float]) -> Callable[[Generator], Tensor]:
    """Kernels of the families that models are trained on."""
    return lambda generator: draw_kernels(1, generator, families, size=SIZE)[0][0]


@dataclass(frozen=True)
class Made:
    """Kernels `(k, k)` and what the camera adds: standard deviation of the noise in light, quality of JPEG."""

    kernel: Callable[[Generator], Tensor]
    noise: float
    jpeg: int = 0


DOMAINS = {
    "home": Made(of({name: share for name, share in TRAINED_ON.items() if name != "delta"}), 1e-3),
    "long-shake": Made(thick_shake, 3e-3, 85),
    "ghost": Made(lambda g: pulses(between(6, 14, g), between(0, 3.14, g), 0.4), 2e-3),
    "defocus": Made(lambda g: disc(between(2.5, 6, g), SIZE)[0], 2e-3),
    "vehicle": Made(lambda g: line(between(8, 20, g), between(-0.2, 0.2, g), SIZE)[0], 2e-3, 90),
}


def domains(drawn: int) -> dict[str, Made]:
    """All domains, with the lenses of that number."""
    fixed = {name: Made(lambda g, kernel=kernel: kernel, 2e-3) for name, kernel in lenses(drawn).items()}
    return DOMAINS | fixed


def photograph(path: Path, made: Made, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A random window of a photograph, blurry and sharp `(3, SIDE, SIDE)` in [0, 1], and its kernel `(k, k)`."""
    image = to_tensor(read_image(path))
    image = image / 255 if image.dtype == torch.uint8 else image.float()
    wide = SIDE + SIZE - 1
    top, left = (draw(side - wide + 1, generator) for side in image.shape[1:])
    window, reach, kernel = image[:, top : top + wide, left : left + wide], SIZE // 2, made.kernel(generator)
    inside = (..., slice(reach, reach + SIDE), slice(reach, reach + SIDE))
    camera = Camera("srgb", read=made.noise, jpeg=made.jpeg)
    return camera.capture(window[None], kernel[None], generator)[0][inside], window[inside], kernel


def make(photographs: Path, names: Path, out: Path, chosen: list[str] | None = None, drawn: int = 0) -> None:
    """Write these domains, by default all; each number of `drawn` gives other lenses, kernels and photographs."""
    excluded = set(names.read_text().split())
    paths = [path for path in list_images(photographs) if path.name not in excluded]
    paths = [path for path in paths if min(read_image(path).size) >= SIDE + SIZE - 1]
    for number, (name, made) in enumerate(domains(drawn).items(), start=100 * drawn):
        if chosen and name not in chosen:
            continue
        places = torch.randperm(len(paths), generator=seeded(number))[: TRAIN + TEST].tolist()
        kernels = {}
        for index, place in enumerate(places):
            path = paths[place]
            blurry, sharp, kernel = photograph(path, made, seeded(number, index))
            if index < TRAIN:
                save_image(to_image(blurry), out / name / "train" / f"{path.stem}.png")
            else:
                save_image(to_image(blurry), out / name / "test/blurry" / f"{path.stem}.png")
                save_image(to_image(sharp), out / name / "test/sharp" / f"{path.stem}.png")
                kernels[path.stem] = kernel.clone(memory_format=torch.contiguous_format)
        save_file(kernels, out / name / "test/kernels.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for argument in ("photographs", "names", "out"):
        parser.add_argument(argument, type=Path)
    parser.add_argument("--domains", dest="chosen", nargs="*", choices=domains(0), help="by default all")
    parser.add_argument("--draw", dest="drawn", type=int, default=0, help="number of the drawn lenses and photographs")
    make(**vars(parser.parse_args()))
