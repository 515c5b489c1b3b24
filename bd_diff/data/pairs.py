"""Samples whose blurry and sharp images are both there."""

from dataclasses import dataclass

from torch import Tensor

from bd_diff.data.folders import Sample


@dataclass(frozen=True)
class Pair(Sample):
    """A sample with both images, `(3, H, W)` in [0, 1]."""

    blurry: Tensor
    sharp: Tensor


def as_pair(sample: Sample) -> Pair:
    """The sample as a pair; `ValueError` where one of its images is missing."""
    blurry, sharp = sample.blurry, sample.sharp
    if blurry is None or sharp is None:
        raise ValueError(f"{sample.name} has no {'blurry' if blurry is None else 'sharp'} image")
    return Pair(sample.name, blurry, sharp, sample.group, sample.kernel)
