"""What the UNet invents stays within reach of its guesses."""

import torch
from bd_diff_toys.stable_diffusion import toy_vae
from diffusers import AutoencoderTiny

from bd_diff.models.conditioning import highest_around, keep_in_reach, to_latents, to_pixels


def case():
    generator = torch.Generator().manual_seed(0)
    guesses = torch.rand(1, 4, 3, 96, 96, generator=generator) - 0.5
    return guesses[:, 1] * 0.9, guesses


def test_pixels_within_reach_stay_as_they_are():
    pixels, guesses = case()
    assert torch.equal(keep_in_reach(pixels, guesses), pixels)


def test_a_pixel_somewhat_beyond_is_clamped_alone():
    pixels, guesses = case()
    pixels[0, 0, 40, 40] = 0.75  # the guesses end at 0.5, the margin at 0.6
    kept = keep_in_reach(pixels, guesses)
    assert 0.5 < kept[0, 0, 40, 40] <= 0.6
    kept[0, 0, 40, 40] = pixels[0, 0, 40, 40]
    assert torch.equal(kept, pixels)


def test_an_explosion_fades_into_the_first_guess_and_what_is_far_from_it_stays():
    pixels, guesses = case()
    pixels[0, :, 40, 40] = 10.0
    kept = keep_in_reach(pixels, guesses)
    assert torch.allclose(kept[..., 24:57, 24:57], guesses[:, 0, :, 24:57, 24:57])
    assert torch.equal(kept[..., 74:, :], pixels[..., 74:, :])
    between = (kept - pixels)[..., 40, 57:72].abs().mean((0, 1))
    assert between[0] > between[7] > between[-1] > 0


def test_explosions_that_spoil_the_whole_image_leave_the_middle_deconvolution():
    """The channel attention of the UNet averages over the image, so that far from them its pixels are wrong, too."""
    pixels, guesses = case()
    pixels[0, :, 40:44, 40:44] = 100.0
    assert torch.equal(keep_in_reach(pixels, guesses), guesses[:, 2])
    assert torch.equal(keep_in_reach(pixels, guesses[:, :2]), guesses[:, 0])  # in transfer: the image blurred again


def test_a_vaes_shift_is_taken_off_and_put_back():
    torch.manual_seed(0)
    vae, pixels = toy_vae(shift_factor=0.3, scaling_factor=0.5).eval(), torch.rand(1, 3, 32, 32) * 2 - 1
    raw = vae.encode(pixels).latent_dist.mode()
    assert torch.equal(to_latents(vae, pixels), (raw - 0.3) * 0.5)
    assert torch.allclose(to_pixels(vae, to_latents(vae, pixels)), vae.decode(raw).sample, atol=1e-5)


def test_taesd_has_latents_without_a_distribution():
    torch.manual_seed(0)
    vae, pixels = AutoencoderTiny().eval(), torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(to_latents(vae, pixels), vae.encode(pixels).latents)
    assert to_pixels(vae, to_latents(vae, pixels)).shape == pixels.shape


def test_the_maximum_around_pixels_is_that_of_the_square_around_them():
    for height, width in ((40, 31), (5, 2), (1, 1)):
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
        for reach in (2, 24):
            expected = torch.nn.functional.max_pool2d(images, 2 * reach + 1, 1, reach)
            assert torch.equal(highest_around(images, reach), expected)
