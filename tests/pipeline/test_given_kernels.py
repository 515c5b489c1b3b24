"""A known blur in the pipeline and in training: what is done with kernels that are given."""

import numpy as np
import pytest
import torch
from bd_diff_toys import TINY
from typer.testing import CliRunner

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import gaussian, line, shake
from bd_diff.blur.operator import data_consistency, reblur
from bd_diff.cli import app
from bd_diff.data.images import read_image, save_image, to_image, to_tensor
from bd_diff.data.procedural import procedural_image
from bd_diff.evaluation.metrics import psnr
from bd_diff.models.conditioning import EXPLAINED, doubt, explain
from bd_diff.training.objective import JointObjective
from bd_diff.training.pipelines import build_pipeline

UNTRAINED = TINY | {"pipeline": {"consistency": 0.02}}


@pytest.fixture(scope="module")
def solving():
    """A pipeline whose UNet predicts the middle deconvolution, so that all else that it does is to solve."""
    torch.manual_seed(0)
    pipeline = build_pipeline(UNTRAINED)
    for channel in range(12):
        pipeline.unet.shortcut.weight.data[channel, 24 + channel, 1, 1] = 1.0
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def solving_in_light():
    """An untrained pipeline that solves, in linear light, too."""
    torch.manual_seed(0)
    sections = TINY | {
        "unet": TINY["unet"] | {"in_channels": 12 * 8},
        "pipeline": {"consistency": 0.05, "linear_light": True},
    }
    pipeline = build_pipeline(sections)
    for parameter in pipeline.unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sharp_and_blurry(kernels, side=96):
    sharp = procedural_image(side, torch.Generator().manual_seed(1))[None]
    return sharp, reblur(sharp, kernels).clamp(0, 1)


def run(pipeline, image, **settings):
    settings = {"output_type": "pt", "fast": True, "generator": torch.Generator().manual_seed(0)} | settings
    return pipeline(image, **settings)


def test_a_given_kernel_is_used_and_comes_back(solving):
    kernels = shake(torch.tensor([12.0]), torch.Generator().manual_seed(2))
    sharp, blurry = sharp_and_blurry(kernels)
    output = run(solving, blurry, kernels=kernels)
    assert torch.allclose(output.kernels, kernels, atol=1e-6)
    wrong = run(solving, blurry, kernels=kernels.flip(-1)).images
    assert float(psnr(output.images, sharp)) > float(psnr(blurry, sharp)) + 3
    assert float(psnr(output.images, sharp)) > float(psnr(wrong, sharp)) + 3


def test_file_array_tensor_and_batch_are_the_same_kernel(solving, tmp_path):
    kernel = gaussian(torch.tensor([1.5]), 13)[0].numpy()
    _, blurry = sharp_and_blurry(torch.from_numpy(kernel)[None])
    np.save(tmp_path / "psf.npy", 7 * kernel)
    given = (tmp_path / "psf.npy", kernel, torch.from_numpy(kernel), [kernel], kernel[None])
    results = [run(solving, blurry, kernels=one).images for one in given]
    assert all(torch.allclose(results[0], other, atol=1e-5) for other in results[1:])


def test_every_image_has_its_own_kernel(solving):
    kernels = torch.cat([gaussian(torch.tensor([1.5])), line(torch.tensor([9.0]), torch.tensor([0.5]))])
    images = torch.cat([sharp_and_blurry(one[None])[1] for one in kernels])
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    together = run(solving, images, kernels=kernels, generator=generators).images
    for index in range(2):
        alone = run(solving, images[index : index + 1], kernels=kernels[index]).images
        assert (alone[0] - together[index]).abs().max() < 1e-4


