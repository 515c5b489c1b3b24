"""What was found of the blur, in words."""

import torch

from bd_diff.blur.kernels import delta, gaussian, line
from bd_diff.reading.verdict import DOUBT, NOTHING, WIDE, extents, verdict


def test_extents_are_width_and_height_of_what_shows():
    kernel = torch.zeros(33, 33)
    kernel[10, 5:17] = 1.0
    kernel[2, 2] = 0.01
    assert extents(kernel / kernel.sum()) == (12, 1) and extents(kernel.mT) == (1, 12)


def test_each_kind_of_blur_has_its_words():
    level = line(torch.tensor([9.0]), torch.tensor([0.0]))[0]
    assert verdict(level) == "blur of 9 x 1 pixels"
    assert verdict(level, differs=True) == "blur differs over the picture, 9 x 1 pixels in the middle"
    assert verdict(delta(1)[0], differs=True) == "blur differs over the picture, none in the middle"
    soft = gaussian(torch.tensor([0.35]))[0]  # 0.93 of it in one pixel
    assert verdict(delta(1)[0]) == NOTHING != verdict(soft) and verdict(level, doubtful=True) == DOUBT
    assert verdict(torch.full((33, 33), 1 / 33**2)) == WIDE
    assert verdict(gaussian(torch.tensor([1.0]))[0]) == "blur of 5 x 5 pixels"
