"""What is done in another way for large images gives the same result, or nearly."""

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module

from bd_diff.blur.convolution import FEWEST, convolve, spectral
from bd_diff.blur.kernels import shake, transfer_function
from bd_diff.blur.operator import border_window, extend, tapered
from bd_diff.models.conditioning import condition, deblur_guesses
from bd_diff.models.lag_maps import MOST, lag_maps
from bd_diff.models.pixel_vae import PixelVAE
from bd_diff.models.unet import LARGE, READ, NAFUNet, RoundedUNet, quick_unet


def shakes(count: int, extent: float = 9.0):
    return shake(torch.full((count,), extent), torch.Generator().manual_seed(count))


def noise(*shape: int):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def trained_unet(in_channels: int):
    """A small UNet whose last layers are no longer zero."""
    torch.manual_seed(0)
    unet = NAFUNet(in_channels=in_channels, width=8, middle_blocks=1, cross_attention_dim=16).eval()
    torch.nn.init.normal_(unet.leave.weight, std=0.05)
    torch.nn.init.normal_(unet.shortcut.weight, std=0.05)
    return unet


def test_few_planes_and_many_are_convolved_alike():
    images, kernels = noise(FEWEST, 1, 561, 567), shakes(FEWEST)
    together = convolve(images, kernels)
    for index in range(FEWEST):
        alone = convolve(images[index, None], kernels[index, None])
        assert torch.allclose(alone[0], together[index], atol=2e-6)


def test_padding_to_a_fast_size_does_not_show_in_the_result():
    images, kernels = noise(1, 3, 557, 563), shakes(1)  # both prime
    expected = torch.fft.irfft2(torch.fft.rfft2(images) * transfer_function(kernels, 557, 563)[:, None], s=(557, 563))
    assert torch.allclose(spectral(images, kernels), expected[..., 16:-16, 16:-16], atol=1e-5)


def test_only_borders_are_blurred_and_as_by_blurring_everything():
    images, kernels = noise(2, 3, 530, 560), shakes(2)
    padded, transfer = tapered(images, kernels)
    tall, wide = padded.shape[-2:]
    whole = extend(images, 16, tall - 530 - 16, 16, wide - 560 - 16)
    blurred = torch.fft.irfft2(torch.fft.rfft2(whole) * transfer, s=(tall, wide))
    assert torch.allclose(padded, torch.lerp(blurred, whole, border_window(tall, wide, 16)), atol=1e-5)


def test_a_condition_can_be_made_in_bfloat16():
    guesses = deblur_guesses(noise(1, 3, 64, 64) * 2 - 1, shakes(1), linear_light=True)
    first, exact = condition(PixelVAE(), guesses, 7)
    same, rounded = condition(PixelVAE(), guesses, 7, torch.bfloat16)
    assert torch.equal(first, same) and torch.equal(rounded, exact.bfloat16())


def test_a_rounded_unet_says_nearly_what_the_unet_says():
    unet = trained_unet(60)
    sample, tokens = torch.randn(1, 60, 32, 32, generator=torch.Generator().manual_seed(2)) * 4, noise(1, 5, 16)
    with torch.no_grad():
        exact = unet(sample, torch.tensor(999), tokens).sample
        unet_rounded = RoundedUNet(unet)
        rounded = unet_rounded(sample, torch.tensor(999), tokens).sample
        unet.leave.weight.mul_(2)  # a rounded one keeps the weights that it was made from
        assert torch.equal(unet_rounded(sample, torch.tensor(999), tokens).sample, rounded)
    assert (rounded.float() - exact).square().mean().sqrt() < 0.02 * exact.std()
    assert unet.dtype == torch.float32


def test_where_blur_is_read_smaller_images_are_rounded_too(tiny_pipeline, monkeypatch):
    sizes, run = [], RoundedUNet.__call__
    monkeypatch.setattr("bd_diff.models.unet.has_bfloat16", lambda: True)

    def counted(self, sample, *given, **named):
        sizes.append(sample.shape[-1])
        return run(self, sample, *given, **named)

    monkeypatch.setattr(RoundedUNet, "__call__", counted)
    with torch.no_grad():
        for side in (READ, READ - 8):
            tiny_pipeline.deblur_window(noise(1, 3, side, side) * 2 - 1, shakes(1))
    assert sizes == [READ // tiny_pipeline.vae_scale_factor]


def test_only_large_images_on_a_cpu_that_can_are_rounded(monkeypatch):
    unet = trained_unet(60)
    monkeypatch.setattr("bd_diff.models.unet.has_bfloat16", lambda: False)
    assert quick_unet(unet, (LARGE, 4096)) is unet
    monkeypatch.setattr("bd_diff.models.unet.has_bfloat16", lambda: True)
    assert isinstance(quick_unet(unet, (LARGE, 4096)), RoundedUNet)
    assert quick_unet(unet, (LARGE - 4, 4096)) is unet
    unet._hf_hook = object()  # as where accelerate offloads it: it computes elsewhere
    assert quick_unet(unet, (LARGE, 4096)) is unet


def cast_layerwise(unet):
    unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def normalise_weights(unet):
    torch.nn.utils.parametrizations.weight_norm(unet.middle[0].attend)


def hook(unet):
    add_hook_to_module(unet.middle[0], ModelHook())


def wrap(unet):
    run = unet.middle[0].forward
    unet.middle[0].forward = lambda *given: run(*given)


def watch(unet):
    unet.leave.register_forward_hook(lambda module, given, made: 2 * made)


@pytest.mark.parametrize("change", [cast_layerwise, normalise_weights, hook, wrap, watch])
def test_a_unet_that_is_not_what_its_class_says_computes_itself(change, monkeypatch):
    monkeypatch.setattr("bd_diff.models.unet.has_bfloat16", lambda: True)
    unet = trained_unet(60)
    assert isinstance(quick_unet(unet, (LARGE, LARGE)), RoundedUNet)
    change(unet)
    assert quick_unet(unet, (LARGE, LARGE)) is unet


def test_a_large_image_is_read_from_fewer_windows_and_alike():
    side = 2 * int(MOST**0.5) * 32  # twice as many pixels a side as are read whole
    fine = noise(1, 1, side, side) - 0.5
    light = 0.5 + 0.5 * convolve(fine, shakes(1))
    maps, spectrum = lag_maps(light)
    small_maps, small_spectrum = lag_maps(light[..., : side // 2, : side // 2])
    assert torch.nn.functional.cosine_similarity(maps.flatten(), small_maps.flatten(), 0) > 0.98
    assert (spectrum - small_spectrum).abs().mean() < 0.05
