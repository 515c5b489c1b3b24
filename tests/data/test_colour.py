"""A colour shift is taken back, detail stays, and nothing changes where nothing was asked for."""

import pytest
import torch

from bd_diff.data.colour import coarse, fix_colours


@pytest.fixture
def photograph():
    """Soft colours with fine detail, (1, 3, 96, 80) in [0.2, 0.7]."""
    generator = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.interpolate(torch.rand(1, 3, 3, 3, generator=generator), (96, 80), mode="bicubic")
    return (0.3 + 0.3 * soft + 0.1 * torch.rand(1, 3, 96, 80, generator=generator)).clamp(0.2, 0.7)


def shifted(images):
    return images * torch.tensor([1.1, 1.0, 0.9])[:, None, None] + torch.tensor([0.05, 0.0, -0.05])[:, None, None]


@pytest.mark.parametrize("fix, left", [("adain", 0.01), ("wavelet", 0.1)])
def test_a_colour_shift_is_taken_back(photograph, fix, left):
    before = (shifted(photograph) - photograph).abs().mean()
    after = (fix_colours(shifted(photograph), photograph, fix) - photograph).abs().mean()
    assert after < left * before


def test_the_wavelet_takes_back_a_shift_of_one_corner_and_adain_cannot(photograph):
    stained = photograph.clone()
    stained[..., :40, :40] += 0.2
    corner = (..., slice(0, 20), slice(0, 20))
    left = {
        fix: (fix_colours(stained, photograph, fix) - photograph)[corner].abs().mean() for fix in ("wavelet", "adain")
    }
    assert left["wavelet"] < 0.06 < left["adain"]


@pytest.mark.parametrize("fix", ["adain", "wavelet"])
def test_detail_of_the_result_stays(photograph, fix):
    soft = torch.nn.functional.avg_pool2d(photograph, 3, 1, 1, count_include_pad=False)  # the blurry photograph
    fixed = fix_colours(photograph, soft, fix)
    detail = photograph - coarse(photograph)
    kept = ((fixed - coarse(fixed)) * detail).sum() / (detail * detail).sum()
    assert kept > (0.95 if fix == "wavelet" else 0.5)


def test_strength_goes_from_the_result_to_the_fix(photograph):
    results = shifted(photograph)
    none, half, full = (fix_colours(results, photograph, "adain", strength) for strength in (0, 0.5, 1))
    assert torch.equal(none, results.clamp(0, 1))
    assert torch.allclose(half, (none + full) / 2, atol=1e-6)
    assert fix_colours(results, photograph, "none") is results


@pytest.mark.parametrize("fix", ["adain", "wavelet"])
def test_one_colour_alone_has_no_spread_to_divide_by(fix):
    fixed = fix_colours(torch.full((1, 3, 8, 8), 0.4), torch.full((1, 3, 8, 8), 0.6), fix)
    assert torch.allclose(fixed, torch.full_like(fixed, 0.6), atol=1e-5)


def test_an_image_of_a_batch_is_fixed_by_its_own_photograph(photograph):
    both = torch.cat([photograph, photograph.flip(-1) * 0.5])
    fixed = fix_colours(both.flip(0), both, "adain")
    assert torch.allclose(fixed[1:], fix_colours(both[:1], both[1:], "adain"), atol=1e-6)


@pytest.mark.parametrize("wrong", [("sepia", 1.0), ("adain", 2.0)])
def test_what_it_cannot_do_is_said(photograph, wrong):
    with pytest.raises(ValueError, match="colour fix"):
        fix_colours(photograph, photograph, *wrong)
