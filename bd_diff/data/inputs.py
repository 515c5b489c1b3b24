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
    """One image or several as a list, for `to_batch`.

    Paths and PIL images become the `Part` of the upright photograph that a model gets; arrays (see `from_array`) and
    tensors `(..., 3, H, W)` become tensors. deblur: see `Part`. Raises `ValueError` for what cannot be read.
    """
    opened: list[Opened] = []
    for one in image if isinstance(image, (list, tuple)) else [image]:
        if isinstance(one, (str, os.PathLike)):
            opened.append(part_of(read_image(one), str(one), deblur))
        elif isinstance(one, Image.Image):
            opened.append(part_of(upright(one), getattr(one, "filename", "") or "the image", deblur))
        elif isinstance(one, np.ndarray):
            opened.append(from_array(one))
        else:
            opened.append(one)
    return opened


def from_array(array: np.ndarray) -> Tensor:
    """An array `(..., H, W, 3)` or, grey, `(H, W)`, floats in [0, 1] or uint8, as a tensor `(..., 3, H, W)` of floats.

    Raises `ValueError` for another type of number or another shape.
    """
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an array of {array.dtype} is no image; give uint8, or floating point values in [0, 1]")
    if not (array.ndim == 2 or array.ndim in (3, 4) and array.shape[-1] == 3):
        raise ValueError(f"an array of shape {array.shape} is no image; give (H, W, 3), (B, H, W, 3) or (H, W)")
    values = torch.from_numpy(np.ascontiguousarray(array))
    values = values / 255 if array.dtype == np.uint8 else values
    return values.expand(3, -1, -1) if array.ndim == 2 else values.movedim(-1, -3)


def to_array(batch: Tensor, like: np.ndarray) -> np.ndarray:
    """Results `(B, 3, H, W)` in [0, 1] as an array of the shape and the kind of numbers of `like`, see `from_array`."""
    values = batch.float().cpu()
    values = values[0].mean(0) if like.ndim == 2 else values.movedim(1, -1)
    array = (values if like.ndim != 3 else values[0]).numpy()
    return (array * 255).round().astype(np.uint8) if like.dtype == np.uint8 else array


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
            what = f"{tuple(one.shape)}" if isinstance(one, Tensor) else f"a {type(one).__name__}"
            raise ValueError(
                f"{name} is {what}; expected a path, a PIL image, an array (H, W, 3) or (H, W), or a tensor (3, H, W)"
            )
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
    """Results `(B, 3, H, W)` as whole photographs `(3, H, W)`: those of parts are put back into their photographs."""
    results = iter(batch)
    made = []
    for one in opened:
        if isinstance(one, Part):
            made.append(one.put_back(next(results)))
        else:
            made += [next(results) for _ in range(len(one) if one.ndim == 4 else 1)]
    return made


def staying(opened: list[Opened]) -> Tensor:
    """Which images of a batch stay as they are, whatever is made of them (`Part.unchanged`), as booleans `(B,)`."""
    stays: list[bool] = []
    for one in opened:
        stays += [one.unchanged] if isinstance(one, Part) else [False] * (len(one) if one.ndim == 4 else 1)
    return torch.tensor(stays)


def to_images(batch: Tensor, opened: list[Opened]) -> list[Image.Image]:
    """Results `(B, 3, H, W)` as PIL images, each of the mode of the image it was made from, RGB otherwise.

    Photographs of 16 bits per colour come back with 8 bits, since Pillow cannot hold more.
    """
    likes: list[Image.Image | None] = []
    for one in opened:
        if isinstance(one, Tensor):
            likes += [None] * (len(one) if one.ndim == 4 else 1)
        else:
            likes.append(one.photograph.to_pil() if isinstance(one.photograph, DeepImage) else one.photograph)
    return [to_image(pixels, like) for pixels, like in zip(whole(batch, opened), likes, strict=True)]
