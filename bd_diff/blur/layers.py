"""Scenes in which things move by themselves: layers that hide each other, averaged in linear light while they move.

No kernel, and no field of kernels, describes the border of a thing that moves before its background: what is behind it
shows for a part of the exposure. So the exposure is computed as cameras make it, instant by instant.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from bd_diff.blur import kernels
from bd_diff.blur.camera import Camera

INSTANTS = 48  # that an exposure is averaged over
WAVES = 4  # of the outline of a thing, see `outline`
AREA = 0.08, 0.3  # share of the image that a thing covers
SHAKE, RUN = (6.0, 18.0), (10.0, 26.0)  # extents in pixels of the camera's path, lengths of a thing's own


@dataclass(frozen=True)
class Layer:
    """An image `(3, H, W)` in [0, 1] that moves along a path `(2, n)`, rows and columns in pixels, n instants; it shows
    where its mask `(1, H, W)` in [0, 1] is.
    """

    image: Tensor
    mask: Tensor
    path: Tensor


def expose(layers: list[Layer], camera: Camera, generator: Generator) -> Tensor:
    """A photograph `(3, H, W)` in [0, 1] of layers, the farthest first, all with paths of equally many instants."""
    instants = layers[0].path.shape[1]
    lights = [camera.light(layer.image[None]) for layer in layers]
    total = torch.zeros_like(lights[0])
    for instant in range(instants):
        seen = torch.zeros_like(total)
        for layer, light in zip(layers, lights, strict=True):
            moved = shift(torch.cat([light, layer.mask[None]], 1), layer.path[:, instant])
            seen = seen.lerp(moved[:, :3], moved[:, 3:])
        total += seen / instants
    return camera.develop(total, generator)[0]


def still(layers: list[Layer]) -> Tensor:
    """The layers `(3, H, W)`, in [0, 1], as they are seen where nothing moves."""
    seen = torch.zeros_like(layers[0].image)
    for layer in layers:
        seen = seen.lerp(layer.image, layer.mask)
    return seen


def moving_thing(background: Tensor, thing: Tensor, generator: Generator, shaken: bool = True) -> list[Layer]:
    """Two layers of images `(3, H, W)` in [0, 1]: a background, and part of the other image that moves before it.

    Both move as the camera shakes (not at all unless `shaken`), the thing along a straight line, too. Paths are about
    their means, so that `still` is the truth. Raises ValueError for images of different sizes.
    """
    if background.shape != thing.shape:
        raise ValueError(f"background and thing are {tuple(background.shape)} and {tuple(thing.shape)}; give one size")
    extent, length, turn, area = torch.rand(4, generator=generator).tolist()
    shake = kernels.walk(torch.tensor([between(*SHAKE, extent)]), generator)[0]  # (2, n)
    camera = F.interpolate(shake[None], INSTANTS, mode="linear", align_corners=True)[0] * shaken
    direction = torch.tensor([math.sin(math.pi * turn), math.cos(math.pi * turn)])
    own = between(*RUN, length) * torch.linspace(-0.5, 0.5, INSTANTS) * direction[:, None]
    camera, own = (path - path.mean(1, keepdim=True) for path in (camera, own))
    height, width = background.shape[1:]
    mask = outline(height, width, between(*AREA, area), generator)
    return [Layer(background, torch.ones_like(mask), camera), Layer(thing, mask, camera + own)]


def outline(height: int, width: int, area: float, generator: Generator) -> Tensor:
    """The mask `(1, H, W)` of a round thing with bulges that covers about this share of the image; its edge falls over
    two pixels.
    """
    down, right, turn = torch.rand(3, generator=generator).tolist()
    swings = 0.25 * torch.randn(2, WAVES, generator=generator) / torch.arange(1, WAVES + 1)
    rows = torch.arange(height) - between(0.3, 0.7, down) * height
    columns = torch.arange(width) - between(0.3, 0.7, right) * width
    angle = torch.atan2(rows[:, None], columns) + 2 * math.pi * turn
    multiples = torch.arange(1, WAVES + 1).reshape(-1, 1, 1) * angle
    bulges = (swings[:, :, None, None] * torch.stack([multiples.cos(), multiples.sin()])).sum((0, 1))
    radius = math.sqrt(area * height * width / math.pi) * (1 + bulges).clamp_min(0.3)
    return ((radius - torch.hypot(rows[:, None], columns)) / 2 + 0.5).clamp(0, 1)[None]


def shift(images: Tensor, by: Tensor) -> Tensor:
    """Images `(B, C, H, W)` moved down and right by fractions of pixels `(2,)`, bilinearly; borders are repeated."""
    whole = by.floor()
    rows, columns = (by - whole).tolist()
    down, right = (int(one) for one in whole)
    far = max(abs(down), abs(right)) + 1
    padded = F.pad(images, (far,) * 4, mode="replicate")
    height, width = images.shape[-2:]

    def moved(down: int, right: int) -> Tensor:
        return padded[..., far - down : far - down + height, far - right : far - right + width]

    upper, lower = (moved(down + more, right).lerp(moved(down + more, right + 1), columns) for more in (0, 1))
    return upper.lerp(lower, rows)


def between(low: float, high: float, share: float) -> float:
    """The value at `share` of the way from `low` to `high`."""
    return low + share * (high - low)
