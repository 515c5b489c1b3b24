"""How much noise a photograph has, and how it is denoised for the search."""

import pytest
import torch

from bd_diff.blur.kernels import blur, gaussian, shake
from bd_diff.data.pixels import luminance
from bd_diff.data.procedural import procedural_image
from bd_diff.reading.denoise import NOISY, noise_level, reduce_noise
from bd_diff.reading.kernel_search import reblur_residual


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


def test_noise_is_that_of_immerkaers_mask():
    light = torch.rand(2, 1, 37, 41, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])
    response = torch.nn.functional.conv2d(light, mask[None, None]).abs().flatten(1).median(1).values
    assert torch.allclose(noise_level(light), response / (6 * 0.6745))


def test_only_noisy_images_are_smoothed(scenes):
    soft = scenes[1]
    noisy = with_noise(soft, 8 / 255)
    both = reduce_noise(torch.stack([soft[0], noisy[1]]))
    assert torch.equal(both[0], soft[0]) and noise_level(luminance(soft)).max() < NOISY
    inside = (1, ..., slice(16, -16), slice(16, -16))
    assert (both[inside] - soft[inside]).std() < 0.5 * (noisy[inside] - soft[inside]).std()


def test_sharp_texture_is_not_taken_for_noise(scenes):
    sharp = scenes[0]
    assert noise_level(luminance(sharp)).max() > NOISY  # it looks like it
    assert torch.equal(reduce_noise(sharp), sharp)


def test_after_denoising_the_right_kernel_explains_a_photograph_much_better_than_a_wrong_one(scenes):
    kernel = shake(torch.tensor([14.0]), torch.Generator().manual_seed(4))
    noisy = with_noise(blur(scenes[0][:1], kernel), 8 / 255)

    def margin(images):
        wrong, right = (reblur_residual(luminance(images), one) for one in (kernel.flip(1, 2), kernel))
        return wrong / right

    assert margin(reduce_noise(noisy)) > 1 + 2 * (margin(noisy) - 1)
