"""Deconvolution in linear light: right where the exposure averaged light, and a UNet can be given it afterwards."""

import pytest
import torch
from bd_diff_toys import TINY
from bd_diff_toys.stable_diffusion import SIZES, save_base

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.kernels import SIZE, gaussian
from bd_diff.data.crops import seeded
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation.metrics import psnr
from bd_diff.models.conditioning import deblur_guesses, guess_count
from bd_diff.stable_diffusion.base_model import load_base
from bd_diff.training.joint import see_linear_light
from bd_diff.training.pipelines import build_pipeline, pipeline_from_base


def test_each_deconvolution_is_the_better_one_for_what_the_exposure_averaged():
    kernels, inside = gaussian(torch.tensor([1.8])), slice(SIZE // 2, -(SIZE // 2))
    sharp = procedural_image(192, seeded(5))[None]
    for curve in (1.0, "srgb"):
        blurry = RandomCamera(noise=0.0, curve=curve).capture(sharp, kernels, seeded(0))
        guesses = deblur_guesses(blurry * 2 - 1, kernels, linear_light=True)
        assert guesses.shape == (1, guess_count(True), 3, 160, 160)
        assert torch.equal(guesses[:, :4], deblur_guesses(blurry * 2 - 1, kernels))
        assert guesses.abs().max() <= 1.5
        truth = sharp[..., inside, inside]
        display, light = (float(psnr((guesses[:, n] / 2 + 0.5).clamp(0, 1), truth)) for n in (1, 4))
        assert (light > display + 1) == (curve == "srgb") and abs(light - display) > 1


def test_a_unet_that_is_given_linear_light_gives_the_same_until_it_is_trained(tmp_path):
    torch.manual_seed(0)
    pipeline, image = build_pipeline(TINY), procedural_image(64, seeded(1))
    for parameter in pipeline.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)

    def latents(pipeline):
        return pipeline(image, output_type="latent", generator=torch.Generator().manual_seed(0)).images

    before = latents(pipeline)
    see_linear_light(pipeline)
    assert torch.allclose(latents(pipeline), before, rtol=1e-4)
    pipeline.unet.enter.weight.data.add_(0.05)
    changed = latents(pipeline)
    assert not torch.allclose(changed, before, rtol=1e-2)
    pipeline.save_pretrained(tmp_path)
    loaded = type(pipeline).from_pretrained(tmp_path)
    assert loaded.config.linear_light
    assert torch.allclose(latents(loaded), changed, rtol=1e-4)


def test_a_base_takes_it_too_and_a_pipeline_without_kernels_says_so(tmp_path):
    base = load_base(save_base(tmp_path / "sd"))
    pipeline = pipeline_from_base(base, SIZES | {"pipeline": {"linear_light": True}})
    assert pipeline.unet.config.in_channels == (1 + guess_count(True)) * 4
    with pytest.raises(ValueError, match="linear_light: without a blur_decoder there are no deconvolutions"):
        see_linear_light(pipeline_from_base(load_base(tmp_path / "sd"), SIZES | {"blur_decoder": None}))
