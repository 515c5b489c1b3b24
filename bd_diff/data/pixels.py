"""The luminance of images."""

from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


def luminance(images: Tensor) -> Tensor:
    """BT.601 luma `(B, 1, H, W)` in [0, 1] of RGB images in [0, 1]; grey images pass."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor(LUMINANCE).reshape(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)
