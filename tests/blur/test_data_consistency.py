"""Estimates moved to where they explain a photograph: the least-squares solution, borders and all."""

import pytest
import torch

from bd_diff.blur.camera import to_display, to_light
from bd_diff.blur.kernels import delta, gaussian, line, shake
from bd_diff.blur.operator import data_consistency, extend, fill, reblur, wiener
from bd_diff.evaluation.metrics import psnr
from bd_diff.models.conditioning import explain


def picture(height=96, width=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 13, 15, generator=generator)
    flat = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")
    return 0.1 + 0.8 * (0.7 * flat + 0.3 * torch.rand(1, 3, height, width, generator=generator))


@pytest.fixture
def kernels():
    return shake(torch.tensor([14.0]), torch.Generator().manual_seed(3))


def test_an_estimate_that_explains_the_photograph_stays(kernels):
    sharp = picture()
    assert torch.allclose(data_consistency(sharp, reblur(sharp, kernels), kernels, 0.05), sharp, atol=1e-5)


def test_what_is_found_is_the_minimum(kernels):
    # A torus, so that there are no borders: estimate and photograph repeat, and the middle third is looked at.
    torch.manual_seed(0)
    rho, tile = 0.07, torch.rand(1, 1, 48, 48)
    estimate, photograph = tile.tile(1, 1, 5, 5), torch.rand(1, 1, 48, 48).tile(1, 1, 5, 5)
    solved = data_consistency(estimate, photograph, kernels, rho)
    # Where the gradient of |k * x - y|^2 + rho |x - x0|^2 is zero.
    slope = reblur(reblur(solved, kernels) - photograph, kernels.flip(-2, -1)) + rho * (solved - estimate)
    assert slope[..., 96:144, 96:144].abs().max() < 1e-2 * (photograph - reblur(estimate, kernels)).abs().max()


def test_a_large_weight_keeps_the_estimate_and_a_small_one_the_photograph():
    sharp, kernels = picture(), gaussian(torch.tensor([1.0]))
    estimate = sharp + 0.1
    assert torch.allclose(data_consistency(estimate, reblur(sharp, kernels), kernels, 1e6), estimate, atol=1e-6)
    near = data_consistency(estimate, reblur(sharp, kernels), kernels, 1e-4)
    assert (near - sharp)[..., 24:-24, 24:-24].abs().max() < 1e-3


@pytest.mark.parametrize("blur", [gaussian(torch.tensor([1.8])), line(torch.tensor([13.0]), torch.tensor([0.4]))])
def test_the_best_deconvolution_becomes_better_by_the_true_kernel(blur):
    sharp = picture(seed=1)
    noise = torch.randn(sharp.shape, generator=torch.Generator().manual_seed(0)) / 255
    blurry = reblur(sharp, blur) + noise
    best = max(wiener(blurry, blur).unbind(1), key=lambda one: float(psnr(one, sharp)))
    assert float(psnr(data_consistency(best, blurry, blur, 0.02), sharp)) > float(psnr(best, sharp))


def test_every_image_may_have_a_weight_of_its_own(kernels):
    sharp, blurry = picture().expand(2, -1, -1, -1), picture(seed=2).expand(2, -1, -1, -1)
    both = data_consistency(sharp, blurry, kernels.expand(2, -1, -1), torch.tensor([0.05, 0.5]))
    for index, weight in enumerate((0.05, 0.5)):
        alone = data_consistency(sharp[:1], blurry[:1], kernels, weight)
        assert torch.allclose(both[index : index + 1], alone, atol=1e-5)


def test_it_learns_through_the_solve(kernels):
    estimate, weights = picture().requires_grad_(), torch.full((1,), 0.1, requires_grad=True)
    data_consistency(estimate, picture(seed=3), kernels, weights).square().sum().backward()
    assert estimate.grad.abs().sum() > 0 and weights.grad.abs().sum() > 0


def test_kernels_larger_than_the_photograph_work():
    wide = shake(torch.tensor([100.0]), torch.Generator().manual_seed(0), size=129)
    small = picture(40, 50)
    assert wiener(small, wide).isfinite().all() and reblur(small, wide).shape == small.shape
    assert data_consistency(small, reblur(small, wide), wide, 0.05).isfinite().all()
    assert extend(small, 200, 200, 200, 200).shape[-2:] == (440, 450)


@pytest.mark.parametrize("in_light", [False, True])
def test_light_is_solved_in_light_and_display_values_in_display_values(kernels, in_light):
    sharp = picture(seed=4)
    if in_light:
        blurry = to_display(reblur(to_light(sharp, "srgb"), kernels), "srgb")
    else:
        blurry = reblur(sharp, kernels)
    estimate = (sharp + 0.02 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    errors = [
        float((explain(estimate * 2 - 1, blurry * 2 - 1, kernels, 0.02, both) - (sharp * 2 - 1)).square().mean())
        for both in (False, True)
    ]
    if in_light:
        assert errors[1] < 0.8 * errors[0]
    else:
        assert errors[1] < 1.02 * errors[0]


def test_a_photograph_without_blur_is_believed_as_far_as_the_weight_says():
    sharp, estimate = picture(), picture(seed=5)
    solved = data_consistency(estimate, sharp, delta(1), 0.25)
    assert torch.allclose(solved, (sharp + 0.25 * estimate) / 1.25, atol=1e-5)


@pytest.mark.parametrize("kind", ["cut-out", "letters", "corner"])
def test_what_is_hidden_is_filled_so_that_the_rest_is_deconvolved_as_if_it_were_there(kernels, kind):
    sharp = picture(160, 192)
    blurry = reblur(sharp, kernels)
    rows, columns = torch.meshgrid(torch.arange(160), torch.arange(192), indexing="ij")
    hidden = {
        "cut-out": (rows - 80) ** 2 + (columns - 96) ** 2 > 70**2,
        "letters": (rows - 80).abs().lt(12) & (columns % 9 < 4),
        "corner": (rows < 50) & (columns < 60),
    }[kind][None, None]
    mean = torch.where(hidden, blurry.mean(), blurry)
    filled = fill(mean, hidden, kernels)
    assert torch.equal(filled[(~hidden).expand_as(blurry)], blurry[(~hidden).expand_as(blurry)])

    def error(photograph):
        return (wiener(photograph, kernels)[:, 1] - wiener(blurry, kernels)[:, 1])[(~hidden).expand_as(blurry)].square()

    assert error(filled).mean() < 0.25 * error(mean).mean()


def test_where_nothing_is_hidden_or_nothing_seen_a_fill_changes_nothing_or_is_finite(kernels):
    blurry = reblur(picture(), kernels)
    assert torch.equal(fill(blurry, torch.zeros(1, 1, 96, 120, dtype=torch.bool), kernels), blurry)
    assert fill(blurry, torch.ones(1, 1, 96, 120, dtype=torch.bool), kernels).isfinite().all()


def test_each_image_of_a_batch_is_filled_as_alone():
    kernels = torch.cat([line(torch.tensor([9.0]), torch.tensor([0.3])), gaussian(torch.tensor([2.0]))])
    blurry = reblur(torch.cat([picture(), picture(seed=1)]), kernels)
    hidden = torch.zeros(2, 1, 96, 120, dtype=torch.bool)
    hidden[0, :, 40:50, 30:60] = hidden[1, :, 20:30, 60:80] = True
    both = fill(blurry, hidden, kernels)
    for one in range(2):
        alone = fill(blurry[one : one + 1], hidden[one : one + 1], kernels[one : one + 1])
        assert torch.allclose(both[one], alone[0], atol=2e-2)
