"""A kernel for every window: no seams, and better than one where blur varies."""

import pytest
import torch

from bd_diff.blur.kernels import gaussian
from bd_diff.blur.operator import reblur
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation.metrics import psnr
from bd_diff.models.conditioning import deblur_guesses
from bd_diff.models.known_blur import blend, window_grid, window_shares
from bd_diff.reading.kernel_windows import window_kernels


def kernels_across(height, width, window):
    """Sharp at the left, sigma 2 at the right."""
    grid = window_grid(height, width, window)
    sigma = [0.3 + 1.7 * left / (width - window) for _, left in grid.starts]
    return torch.stack([gaussian(torch.tensor([value])) for value in sigma])


def blended(pixels, kernels, window):
    return blend(pixels, kernels, window_shares(window_grid(*pixels.shape[-2:], window)))


def test_a_constant_image_stays_constant_whatever_the_kernels():
    pixels = torch.full((1, 3, 96, 160), 0.25)
    assert torch.allclose(blended(pixels, kernels_across(96, 160, 64), 64), torch.tensor(0.25), atol=1e-4)


def test_a_gradient_has_no_seams():
    pixels = torch.linspace(-0.8, 0.8, 160).expand(1, 3, 96, 160)
    inside = blended(pixels, kernels_across(96, 160, 64), 64)[..., 40:-40]
    assert (inside - pixels[:, None, ..., 40:-40]).abs().max() < 5e-3
    assert inside.diff(dim=-1).diff(dim=-1).abs().max() < 2e-3


def test_equal_kernels_give_what_one_kernel_gives():
    pixels = procedural_image(160, torch.Generator().manual_seed(0))[None] * 2 - 1
    kernel = gaussian(torch.tensor([1.2]))
    windows = kernel.expand(len(window_grid(160, 160, 96)), 1, -1, -1)
    whole, parts = deblur_guesses(pixels, kernel), blended(pixels, windows, 96)
    assert parts.shape == whole.shape and (parts - whole)[..., 48:-48, 48:-48].abs().mean() < 1e-2


def test_the_right_kernel_in_each_place_beats_one_for_all():
    sharp = procedural_image(160, torch.Generator().manual_seed(1), "leaves")[None] * 2 - 1
    right = torch.linspace(0, 1, 160)
    soft = gaussian(torch.tensor([2.0]))
    pixels = (1 - right) * sharp + right * reblur(sharp, soft)
    kernels = kernels_across(160, 160, 64)
    own, one = blended(pixels, kernels, 64)[:, 2], deblur_guesses(pixels, soft)[:, 2]
    assert psnr(own / 2 + 0.5, sharp / 2 + 0.5).item() > psnr(one / 2 + 0.5, sharp / 2 + 0.5).item() + 2


def test_each_window_is_read_by_itself(tiny_pipeline):
    pixels = procedural_image(160, torch.Generator().manual_seed(2))[None] * 2 - 1
    kernels, shares = window_kernels(tiny_pipeline, pixels, 96, fast=True)
    assert kernels.shape == (len(window_grid(160, 160, 96)), 1, 33, 33)
    assert torch.allclose(kernels[0], tiny_pipeline.encode_image(pixels[..., :96, :96], fast=True).kernels, atol=1e-6)
    assert torch.allclose(kernels.sum((-2, -1)), torch.ones(len(kernels), 1), atol=1e-5)
    assert shares.shape == (len(kernels), 160, 160)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 70), (200, 65)])
def test_weights_sum_to_one_everywhere(height, width):
    grid, canvas = window_grid(height, width, 64), torch.zeros(1, height, width)
    grid.paste(canvas, torch.ones(len(grid), 1, *grid.tile), range(len(grid)))
    assert torch.allclose(canvas, torch.ones(()), atol=1e-5)


def test_the_pipeline_takes_a_kernel_for_every_window(tiny_pipeline):
    image = procedural_image(288, torch.Generator().manual_seed(3))[None]
    image[..., 144:] = reblur(image, gaussian(torch.tensor([3.0])))[..., 144:]

    def call(**settings):
        settings |= {"generator": torch.Generator().manual_seed(0), "output_type": "pt", "fast": True}
        return tiny_pipeline(image, **settings).images

    assert call(kernel_windows=192).shape == image.shape
    assert not torch.allclose(call(kernel_windows=192), call(), atol=1e-4)
    assert torch.allclose(call(kernel_windows=512), call(), atol=1e-5)  # one window is the whole
    with pytest.raises(ValueError, match="kernel_windows is 64; it must be 0 or at least 192"):
        call(kernel_windows=64)
    with pytest.raises(ValueError, match="for deblurring only"):
        call(kernel_windows=256, blur_image=image)
