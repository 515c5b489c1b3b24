"""Blur that differs over the photograph is read where it explains it better, and only there."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.camera import to_display, to_light
from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import blur, line
from bd_diff.blur.operator import wiener
from bd_diff.blur.synthesis import Blur
from bd_diff.data.procedural import procedural_image
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.confidence import distances
from bd_diff.reading.corner_search import ask_corners
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.differing_blur import Places, read_field

LEFT = line(torch.tensor([13.0]), torch.tensor([0.2]))


def reading_of(kernels, scale=None):
    sure = {"search_confidence": torch.ones(1), "doubtful": torch.tensor([False]), "linear": torch.tensor([True])}
    return BlurReading(kernels, scale=scale, **sure)


@pytest.fixture
def reader():
    """A pipeline that deblurs by Wiener deconvolution, and whose tokens lose nothing."""
    return SimpleNamespace(
        deblur_window=lambda pixels, kernels: wiener(pixels, kernels)[:, 1].clamp(-1, 1), tell=lambda reading: reading
    )


@pytest.fixture
def sharp():
    return procedural_image(300, torch.Generator().manual_seed(0), "leaves")[None] * 2 - 1


def test_blur_that_is_the_same_everywhere_stays_one_kernel(reader, sharp):
    pixels, reading = blur(sharp, LEFT), reading_of(LEFT)
    asked, differs = ask_corners(reader, pixels, reading)
    assert asked is reading and not differs
    for asked in (False, True):
        assert torch.equal(read_field(reader, pixels, reading, asked), LEFT)


def test_of_a_camera_that_turned_kernels_are_read_all_over_the_photograph(reader, sharp):
    rolled = Blur("shake", 14.0, seed=5, variation=0.8)
    pixels, kernel = (
        to_display(rolled.apply(to_light((sharp + 1) / 2, "srgb")), "srgb") * 2 - 1,
        rolled.kernel(33)[None],
    )
    field = read_field(reader, pixels, reading_of(kernel), True)
    assert isinstance(field, BlurField) and not isinstance(
        read_field(reader, pixels, reading_of(kernel), False), BlurField
    )
    shares = field.shares_in(300, 300, slice(None), slice(None))
    for row, column, true in ((20, 20, (0, 0)), (20, 280, (0, 2)), (280, 20, (2, 0)), (280, 280, (2, 2))):
        seen = (shares[:, row, column, None, None] * field.kernels).sum(0, keepdim=True)
        there = rolled.field(33)[true][None]
        assert distances(there, seen) < 0.4 * distances(there, kernel)
    shown = reading_of(kernel)
    shown.linear = torch.tensor([False])  # no camera averages display values
    assert torch.equal(read_field(reader, pixels, shown, True), kernel)


def test_nothing_is_computed_in_small_photographs_and_for_wide_kernels():
    wide = line(torch.tensor([60.0]), torch.tensor([0.2]), 65)
    for height, width, kernels in ((191, 400, LEFT), (256, 256, LEFT), (900, 400, wide)):
        assert read_field(None, torch.zeros(1, 3, height, width), reading_of(kernels), True) is kernels


def test_blur_in_doubt_or_without_a_shake_is_one_kernel_and_margins_do_not_count():
    doubted, no_shake = reading_of(LEFT), reading_of(LEFT)
    doubted.doubtful, no_shake.search_confidence = torch.tensor([True]), torch.zeros(1)
    for reading in (doubted, no_shake):
        assert read_field(None, torch.zeros(1, 3, 400, 400), reading, True) is LEFT
    wide = torch.nn.functional.pad(LEFT, (16,) * 4)
    assert torch.equal(read_field(None, torch.zeros(1, 3, 100, 100), reading_of(wide), True), LEFT)


def test_blur_is_read_at_the_scale_of_the_reading():
    assert read_field(None, torch.zeros(1, 3, 400, 400), reading_of(LEFT, torch.tensor([0.5])), True) is LEFT


@pytest.mark.parametrize("deviation", [0.0, 0.06])
def test_windows_are_smoothed_where_the_photograph_is_noisy(deviation):
    sharp = procedural_image(600, torch.Generator().manual_seed(0), "leaves")[None] * 2 - 1
    noise = torch.randn(sharp.shape, generator=torch.Generator().manual_seed(1))
    pixels, places = blur(sharp, LEFT) + deviation * noise, Places.over(600, 600)
    whole = places.cut(reduce_noise((pixels + 1) / 2), places.corners)
    windows, inside = places.quiet(pixels, places.corners), (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(windows[inside], whole[inside], atol=1e-6)
    assert torch.equal(windows, (places.cut(pixels, places.corners) + 1) / 2) == (deviation == 0)


@pytest.mark.parametrize(("height", "width"), [(300, 300), (321, 481), (3000, 4000)])
def test_windows_lie_inside_and_over_all_of_the_photograph(height, width):
    places = Places.over(height, width)
    where = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))[None].float()
    windows = places.cut(where, range(places.count))
    assert windows.shape == (places.count, 2, places.window, places.window)
    if max(height, width) < 1000:
        assert len(torch.unique(windows[:, 0] * width + windows[:, 1])) == height * width
    assert places.count <= 36 and len(places.corners) == 4
