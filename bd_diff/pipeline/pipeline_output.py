"""What a call of `BDDiffPipeline` returns: images, and the blur that was found."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
from diffusers.utils import BaseOutput
from torch import Tensor

from bd_diff.reading.verdict import verdict


@dataclass(repr=False)
class BDDiffPipelineOutput(BaseOutput):
    """`images`: a list of PIL images, an array `(B, H, W, 3)` or a tensor `(B, 3, H, W)` in [0, 1], or latents.

    `kernels` `(B, k, k)`: the blur that was found, in the image or in `blur_image`; None without a blur decoder.
    `doubtful` `(B,)`: where the search found several that contradict each other; None where it did not run.
    `differs` `(B,)`: where blur differs over the image, and `kernels` hold the one at its middle; None likewise.
    """

    images: list[PIL.Image.Image] | np.ndarray | Tensor
    kernels: Tensor | None = None
    doubtful: Tensor | None = None
    differs: Tensor | None = None

    @property
    def blur(self) -> list[str] | None:
        """What was found of the blur, a few words an image (`bd_diff.reading.verdict`)."""
        if self.kernels is None:
            return None
        marks = (
            [False] * len(self.kernels) if mark is None else mark.tolist() for mark in (self.doubtful, self.differs)
        )
        return [verdict(*one) for one in zip(self.kernels, *marks, strict=True)]

    def __repr__(self) -> str:
        if isinstance(self.images, list):
            images = f"{len(self.images)} PIL"
        else:
            images = f"{type(self.images).__name__} {tuple(self.images.shape)}"
        kernels = None if self.kernels is None else tuple(self.kernels.shape)
        return f"{type(self).__name__}(images: {images}, kernels: {kernels})"
