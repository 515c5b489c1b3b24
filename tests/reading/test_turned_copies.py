"""A kernel that is right explains a photograph better than its turned and mirrored copies do."""

import pytest
import torch

from bd_diff.blur.kernels import blur, delta, gaussian, line, shake
from bd_diff.data.procedural import procedural_image
from bd_diff.reading.turned_copies import CELL, RIGHT, against_copies, copies, left_where_sure

SHAKE, OTHER = (shake(torch.tensor([14.0]), torch.Generator().manual_seed(seed)) for seed in (0, 3))


@pytest.fixture(scope="module")
def sharp():
    return procedural_image(320, torch.Generator().manual_seed(0), "leaves").mean(0)[None, None]


def test_copies_are_all_turned_and_mirrored_ones_and_not_the_kernel():
    kernel = torch.arange(9.0).view(1, 3, 3)
    seen = {tuple(one.flatten().tolist()) for one in copies(kernel)}
    assert len(seen) == len(copies(kernel)) == 7 and tuple(kernel.flatten().tolist()) not in seen
    assert seen >= {tuple(one.flatten().tolist()) for one in (kernel.mT, kernel.flip(1), kernel.rot90(1, (1, 2)))}


def test_the_kernel_of_a_photograph_leaves_clearly_less_than_its_copies_and_another_one_does_not(sharp):
    blurry = blur(sharp, SHAKE)
    right, wrong = (left_where_sure(blurry, kernel) for kernel in (SHAKE, OTHER))
    assert right < 0.8 < RIGHT < wrong


def test_it_is_seen_where_the_kernel_holds(sharp):
    pixels = blur(sharp, SHAKE)
    pixels[..., 160:] = blur(sharp, OTHER)[..., 160:]
    share = against_copies(pixels, SHAKE)
    assert share.shape[-2:] == (320 // CELL, 320 // CELL)
    assert share[..., :7].median() < 0.85 and share[..., 13:].median() > 0.97


def test_several_windows_are_seen_together(sharp):
    # In float64: in float32 the L0 prior makes as much as 2e-4 of last bits, which depend on the machine.
    sharp, kernel, other = sharp.double(), SHAKE.double(), OTHER.double()
    windows = torch.cat([blur(sharp, kernel), blur(sharp, other)])
    both = against_copies(windows, kernel)
    for window, share in zip(windows.split(1), both.split(1), strict=True):
        assert torch.allclose(against_copies(window, kernel), share, atol=1e-6)


@pytest.mark.parametrize("kernel", [delta(1), gaussian(torch.tensor([1.8]))])
def test_nothing_is_known_of_a_kernel_that_is_like_its_copies(sharp, kernel):
    assert left_where_sure(blur(sharp, kernel), kernel) is None


def test_of_a_line_only_those_copies_count_that_are_unlike_it(sharp):
    level = line(torch.tensor([13.0]), torch.tensor([0.0]))
    assert left_where_sure(blur(sharp, level), level) < 0.8


def test_a_picture_of_one_colour_tells_nothing():
    share = left_where_sure(torch.full((1, 1, 320, 320), 0.5), SHAKE)
    assert share is not None and share > RIGHT