@pytest.mark.parametrize("tile", [0, 192])
def test_a_kernel_of_129_pixels_works_in_tiles_too(solving, tile):
    kernels = shake(torch.tensor([110.0]), torch.Generator().manual_seed(0), 129)
    sharp, blurry = sharp_and_blurry(kernels, 288)
    result = run(solving, blurry, kernels=kernels, tile=tile).images
    inside = (..., slice(64, -64), slice(64, -64))
    assert float(psnr(result[inside], sharp[inside])) > float(psnr(blurry[inside], sharp[inside])) + 2


def test_kernels_without_a_use_are_refused(solving):
    image, kernel = torch.rand(1, 3, 64, 64), torch.ones(3, 3)
    for other in ({"blur_image": image}, {"kernel_windows": 192}):
        with pytest.raises(ValueError, match="kernels are for deblurring by one kernel each"):
            run(solving, image, kernels=kernel, **other)
    with pytest.raises(ValueError, match="kernels is all zero"):
        run(solving, image, kernels=0 * kernel)
    with pytest.raises(ValueError, match="kernels holds 2 for 1 images"):
        run(solving, image, kernels=torch.ones(2, 3, 3))


def test_consistency_needs_predicted_samples():
    sections = UNTRAINED | {"scheduler": {"prediction_type": "epsilon"}}
    with pytest.raises(ValueError, match="consistency needs a scheduler that predicts the sample"):
        build_pipeline(sections)


def test_a_saved_pipeline_solves_when_it_is_loaded_again(solving_in_light, tmp_path):
    solving_in_light.save_pretrained(tmp_path / "saved")
    loaded = BDDiffPipeline.from_pretrained(tmp_path / "saved")
    loaded.set_progress_bar_config(disable=True)
    _, blurry = sharp_and_blurry(gaussian(torch.tensor([1.5])), 70)
    settings = {"kernels": gaussian(torch.tensor([1.5])), "num_inference_steps": 2}
    results = [run(one, blurry, **settings).images for one in (solving_in_light, loaded)]
    assert torch.equal(*results) and results[0].isfinite().all()
    assert loaded.config.consistency == 0.05


@pytest.mark.parametrize("size", [(8, 8), (9, 33), (101, 70)])
def test_any_size_comes_back_at_its_size(solving_in_light, size):
    assert run(solving_in_light, torch.rand(1, 3, *size), num_inference_steps=2).images.shape == (1, 3, *size)


def test_windows_solve_each_by_its_own_kernel(solving_in_light):
    assert run(solving_in_light, torch.rand(1, 3, 200, 230), kernel_windows=192).images.isfinite().all()


def test_the_command_line_takes_a_kernel_and_names_a_bad_one(solving, tmp_path):
    solving.save_pretrained(tmp_path / "model")
    kernels = gaussian(torch.tensor([1.5]))
    _, blurry = sharp_and_blurry(kernels)
    save_image(to_image(blurry[0]), tmp_path / "blurry.png")
    np.save(tmp_path / "psf.npy", kernels[0].numpy())
    np.save(tmp_path / "bad.npy", -kernels[0].numpy())
    command = ["deblur", str(tmp_path / "blurry.png"), "--model", str(tmp_path / "model"), "--out"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "a.png"), "--kernel", str(tmp_path / "psf.npy")])
    assert result.exit_code == 0, result.output
    seen = to_tensor(read_image(tmp_path / "blurry.png"))
    expected = run(solving, seen[None], kernels=kernels).images[0]
    assert (to_tensor(read_image(tmp_path / "a.png")) - expected).abs().max() < 0.01
    result = CliRunner().invoke(app, [*command, str(tmp_path / "b.png"), "--kernel", str(tmp_path / "bad.npy")])
    assert isinstance(result.exception, ValueError) and "bad.npy holds negative values" in str(result.exception)


