"""Values of images: floats, and luminance."""

import torch
from torch import Tensor

ROWS = 256  # of a large photograph at once, where copies of all of it would need much memory
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


def is_finite(images: Tensor) -> bool:
    """Whether images hold neither NaN nor infinite values; without a mask, which large ones have no memory for."""
    return not images.numel() or bool(torch.stack(images.aminmax()).isfinite().all())


def as_floats(image: Tensor) -> Tensor:
    """An image of uint8, or of floats in [0, 1], as float32 in [0, 1]."""
    return image / 255 if image.dtype == torch.uint8 else image.float()


def luminance(images: Tensor) -> Tensor:
    """BT.601 luma `(B, 1, H, W)` in [0, 1] of RGB images in [0, 1]; grey images pass."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor(LUMINANCE).reshape(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)
