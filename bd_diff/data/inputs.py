"""Whatever people pass as an image, or as several: paths, PIL images, arrays and tensors, and back to PIL."""

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bd_diff.data.deep import DeepImage
from bd_diff.data.images import read_image, to_image, to_tensor, upright
from bd_diff.data.part import Part

Opened = Part | Tensor


def open_images(image, deblur: bool = True) -> list[Opened]:
    """One image or several as a list: paths and PIL images, upright, as the parts of them that are deblurred, arrays
    `(..., H, W, 3)` and tensors `(..., 3, H, W)` as tensors. `deblur` as in `Part`. Raises `ValueError` for what
    cannot be read.
    """
    opened: list[Opened] = []
    for one in image if isinstance(image, (list, tuple)) else [image]:
        if isinstance(one, (str, os.PathLike)):
            opened.append(part_of(read_image(one), str(one), deblur))
        elif isinstance(one, Image.Image):
            opened.append(part_of(upright(one), getattr(one, "filename", "") or "the image", deblur))
        elif isinstance(one, np.ndarray) and one.ndim >= 3:
            opened.append(torch.from_numpy(np.ascontiguousarray(one)).movedim(-1, -3))
        else:
            opened.append(one)
    return opened


def part_of(photograph: Image.Image | DeepImage, name: str = "the photograph", deblur: bool = True) -> Part:
    """The part of a photograph from `read_image` that a model gets (see `Part`)."""
    return Part(photograph, to_tensor(photograph), name, deblur)


def to_batch(opened: list[Opened], name: str = "image", smallest: int = 1) -> Tensor:
    """Images from `open_images` as one batch `(B, 3, H, W)` float32 in [0, 1].

    Raises `ValueError`, calling the argument `name`, for a wrong shape, type or range, a side below `smallest` pixels,
    and sizes that differ.
    """
    if not opened:
        raise ValueError(f"{name} is an empty list")
    batches = [one.pixels if isinstance(one, Part) else one for one in opened]
    for one in batches:
        if not isinstance(one, Tensor) or one.ndim not in (3, 4) or one.shape[-3] != 3:
            shape = tuple(one.shape) if hasattr(one, "shape") else type(one).__name__
            raise ValueError(f"{name} is {shape}; expected a PIL image, a path, (H, W, 3) or (3, H, W)")
        if not one.is_floating_point():
            raise ValueError(f"{name} has type {one.dtype}; expected floating point values in [0, 1]")
        if min(one.shape[-2:]) < smallest:
            size = "x".join(map(str, one.shape[-2:]))
            raise ValueError(f"{name} is {size} pixels; both sides must be at least {smallest}")
        low, high = one.aminmax()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{name} has values in [{low:.3g}, {high:.3g}]; expected [0, 1]")
    if len(sizes := {one.shape[-2:] for one in batches}) > 1:
        listed = ", ".join("x".join(map(str, size)) for size in sorted(sizes))
        raise ValueError(f"{name} holds images of sizes {listed}; call once per size")
    device = batches[0].device
    batches = [one.reshape(-1, *one.shape[-3:]).to(device, torch.float32) for one in batches]
    return batches[0] if len(batches) == 1 else torch.cat(batches)


def hidden_in(opened: list[Opened]) -> Tensor | None:
    """What of the batch is not photograph but a fill, a mask `(B, 1, H, W)`; None where nothing is."""
    masks = []
    for one in opened:
        none = torch.zeros(1, dtype=torch.bool)
        masks.append(one.kept[None] > 0.5 if isinstance(one, Part) else none.expand(one[..., :1, :, :].shape))
    batch = torch.cat([mask.reshape(-1, *mask.shape[-3:]).cpu() for mask in masks])
    return batch if batch.any() else None


def whole(batch: Tensor, opened: list[Opened]) -> list[Tensor]:
    """Results `(B, 3, H, W)` as whole photographs `(3, H, W)`: those of parts are put back into their surroundings."""
    results = iter(batch)
    made = []
    for one in opened:
        if isinstance(one, Part):
            made.append(one.put_back(next(results)))
        else:
            made += [next(results) for _ in range(len(one) if one.ndim == 4 else 1)]
    return made


def to_images(batch: Tensor, opened: list[Opened]) -> list[Image.Image]:
    """Results `(B, 3, H, W)` as PIL images, each of the mode of the image it was made from, RGB otherwise.

    Those of 16 bit per colour have 8 bit: Pillow cannot hold more.
    """
    likes: list[Image.Image | None] = []
    for one in opened:
        if isinstance(one, Tensor):
            likes += [None] * (len(one) if one.ndim == 4 else 1)
        else:
            likes.append(one.photograph.to_pil() if isinstance(one.photograph, DeepImage) else one.photograph)
    return [to_image(pixels, like) for pixels, like in zip(whole(batch, opened), likes, strict=True)]
