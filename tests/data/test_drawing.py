"""Kernels are drawn and measured as they are."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from bd_diff.blur.kernels import gaussian, line
from bd_diff.data.drawing import contact_sheet, draw_kernel, kernel_shape


def test_the_spread_of_a_gaussian_is_its_sigma():
    along, across, _ = kernel_shape(gaussian(torch.tensor([1.8]))[0])
    assert along == pytest.approx(1.8, abs=0.01) and across == pytest.approx(1.8, abs=0.01)


@pytest.mark.parametrize("degrees", [0, 30, 90, 150])
def test_the_direction_of_a_line_is_found_and_turns_anticlockwise(degrees):
    radians = torch.tensor([-math.radians(degrees)])  # rows point downwards
    along, across, angle = kernel_shape(line(torch.tensor([13.0]), radians)[0])
    assert min(abs(angle - degrees), 180 - abs(angle - degrees)) < 1
    assert along == pytest.approx(13 / math.sqrt(12), rel=0.1) and across < 0.5


def test_a_drawn_kernel_is_its_pixels_enlarged():
    kernel = torch.zeros(3, 3)
    kernel[0, 2] = 1
    picture = np.asarray(draw_kernel(kernel, side=30))
    assert picture.shape == (30, 30)
    assert (picture[:10, 20:] == 255).all() and picture.sum() == 100 * 255


def test_a_sheet_holds_every_image_of_every_row():
    red, blue = Image.new("RGB", (40, 20), "red"), Image.new("L", (20, 40), 0)
    sheet = np.asarray(contact_sheet([[("a", red), ("b", blue)], [("c", red)]], height=40))
    is_red = (sheet == [255, 0, 0]).all(-1)
    assert is_red.sum() == 2 * 80 * 40