def test_training_judges_what_the_sampler_gives_and_learns_through_the_solve(solving):
    kernels = line(torch.tensor([9.0]), torch.tensor([0.5]))
    _, blurry = sharp_and_blurry(kernels)
    networks = torch.nn.ModuleDict({k: v for k, v in solving.components.items() if isinstance(v, torch.nn.Module)})
    settings = {"weights": {"deblur": 1.0}, "families": {"line": 1.0}}
    objective = JointObjective(networks, solving.scheduler, consistency=solving.config.consistency, **settings)
    guesses = objective.deblur_guesses(blurry * 2 - 1, kernels)
    start, seen = objective.start(guesses)
    predicted = seen.unflatten(1, (-1, 12))[:, 2].clone().requires_grad_()  # what this UNet says
    solve = objective.solver(start, blurry * 2 - 1, kernels)
    solved = solve(predicted)
    expected = run(solving, blurry, kernels=kernels).images
    assert torch.allclose((solving.decode(start + solved, guesses) / 2 + 0.5).clamp(0, 1), expected, atol=1e-4)
    assert not torch.allclose((solving.decode(start + predicted, guesses) / 2 + 0.5).clamp(0, 1), expected, atol=1e-3)
    (gradient,) = torch.autograd.grad(solved.mean(), predicted)  # brightness is what every kernel tells
    assert 0 < gradient.sum() < 0.1
    assert JointObjective(networks, solving.scheduler, **settings).solver(start, blurry, kernels) is None


def test_without_a_gain_transfer_is_the_explicit_reblur():
    torch.manual_seed(0)
    pipeline = build_pipeline(TINY | {"pipeline": {"transfer_gain": 0.0}})
    pipeline.set_progress_bar_config(disable=True)
    sharp, blurry = sharp_and_blurry(gaussian(torch.tensor([1.5])))
    output = run(pipeline, sharp, blur_image=blurry)
    assert torch.allclose(output.images, reblur(sharp, output.kernels).clamp(0, 1), atol=1e-5)
    half = run(pipeline, sharp, blur_image=blurry, strength=0.5).images
    assert torch.allclose(half, 0.5 * (output.images + sharp), atol=1e-5)


def test_a_gain_is_a_share_of_what_the_network_adds(tiny_pipeline):
    sharp, blurry = sharp_and_blurry(gaussian(torch.tensor([1.5])))
    results = {}
    for gain in (0.0, 0.5, 1.0):
        tiny_pipeline.register_to_config(transfer_gain=gain)
        results[gain] = run(tiny_pipeline, sharp, blur_image=blurry, output_type="latent").images
    assert torch.allclose(results[0.5], 0.5 * (results[0.0] + results[1.0]), atol=1e-4)
    assert not torch.allclose(results[0.0], results[1.0], atol=1e-3)


def test_noise_and_what_a_kernel_cannot_explain_make_an_estimate_worth_more():
    generator = torch.Generator().manual_seed(0)
    pixels = 2 * sharp_and_blurry(gaussian(torch.tensor([1.0])))[1] - 1
    contrast = (pixels[..., 1:] - pixels[..., :-1]).square().mean((1, 2, 3))
    assert doubt(pixels, 0.2 * contrast).tolist() == [1.0]
    assert float(doubt(pixels, 2 * EXPLAINED * contrast)) == pytest.approx(8, rel=0.01)
    noisy = pixels + 2 * 6 / 255 * torch.randn(1, 1, 96, 96, generator=generator)
    assert 30 < float(doubt(noisy, 0 * contrast)) < 130


def test_by_a_wrong_kernel_less_is_solved_than_by_a_right_one():
    kernels = shake(torch.tensor([14.0]), torch.Generator().manual_seed(2))
    sharp, blurry = (2 * images - 1 for images in sharp_and_blurry(kernels, 128))
    estimate = sharp + 0.05 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(0))
    moved = [
        (explain(estimate, blurry, one, 0.05) - estimate).square().mean()
        / (data_consistency(estimate, blurry, one, 0.05) - estimate).square().mean()
        for one in (kernels, kernels.flip(-1))
    ]
    assert float(moved[0]) > 0.99 and float(moved[1]) < 0.5
