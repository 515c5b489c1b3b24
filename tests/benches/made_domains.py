"""Made domains to judge adapting by: 24 blurry photographs without twins, and 16 pairs that are only scored on.

python tests/benches/made_domains.py PHOTOS NAMES OUT

writes OUT/DOMAIN/train, OUT/DOMAIN/test/blurry and OUT/DOMAIN/test/sharp from PHOTOS, without those listed in the text
file NAMES, and the kernels `(k, k)` of the test pairs by name to OUT/DOMAIN/test/kernels.safetensors.
No photograph is in both parts. Photographs are taken in linear light (sRGB), with noise and JPEG.
"""

import argparse
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


def aberrated(generator: Generator) -> Tensor:
    """The same for every photograph: an ellipse in a wide halo."""
    return 0.75 * ellipse(2.4, 1.2, 0.6) + 0.25 * disc(torch.tensor([8.0]), SIZE)[0]


def astigmatic(generator: Generator) -> Tensor:
    """The same for every photograph: a soft cross, of a lens between its two foci, in a halo."""
    return normalize(0.45 * ellipse(4, 0.8, 0.5) + 0.3 * ellipse(2.5, 0.8, 2.07) + 0.25 * ellipse(5, 5, 0))


def comatic(generator: Generator) -> Tensor:
    """The same for every photograph: discs that grow as they move, the first the brightest (coma)."""
    rows, columns = grid(SIZE)
    tail = [
        (4 - step) * (0.8 * step + 1.5 - torch.hypot(rows + step, columns - 1.6 * step)).clamp(0, 1) / (step + 1)
        for step in range(4)
    ]
    return centre(normalize(sum(tail))[None])[0]


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
    "aberrated-lens": Made(aberrated, 2e-3),
    "comatic-lens": Made(comatic, 2e-3),
    "elliptic-lens": Made(lambda g: ellipse(2.6, 1.0, 1.1), 2e-3),
    "astigmatic-lens": Made(astigmatic, 2e-3),
    "defocused-lens": Made(lambda g: disc(torch.tensor([4.0]), SIZE)[0], 2e-3),
}


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


def make(photographs: Path, names: Path, out: Path, domains: list[str] | None = None) -> None:
    """Write these domains, by default all."""
    excluded = set(names.read_text().split())
    paths = [path for path in list_images(photographs) if path.name not in excluded]
    paths = [path for path in paths if min(read_image(path).size) >= SIDE + SIZE - 1]
    for number, (name, made) in enumerate(DOMAINS.items()):
        if domains and name not in domains:
            continue
        chosen = torch.randperm(len(paths), generator=seeded(number))[: TRAIN + TEST].tolist()
        kernels = {}
        for index, place in enumerate(chosen):
            path = paths[place]
            blurry, sharp, kernel = photograph(path, made, seeded(number, index))
            if index < TRAIN:
                save_image(to_image(blurry), out / name / "train" / f"{path.stem}.png")
            else:
                save_image(to_image(blurry), out / name / "test/blurry" / f"{path.stem}.png")
                save_image(to_image(sharp), out / name / "test/sharp" / f"{path.stem}.png")
                kernels[path.stem] = kernel.contiguous()
        save_file(kernels, out / name / "test/kernels.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for argument in ("photographs", "names", "out"):
        parser.add_argument(argument, type=Path)
    parser.add_argument("--domains", nargs="*", choices=DOMAINS, help="by default all")
    make(**vars(parser.parse_args()))
