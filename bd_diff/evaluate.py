"""Any restorer on any cases under any protocol, one row an image; and the cases of the project's own table."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from bd_diff.blur.camera import add_noise
from bd_diff.blur.kernels import SIZE, blur
from bd_diff.blur.synthesis import Blur
from bd_diff.models.blur_operator import extend
from bd_diff.protocols import eight_bit

TABLE_FAMILIES = {"gaussian": 1.8, "line": 13.0, "shake": 16.0, "sharp": 0.0}  # sigma, length, extent in pixels
TABLE_NOISE = 1 / 255


class FamilyPair(NamedTuple):
    """A synthetic case: sharp and blurry `(3, H, W)` in [0, 1] at 8 bit, and the kernel `(k, k)` between them."""

    family: str
    sharp: Tensor
    blurry: Tensor
    kernel: Tensor


def family_pairs(images: Sequence[Tensor], seed: int = 0, size: int = 256) -> list[FamilyPair]:
    """The cases of the protocol `blur-families`: each image under each family, the images of one family together.

    `images` are `(3, H, W)`, uint8 or floats in [0, 1]. Of each the centre, `size` pixels a side (or the whole side,
    where it is shorter), is blurred: Gaussian of sigma 1.8, linear motion over 13 pixels at a random angle, a random
    camera shake of 16 pixels; noise of sigma 1/255; 8 bit. The blur sees up to 16 pixels around the crop, so its
    border is real where the photograph goes on (reflected where it ends). Family `sharp` is the crop itself, untouched.

    Case (family, image i) depends on the seed, the family and i, not on how many images there are.
    """
    return [
        family_pair(family, image, seed=(seed * 1000 + order) * 100_000 + index, size=size)
        for order, family in enumerate(TABLE_FAMILIES)
        for index, image in enumerate(images)
    ]


def family_pair(family: str, image: Tensor, seed: int, size: int) -> FamilyPair:
    """One case of `family_pairs`."""
    image = (image / 255 if image.dtype == torch.uint8 else image.float()).cpu()
    window = centre_window(image, size, margin=SIZE // 2)
    sharp = eight_bit(window[..., SIZE // 2 : -(SIZE // 2), SIZE // 2 : -(SIZE // 2)])
    if family == "sharp":
        return FamilyPair(family, sharp, sharp, Blur("delta").kernel())
    generator = Generator().manual_seed(seed)
    angle = math.pi * float(torch.rand((), generator=generator))
    path_seed = int(torch.randint(2**31, (), generator=generator))
    kernel = Blur(family, TABLE_FAMILIES[family], angle, path_seed).kernel()
    blurred = blur(window[None], kernel[None], mode="valid")
    return FamilyPair(family, sharp, eight_bit(add_noise(blurred, 0.0, TABLE_NOISE, generator)[0]), kernel)


def centre_window(image: Tensor, size: int, margin: int) -> Tensor:
    """The centre of `(3, H, W)`, up to `size` a side, with `margin` pixels around it, reflected beyond the image."""
    height, width = (min(side, size) for side in image.shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    around = extend(image[None], margin, margin, margin, margin)[0]
    return around[..., top : top + height + 2 * margin, left : left + width + 2 * margin]
