"""Kernels as estimates would have them stay kernels, and some stay the truth."""

import pytest
import torch

from bd_diff.blur import disturbance
from bd_diff.blur.disturbance import disturb_kernels, thicken
from bd_diff.blur.kernels import gaussian, shake


def drawn(batch=64):
    return shake(torch.full((batch,), 14.0), torch.Generator().manual_seed(0))


def spread(kernels):
    offsets = torch.arange(33.0) - 16
    square = offsets[:, None] ** 2 + offsets**2
    return (kernels * square).sum((-2, -1))


def test_disturbed_kernels_are_kernels_and_a_share_of_them_is_true():
    kernels = drawn()
    estimates = disturb_kernels(kernels, torch.Generator().manual_seed(1))
    assert estimates.shape == kernels.shape and (estimates >= 0).all()
    assert torch.allclose(estimates.sum((1, 2)), torch.ones(64), atol=1e-5)
    same = (estimates == kernels).flatten(1).all(1).float().mean()
    assert 0.2 < float(same) < 0.6


@pytest.mark.parametrize("mistake", ["misplace", "mix", "soften", "sharpen", "prune"])
def test_every_mistake_changes_a_kernel_and_not_beyond_recognition(mistake):
    kernels = drawn(8)
    changed = getattr(disturbance, mistake)(kernels, torch.Generator().manual_seed(2))
    alike = torch.cosine_similarity(changed.flatten(1), kernels.flatten(1))
    assert (alike < 1).all() and float(alike.mean()) > 0.5


def test_the_same_generator_makes_the_same_mistakes():
    kernels = drawn(4)
    first, again = (disturb_kernels(kernels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("shape", [(64, 33, 33), (64, 1, 1, 33, 33), (64, 3, 3, 33, 33)])
def test_a_share_of_kernels_is_thickened_all_over_the_photograph_alike(shape):
    kernels = drawn()[:, None, None].expand(-1, 3, 3, -1, -1)[:, : shape[1], : shape[2]] if len(shape) > 3 else drawn()
    thick = thicken(kernels, torch.Generator().manual_seed(4), share=0.5)
    assert thick.shape == shape and torch.allclose(thick.sum((-2, -1)), torch.ones(shape[:-2]), atol=1e-5)
    changed = (thick != kernels).flatten(1).any(1)
    assert 20 < int(changed.sum()) < 44
    wider = spread(thick) - spread(kernels)
    assert (wider[changed] > 0).all() and (wider[~changed] == 0).all()


def test_gaussians_add_their_variances():
    kernels = gaussian(torch.tensor([1.5, 2.0]))
    both = disturbance.smooth(kernels[:, None], torch.tensor([1.0, 0.5]))[:, 0]
    assert torch.allclose(spread(both), 2 * torch.tensor([1.5**2 + 1, 2.0**2 + 0.5**2]), rtol=0.01)
