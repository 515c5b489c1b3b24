"""Procedural sharp images: dead leaves with natural statistics, text and straight edges."""

import math
import string

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor
from torch.utils.data import Dataset

SCALE = 2  # drawn at twice the size and averaged down, so that edges are as soft as a camera's
SHARES = {"leaves": 0.6, "text": 0.2, "edges": 0.2}


def procedural_image(size: int, generator: Generator, kind: str | None = None) -> Tensor:
    """A sharp image `(3, size, size)`, float32 in [0, 1] at 8 bit; `generator` is on the CPU.

    `kind` is leaves, text or edges; by default one is drawn (60, 20 and 20 %). Raises `ValueError` for another kind.
    """
    kinds = {"leaves": dead_leaves, "text": text, "edges": edges}
    if kind is None:
        kind = list(SHARES)[int(torch.multinomial(torch.tensor(list(SHARES.values())), 1, generator=generator))]
    if kind not in kinds:
        raise ValueError(f"there is no procedural image {kind!r}; the kinds are {', '.join(kinds)}")
    canvas = Image.new("RGB", (SCALE * size, SCALE * size))
    kinds[kind](canvas, generator)
    pixels = torch.frombuffer(bytearray(canvas.reduce(SCALE).tobytes()), dtype=torch.uint8)
    image = pixels.reshape(size, size, 3).permute(2, 0, 1).float() / 255
    if kind == "leaves":
        image = (image * texture(size, generator)).clamp(0, 1)
    return (image * 255).round() / 255


class ProceduralImages(Dataset):
    """Sample i is `{"sharp": (3, size, size)}`, a pure function of the seed and i."""

    def __init__(self, size: int, seed: int = 0):
        self.size, self.seed = size, seed

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = Generator().manual_seed((self.seed * 1_000_003 + index) % 2**63)
        return {"sharp": procedural_image(self.size, generator)}


def uniform(generator: Generator, *ranges: tuple[float, float]) -> list[float]:
    """One number from each range."""
    shares = torch.rand(len(ranges), generator=generator).tolist()
    return [low + share * (high - low) for share, (low, high) in zip(shares, ranges, strict=True)]


def colour(generator: Generator) -> tuple[int, int, int]:
    """A colour: any brightness, mostly little saturation, as in photographs."""
    brightness, saturation = uniform(generator, (0.03, 0.97), (0.0, 1.0))
    tint = torch.randn(3, generator=generator) * 0.35 * saturation**2
    red, green, blue = (int(255 * min(max(brightness * math.exp(t), 0), 1)) for t in tint.tolist())
    return red, green, blue


def dead_leaves(canvas: Image.Image, generator: Generator) -> None:
    """Opaque shapes thrown on each other until nothing else shows (Matheron; Lee, Mumford and Huang 2001).

    Radii fall off as 1 / r^3, which gives the scale invariance, and with it the 1/f amplitude spectrum, of photographs.
    """
    side = canvas.width
    draw = ImageDraw.Draw(canvas)
    canvas.paste(colour(generator), (0, 0, side, side))
    smallest, largest = 3.0 * SCALE, side / 2
    mean_area = 0.7 * 2 * math.pi * smallest**2 * math.log(largest / smallest)
    leaves = int(3 * side**2 / mean_area)  # every point is covered three times on average: e^-3 = 5 % stay ground
    shares = torch.rand(leaves, generator=generator, dtype=torch.float64)
    radii = (smallest**-2 + shares * (largest**-2 - smallest**-2)) ** -0.5  # inverse of the distribution of 1 / r^3
    for radius in radii.tolist():
        x, y, turn, flat, corners = uniform(generator, (0, side), (0, side), (0, 2 * math.pi), (0.4, 1), (-4, 9))
        steps = 24 if corners < 3 else int(corners)  # more than half are ellipses, the others polygons
        points = [(radius * math.cos(a), flat * radius * math.sin(a)) for a in around(steps)]
        c, s = math.cos(turn), math.sin(turn)
        draw.polygon([(x + c * u - s * v, y + s * u + c * v) for u, v in points], colour(generator))


def around(steps: int) -> list[float]:
    """Angles evenly round the circle."""
    return [2 * math.pi * step / steps for step in range(steps)]


def texture(size: int, generator: Generator) -> Tensor:
    """A factor `(1, size, size)` about 1 with an amplitude spectrum of 1/f: shading and grain on the leaves."""
    rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
    frequency = torch.hypot(rows, columns).clamp_min(1 / size)
    spectrum = torch.fft.rfft2(torch.randn(size, size, generator=generator)) / frequency
    noise = torch.fft.irfft2(spectrum, s=(size, size))
    strength = uniform(generator, (0.05, 0.2))[0]
    return torch.exp(strength * (noise - noise.mean()) / noise.std().clamp_min(1e-6))[None]


def text(canvas: Image.Image, generator: Generator) -> None:
    """Lines of random letters of several sizes on a plain ground."""
    side = canvas.width
    draw = ImageDraw.Draw(canvas)
    canvas.paste(colour(generator), (0, 0, side, side))
    letters = string.ascii_letters + string.digits + "      .,:!?"
    top = 0.0
    while top < side:
        height, left = uniform(generator, (10 * SCALE, 40 * SCALE), (-side / 4, side / 8))
        chosen = torch.randint(len(letters), (side // int(height / 3) + 8,), generator=generator).tolist()
        line = "".join(letters[i] for i in chosen)
        draw.text((left, top), line, fill=colour(generator), font=ImageFont.load_default(height))
        top += 1.2 * height


def edges(canvas: Image.Image, generator: Generator) -> None:
    """Straight edges in every direction: half planes, bars and thin lines, some crossing the whole image."""
    side = canvas.width
    draw = ImageDraw.Draw(canvas)
    canvas.paste(colour(generator), (0, 0, side, side))
    for _ in range(12):
        x, y, angle, width = uniform(generator, (0, side), (0, side), (0, 2 * math.pi), (math.log(2), math.log(side)))
        across, length = math.exp(width), uniform(generator, (side / 8, 2 * side))[0]
        dx, dy = math.cos(angle), math.sin(angle)
        corners = [(0, 0), (length, 0), (length, across), (0, across)]
        draw.polygon(
            [(x + along * dx - over * dy, y + along * dy + over * dx) for along, over in corners], colour(generator)
        )
