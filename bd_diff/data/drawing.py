"""Pictures of blur kernels and maps, and sheets of captioned images side by side."""

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bd_diff.blur.kernels import grid, normalize
from bd_diff.data.deep import DeepImage


def draw_kernel(kernel: Tensor, side: int = 396) -> Image.Image:
    """A kernel `(k, k)` as a grey picture about `side` pixels a side, its largest value white."""
    levels = (kernel.clamp_min(0) / kernel.max().clamp_min(1e-8)).sqrt()  # sqrt: faint tails stay visible
    picture = Image.fromarray(levels.mul(255).round().byte().cpu().numpy())
    return picture.resize((side // kernel.shape[-1] * kernel.shape[-1],) * 2, Image.Resampling.NEAREST)


def kernel_shape(kernel: Tensor) -> tuple[float, float, float]:
    """Standard deviations of a kernel `(k, k)` along and across its main direction, in pixels, and that direction.

    The direction is in degrees from the horizontal, anticlockwise, in [0, 180).
    """
    rows, columns = grid(kernel.shape[-1], kernel.device)
    points = torch.stack([columns, -rows]).flatten(1).double()  # x to the right, y upwards
    weights = normalize(kernel.clamp_min(0)).flatten().double()
    offsets = points - (points * weights).sum(1, keepdim=True)
    spreads, directions = torch.linalg.eigh((offsets * weights) @ offsets.T)
    across, along = spreads.clamp_min(0).sqrt().tolist()
    x, y = directions[:, 1].tolist()
    return along, across, math.degrees(math.atan2(y, x)) % 180


def contact_sheet(rows: Sequence[Sequence[tuple[str, Image.Image | DeepImage]]], height: int = 320) -> Image.Image:
    """One picture of captioned images, a row for each list, every image `height` pixels high."""
    font, line, gap = ImageFont.load_default(16), 26, 8
    scaled = [
        [
            (caption, image.convert("RGB").resize((max(1, round(image.width * height / image.height)), height)))
            for caption, image in row
        ]
        for row in rows
    ]
    width = max(sum(image.width + gap for _, image in row) for row in scaled) + gap
    sheet = Image.new("RGB", (width, len(rows) * (height + line + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(scaled):
        left, top = gap, gap + number * (height + line + gap)
        for caption, image in row:
            pen.text((left, top + 3), caption, fill="black", font=font)
            sheet.paste(image, (left, top + line))
            left += image.width + gap
    return sheet


def colour_map(values: Tensor) -> Image.Image:
    """Values `(H, W)` as colours from black (0) through red and yellow to white (1 and above)."""
    heat = 3 * values.clamp(0, 1)
    colours = torch.stack([heat, heat - 1, heat - 2], -1).clamp(0, 1)
    return Image.fromarray(colours.mul(255).round().byte().cpu().numpy())
