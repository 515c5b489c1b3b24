"""The project's own table: its cases, and what is measured on them."""

import pytest
import torch

from bd_diff import evaluate, metrics
from bd_diff.blur.kernels import blur


@pytest.fixture(scope="module")
def photographs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, shape, generator=generator).byte() for shape in [(3, 90, 100), (3, 60, 130)]]


def test_each_image_meets_each_family_and_the_sharp_one_is_untouched(photographs):
    cases = evaluate.family_pairs(photographs, seed=3, size=64)
    assert [case.family for case in cases] == [f for f in ("gaussian", "line", "shake", "sharp") for _ in range(2)]
    assert [tuple(case.sharp.shape) for case in cases[:2]] == [(3, 64, 64), (3, 60, 64)]
    assert torch.equal(cases[6].blurry, cases[6].sharp)
    assert torch.equal(cases[6].sharp, photographs[0][:, 13:77, 18:82] / 255)


def test_cases_are_their_kernels_applied_with_noise_at_eight_bit(photographs):
    sharp, blurry, kernel = evaluate.family_pairs(photographs, size=64)[4][1:]
    inside = slice(16, -16)
    error = (blurry[None] - blur(sharp[None], kernel[None]))[..., inside, inside]
    assert error.std() == pytest.approx(1 / 255, rel=0.2)
    assert torch.equal((blurry * 255).round() / 255, blurry)
    assert metrics.psnr(blurry[None], sharp[None]) < 30


def test_the_border_is_blurred_from_the_real_surroundings(photographs):
    image = photographs[0].clone()
    image[:, :, 82] = 255  # the first column right of the crop
    plain, changed = (evaluate.family_pairs([i], size=64)[0].blurry for i in (photographs[0], image))
    assert (plain - changed).abs()[..., -1].mean() > 0.02 and torch.equal(plain[..., :40], changed[..., :40])


def test_cases_follow_the_seed_and_not_the_number_of_images(photographs):
    both, first = evaluate.family_pairs(photographs, 7, 64), evaluate.family_pairs(photographs[:1], 7, 64)
    assert all(torch.equal(both[2 * i].blurry, first[i].blurry) for i in range(4))
    other = evaluate.family_pairs(photographs[:1], 8, 64)
    assert not torch.equal(first[1].kernel, other[1].kernel)
    assert not torch.equal(first[2].kernel, both[5].kernel)
