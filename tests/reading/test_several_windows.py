"""Windows of a large photograph that vote for its blur."""

import pytest
import torch

from bd_diff.blur.kernels import blur, delta, gaussian, line, shake
from bd_diff.data.procedural import procedural_image
from bd_diff.reading import pyramid, several_windows
from bd_diff.reading.blur_reading import BlurReading
from bd_diff.reading.pyramid import carry, kernel_of
from bd_diff.reading.several_windows import found_twice, search_windows, windows_of

RIGHT = shake(torch.tensor([13.0]), torch.Generator().manual_seed(6))
WRONG = line(torch.tensor([15.0, 15.0]), torch.tensor([0.1, 1.2])).split(1)


@pytest.fixture(scope="module")
def photograph():
    """A scene of 512 x 1536 pixels in [-1, 1], shaken: three windows."""
    parts = [procedural_image(512, torch.Generator().manual_seed(seed)) for seed in (3, 4, 5)]
    return blur(torch.cat(parts, 2)[None] * 2 - 1, RIGHT)


def reading(kernels, doubtful=False, confidence=0.9):
    return BlurReading(kernels, search_confidence=torch.tensor([confidence]), doubtful=torch.tensor([doubtful]))


def searched(monkeypatch, kernels):
    """The search finds these, one after another; a list of what it was asked."""
    asked, left = [], list(kernels)

    def search_blur(pipeline, pixels, free=None):
        asked.append((tuple(pixels.shape[-2:]), free))
        return reading(left.pop(0))

    monkeypatch.setattr(several_windows, "search_blur", search_blur)
    return asked


def similarity(one, other):
    return float(torch.nn.functional.cosine_similarity(one.flatten(1), other.flatten(1)))


def test_a_kernel_that_one_window_alone_sees_is_outvoted(photograph, monkeypatch):
    asked = searched(monkeypatch, [WRONG[0], RIGHT, WRONG[1]])
    found = search_windows(None, photograph, reading(gaussian(torch.tensor([4.0]))))
    assert torch.equal(found.kernels, RIGHT) and not found.doubtful
    assert [size for size, _ in asked] == [(512, 1536), (256, 256), (256, 256)]


def test_no_more_windows_are_searched_once_two_found_the_same(photograph, monkeypatch):
    near = blur(RIGHT[:, None], gaussian(torch.tensor([0.4])))[:, 0]
    asked = searched(monkeypatch, [RIGHT, near])
    found = search_windows(None, photograph, reading(gaussian(torch.tensor([4.0]))))
    assert len(asked) == 2 and similarity(found.kernels, RIGHT) > 0.9
    assert torch.allclose(found_twice([WRONG[0], RIGHT, near]), (RIGHT + near) / 2)
    assert found_twice([RIGHT, WRONG[0]]) is None and found_twice([RIGHT]) is None


def test_one_window_is_searched_in_small_photographs_and_where_the_free_reading_stands(photograph, monkeypatch):
    free = reading(gaussian(torch.tensor([2.0])))
    asked = searched(monkeypatch, [RIGHT, free.kernels])
    assert torch.equal(search_windows(None, photograph[..., :700], free).kernels, RIGHT)
    assert search_windows(None, photograph, free).kernels is free.kernels
    assert asked == [((512, 700), free), ((512, 1536), free)]


def test_windows_do_not_overlap_and_those_with_most_edges_come_first():
    image = torch.full((1, 3, 512, 1536), 0.5)
    for column, contrast in ((100, 0.1), (700, 0.5), (1200, 0.3)):
        image[..., 100:400, column : column + 200 : 8] += contrast
    places = [float(window.max()) for window in windows_of(image, 256)]
    assert places == pytest.approx([1.0, 0.8, 0.6])
    assert len(list(windows_of(torch.rand(1, 3, 2048, 2048), 256))) == several_windows.MOST
    assert [window.shape[-2:] for window in windows_of(torch.rand(1, 3, 200, 400), 256)] == [(200, 256)]


def test_a_window_that_spoils_the_kernel_on_its_way_up_is_outvoted(photograph, monkeypatch):
    refined = iter([WRONG[0], WRONG[1], WRONG[0], RIGHT])  # of two windows, twice each
    monkeypatch.setattr(pyramid, "refine", lambda pipeline, window, kernels, linear: next(refined))
    coarse = reading(delta(1, 17))
    assert torch.equal(kernel_of(carry(None, photograph, coarse, 0.5)), RIGHT)
