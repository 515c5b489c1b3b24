"""Photographs with 16 bits per colour, which Pillow cannot hold."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

MODES = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}  # channels: what Pillow might call it


@dataclass
class DeepImage:
    """An upright photograph of 16 bits per colour: `levels` `(H, W, C)` uint16, C grey and alpha, RGB, or RGBA.

    `mode`, `size`, `width`, `height` and `info` (ICC profile and EXIF) are as of a PIL image.
    """

    levels: np.ndarray
    info: dict = field(default_factory=dict)

    @property
    def mode(self) -> str:
        return MODES[self.levels.shape[-1]]

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def width(self) -> int:
        return self.levels.shape[1]

    @property
    def height(self) -> int:
        return self.levels.shape[0]

    @property
    def colours(self) -> np.ndarray:
        """Levels without alpha `(H, W, 1 or 3)`."""
        return self.levels[..., : (self.levels.shape[-1] - 1) | 1]

    def with_colours(self, colours: np.ndarray) -> "DeepImage":
        """A copy with other colours `(H, W, 1 or 3)` and this image's alpha and metadata."""
        levels = np.concatenate([colours, self.levels[..., colours.shape[-1] :]], axis=-1)
        return DeepImage(np.ascontiguousarray(levels), dict(self.info))

    def to_pil(self) -> Image.Image:
        """The image at 8 bits per colour, which Pillow can hold."""
        image = Image.fromarray(((self.levels.astype(np.uint32) + 128) // 257).astype(np.uint8))
        image.info = {name: value for name, value in self.info.items()}
        return image

    def convert(self, mode: str) -> Image.Image:
        """The image as a PIL image of another mode."""
        return self.to_pil().convert(mode)


def from_levels(levels: np.ndarray, info: dict) -> Image.Image | DeepImage:
    """Levels `(H, W, C)` uint8 or uint16 as an image of mode L, LA, RGB, RGBA or I;16, or a `DeepImage`."""
    if levels.dtype == np.uint16 and levels.shape[-1] > 1:
        return DeepImage(levels, info)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    image.info = info
    return image
