"""What moved by itself before a camera that shook is found with a kernel of its own, and nothing else is."""

from types import SimpleNamespace

import pytest
import torch

from bd_diff.blur.kernels import blur, delta, shake
from bd_diff.data.procedural import procedural_image
from bd_diff.reading import own_blur
from bd_diff.reading.confidence import distances
from bd_diff.reading.own_blur import find_thing, kernels_in, largest, unlikely

SHAKE, OWN = (shake(torch.tensor([14.0]), torch.Generator().manual_seed(seed)) for seed in (0, 3))


@pytest.fixture(scope="module")
def scene():
    """A photograph `(1, 3, 320, 320)` in [0, 1] in which something moved by itself at the right."""
    sharp = procedural_image(320, torch.Generator().manual_seed(0), "leaves")[None]
    images = blur(sharp, SHAKE)
    images[..., 176:] = blur(sharp, OWN)[..., 176:]
    return images


def at_the_right(columns):
    """A map `(1, 20, 20)` of cells that is 1 in so many columns at the right."""
    cells = torch.zeros(1, 20, 20)
    cells[..., 20 - columns :] = 1
    return cells


def test_a_thing_is_found_with_its_kernel_and_its_place(shipped, scene):
    thing = find_thing(shipped, scene, SHAKE, at_the_right(7))
    assert thing is not None and float(distances(OWN, thing.kernel)) < 0.02
    assert thing.cells[:, 13:].float().mean() > 0.9 and thing.cells[:, :9].float().mean() < 0.1


@pytest.mark.parametrize("unlike", ["small", "wrong"])
def test_a_kernel_of_a_small_place_or_like_its_copies_is_not_believed(shipped, scene, monkeypatch, unlike):
    monkeypatch.setattr(own_blur, "kernels_in", lambda *given: OWN)
    assert find_thing(shipped, scene, SHAKE, at_the_right(7)) is not None
    monkeypatch.setattr(own_blur, *(("LEAST", 400) if unlike == "small" else ("RIGHT", 0.5)))
    assert find_thing(shipped, scene, SHAKE, at_the_right(7)) is None


def test_where_the_kernel_of_the_background_holds_nothing_is_searched(scene):
    assert find_thing(SimpleNamespace(), scene, SHAKE, torch.zeros(1, 20, 20)) is None


def test_what_has_the_blur_of_the_background_is_no_thing(shipped, scene):
    everywhere = blur(procedural_image(320, torch.Generator().manual_seed(0), "leaves")[None], SHAKE)
    assert find_thing(shipped, everywhere, SHAKE, at_the_right(7)) is None


@pytest.mark.parametrize("cells", [(0, 3), (8, 11), (17, 20), (0, 20)])
def test_the_search_sees_a_window_around_the_cells(shipped, monkeypatch, cells):
    seen = []

    def search(light, where):
        seen.extend((light, where))
        return delta(1)[None]

    monkeypatch.setattr(own_blur, "search_kernels", search)
    monkeypatch.setattr(own_blur, "refine", lambda pipeline, window, kernels, *given, **named: kernels)
    mask = torch.zeros(20, 28, dtype=torch.bool)
    mask[cells[0] : cells[1], 4:9] = True
    assert kernels_in(shipped, torch.rand(1, 3, 320, 448), mask).shape == (3, 33, 33)
    light, where = seen
    assert light.shape == where.shape and min(light.shape[-2:]) >= 192 and where.sum() == 256 * mask.sum()


def test_what_is_searched_is_the_largest_part_or_where_the_kernel_holds_least():
    elsewhere = at_the_right(6)
    elsewhere[:, :4, :4] = 1.0
    assert torch.equal(unlikely(elsewhere), at_the_right(6)[0] > 0)
    elsewhere = torch.zeros(1, 20, 28)
    elsewhere[:, 5:12, 9:16] = 0.3
    assert torch.equal(unlikely(elsewhere), elsewhere[0] > 0)
    assert not unlikely(elsewhere / 2).any()


def test_the_largest_part_is_kept():
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1]], dtype=torch.bool)
    assert largest(mask).tolist() == [[False, False, False, True]] * 3
    assert not largest(torch.zeros(2, 2, dtype=torch.bool)).any()
