"""Where the camera stood still, what is sharp stays, and what moved is deblurred by its own line."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.field import BlurField
from bd_diff.blur.kernels import blur, delta, gaussian, line
from bd_diff.evaluation.metrics import psnr
from bd_diff.reading import moving_things
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.moving_things import (
    LONG,
    LONGEST,
    MOST,
    WindowReadings,
    is_line,
    stood_still,
    unlikeness,
    with_moving_things,
)
from bd_diff.reading.verdict import NOTHING, is_nothing

LEVEL, UPRIGHT = (line(torch.tensor([13.0]), torch.tensor([angle])) for angle in (0.2, 1.77))


@pytest.fixture(scope="module")
def scene(leaves):
    """A sharp picture in whose left part something moved."""
    moved = leaves.clone()
    moved[..., :160] = blur(leaves, LEVEL)[..., :160]
    return moved


def reader(kernel_of_window):
    """A pipeline that reads a kernel in each window by its mean."""

    def read_blur(pixels):
        return BlurReading(torch.cat([kernel_of_window(float(one.mean())) for one in pixels]))

    return SimpleNamespace(read_blur=read_blur)


def test_a_camera_stood_still_where_windows_show_no_blur(shipped, leaves, scene):
    found = BlurReading(LEVEL)
    assert stood_still(shipped, scene, found) and stood_still(shipped, leaves, found)
    for kernels in (LEVEL, gaussian(torch.tensor([1.8]))):
        assert not stood_still(shipped, blur(leaves, kernels), found)
    assert not stood_still(shipped, leaves[..., :191], found)  # too small


def test_windows_that_show_nothing_do_not_say_that_the_camera_stood_still():
    picture = torch.full((1, 3, 320, 320), -0.9)
    picture[..., 160:] = torch.rand(1, 3, 320, 160, generator=torch.Generator().manual_seed(0))
    assert not WindowReadings.read(reader(lambda mean: delta(1) if mean < -0.8 else LEVEL), picture).still
    assert WindowReadings.read(reader(lambda mean: LEVEL if mean < -0.8 else delta(1)), picture).still


@pytest.mark.parametrize("shape", [(192, 192), (200, 3000), (3000, 4000)])
def test_windows_reach_all_borders_and_are_not_too_many(shape):
    windows = WindowReadings.read(reader(lambda mean: LEVEL), torch.zeros(1, 3, *shape))
    assert len(windows.corners) == len(windows.pixels) == len(windows.kernels) <= MOST**2
    for axis, side in enumerate(shape):
        starts = [corner[axis] for corner in windows.corners]
        assert (min(starts), max(starts)) == (0, side - moving_things.WINDOW)


def test_blur_is_looked_for_where_it_can_be_seen_and_softness_cannot(monkeypatch):
    seen = []
    monkeypatch.setattr(
        WindowReadings, "read", lambda pipeline, pixels: seen.append(pixels.shape[-1]) or SimpleNamespace(still=1)
    )
    pixels = torch.zeros(1, 3, 480, 480)
    wide = line(torch.tensor([15.0]), torch.tensor([0.2]))
    for kernels in (line(torch.tensor([7.0]), torch.tensor([0.2])), wide):
        stood_still(None, pixels, BlurReading(kernels, scale=torch.tensor([0.5])))
    assert seen == [480, 240]
    seen.clear()
    for sigma in (8.0, 2.0, 1.0):  # their standard deviations along both axes together are 1.4 times as large
        stood_still(None, torch.zeros(1, 3, 1920, 1920), BlurReading(gaussian(torch.tensor([sigma]), 65)))
    assert seen == [LONGEST, pytest.approx(1920 * LONG / (2 * 2**0.5), abs=20), 1920]


def test_what_moved_gets_its_line_and_what_stood_still_no_blur(shipped, scene, leaves):
    reading, field = with_moving_things(shipped, scene, BlurReading(delta(1), doubtful=torch.tensor([True])))
    assert isinstance(field, BlurField) and reading.doubtful is None and reading.scale == 1
    nothing, *lines = field.kernels
    assert is_nothing(nothing[None]) and lines and all(is_line(one) for one in lines)
    shares = field.shares_in(320, 320, slice(None), slice(None))
    assert torch.allclose(shares.sum(0), torch.ones(320, 320))
    assert shares[1:, :, :112].sum(0).mean() > 0.8 and shares[0, :, 224:].mean() > 0.98
    output = shipped((scene + 1) / 2, output_type="pt")
    better = psnr(output.images, (leaves + 1) / 2) - psnr((scene + 1) / 2, (leaves + 1) / 2)
    assert output.differs.all() and better > 2


@pytest.mark.parametrize("reading", [BlurReading(LEVEL), BlurReading(LEVEL, doubtful=torch.tensor([True]))])
def test_a_sharp_photograph_has_no_blur_whatever_was_read(shipped, leaves, reading):
    found, kernels = with_moving_things(shipped, leaves, reading)
    assert is_nothing(kernels).all() and torch.equal(found.kernels, kernels)
    assert found.doubtful is None and found.scale is None
    output = shipped((leaves + 1) / 2, output_type="pt")
    assert output.blur == [NOTHING] and torch.equal(output.images, (leaves + 1) / 2)


def test_a_line_explains_what_it_blurred_and_not_what_is_smooth_along_it(leaves):
    window = leaves[..., :128, :128]
    assert unlikeness(blur(leaves, LEVEL)[..., 96:224, 96:224], LEVEL) < 0.95
    assert unlikeness(window, LEVEL) > 1
    assert unlikeness(blur(leaves, LEVEL)[..., 96:224, 96:224], UPRIGHT) > 1


def test_lines_are_long_and_thin():
    assert is_line(LEVEL[0])
    for other in (delta(1), line(torch.tensor([5.0]), torch.tensor([0.2])), (LEVEL + UPRIGHT) / 2):
        assert not is_line(other[0])


def test_a_thing_that_two_windows_see_alike_is_one_and_the_surest_comes_first(monkeypatch):
    sure = {LEVEL: 0.9, UPRIGHT: 0.5}
    kernels = torch.cat([LEVEL, UPRIGHT, LEVEL, delta(1)])
    monkeypatch.setattr(
        moving_things,
        "unlikeness",
        lambda window, own: next(value for one, value in sure.items() if torch.equal(one, own)),
    )
    corners = [(0, 0), (0, 64), (64, 0), (64, 64)]
    first, second = moving_things.moving_things(WindowReadings(corners, torch.zeros(4, 3, 128, 128), kernels))
    assert (first.corners, second.corners) == ([(0, 64)], [(0, 0), (64, 0)])
