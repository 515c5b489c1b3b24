"""How much noise a photograph has, and how it is calmed for the search."""

import pytest
import torch

from bd_diff.blur.camera import compress
from bd_diff.blur.kernels import blur, gaussian, shake
from bd_diff.data.procedural import procedural_image
from bd_diff.metrics import luminance
from bd_diff.models.kernel_search import reblur_residual
from bd_diff.noise import NOISY, blockiness, calm, noise_level


@pytest.fixture(scope="module")
def scenes():
    """Two sharp scenes and what is left of them by a soft blur, with room for it."""
    sharp = torch.stack([procedural_image(256, torch.Generator().manual_seed(seed), "leaves") for seed in range(2)])
    return sharp, blur(sharp, gaussian(torch.tensor([1.5, 1.5])))


def with_noise(images, deviation):
    return images + deviation * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def test_noise_is_measured_in_spite_of_edges(scenes):
    noisy = with_noise(scenes[1][:, :1], 0.03)
    assert noise_level(noisy).tolist() == pytest.approx([0.03, 0.03], rel=0.15)


def test_only_what_is_noisy_is_calmed(scenes):
    soft = scenes[1]
    noisy = with_noise(soft, 8 / 255)
    both = calm(torch.stack([soft[0], noisy[1]]))
    assert torch.equal(both[0], soft[0]) and noise_level(luminance(soft)).max() < NOISY
    inside = (1, ..., slice(16, -16), slice(16, -16))
    assert (both[inside] - soft[inside]).std() < 0.5 * (noisy[inside] - soft[inside]).std()


def test_sharp_texture_is_not_taken_for_noise(scenes):
    sharp = scenes[0]
    assert noise_level(luminance(sharp)).max() > NOISY  # it looks like it
    assert torch.equal(calm(sharp), sharp)


def test_a_kernel_explains_a_noisy_photograph_clearly_once_it_is_calm(scenes):
    kernel = shake(torch.tensor([14.0]), torch.Generator().manual_seed(4))
    noisy = with_noise(blur(scenes[0][:1], kernel), 8 / 255)

    def margin(images):
        wrong, right = (reblur_residual(luminance(images), one) for one in (kernel.flip(1, 2), kernel))
        return wrong / right

    assert margin(calm(noisy)) > 1 + 2 * (margin(noisy) - 1)


@pytest.mark.parametrize("shift", [0, 3])
def test_jpeg_shows_its_blocks_and_noise_and_stripes_do_not(shift):
    generator = torch.Generator().manual_seed(0)
    sharp = procedural_image(160, generator, "leaves")[None]
    blurry = blur(sharp, gaussian(torch.tensor([1.8])))
    compressed = compress(blurry, 75)[..., shift:, shift:]
    noisy = blurry + 8 / 255 * torch.randn(blurry.shape, generator=generator)
    stripes = (torch.arange(160) // 8 % 2).float().expand(1, 3, 160, -1)
    assert float(blockiness(luminance(compressed))) > 0.3
    for clean in (sharp, blurry, noisy, stripes, torch.zeros(1, 3, 9, 40)):
        assert float(blockiness(luminance(clean))) < 0.15
