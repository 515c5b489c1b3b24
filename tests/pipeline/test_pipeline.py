"""BDDiffPipeline behaves like a diffusers pipeline, on any image."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from bd_diff_toys.short_search import short_search
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import blur, delta, gaussian, line


def photograph(height=70, width=101, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 9, 13, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")


def run(pipeline, image, seed=0, **settings):
    settings = {"output_type": "pt", "num_inference_steps": 2, "fast": True} | settings
    return pipeline(image, generator=torch.Generator().manual_seed(seed), **settings).images


@pytest.mark.parametrize("size", [(8, 8), (9, 33), (101, 70), (64, 64)])
def test_any_size_comes_back_at_its_size(tiny_pipeline, size):
    assert run(tiny_pipeline, photograph(*size)).shape == (1, 3, *size)


def test_the_same_seed_gives_the_same_image_and_another_seed_another(tiny_pipeline):
    image = photograph()
    assert torch.equal(run(tiny_pipeline, image), run(tiny_pipeline, image))
    assert not torch.equal(run(tiny_pipeline, image), run(tiny_pipeline, image, seed=1))


def test_a_batch_equals_its_singles(tiny_pipeline):
    images = photograph(batch=3)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = tiny_pipeline(images, num_inference_steps=2, fast=True, generator=generators, output_type="pt").images
    for index in range(3):
        alone = run(tiny_pipeline, images[index : index + 1], seed=index)
        assert (alone[0] - together[index]).abs().max() < 1e-5


@short_search()
def test_a_batch_equals_its_singles_with_the_kernel_search_too(tiny_pipeline):
    images = blur(photograph(200, 210, batch=2), line(torch.tensor([9.0, 5.0]), torch.tensor([0.3, 1.0])))
    images = images.clamp(0, 1)
    together = tiny_pipeline.estimate_kernel(images)
    alone = torch.cat([tiny_pipeline.estimate_kernel(image) for image in images])
    assert (together - alone).abs().max() < 1e-4
    assert not torch.equal(together, tiny_pipeline.estimate_kernel(images, fast=True))


@pytest.mark.parametrize("tile", [0, 192])
def test_what_is_hidden_does_not_matter_and_is_filled_by_the_blur(tiny_pipeline, tile):
    kernels = line(torch.tensor([9.0]), torch.tensor([0.3]))
    blurry = blur(photograph(200, 230), kernels).clamp(0, 1)
    hidden = torch.zeros(1, 1, 200, 230, dtype=torch.bool)
    hidden[..., 90:110, 60:180] = True
    results = [
        run(tiny_pipeline, torch.where(hidden, under, blurry), tile=tile, kernels=kernels[0], **settings)
        for under, settings in ((0.0, {}), (0.0, {"hidden": hidden}), (1.0, {"hidden": hidden}))
    ]
    whole = run(tiny_pipeline, blurry, tile=tile, kernels=kernels[0])
    near, filled, other = ((one - whole)[~hidden.expand_as(whole)].square().mean() for one in results)
    assert filled < 0.3 * near and other < 0.3 * near


def test_pil_array_tensor_and_path_are_the_same_picture(tiny_pipeline, tmp_path):
    blurry = torch.nn.functional.avg_pool2d(photograph(80, 111), 11, stride=1)  # what is sharp would stay as it is
    image = PIL.Image.fromarray((blurry[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    image.save(tmp_path / "image.png")
    array = np.asarray(image, dtype=np.float32) / 255
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    results = [run(tiny_pipeline, given) for given in (image, array, tensor, tmp_path / "image.png", [image])]
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("output_type", ["pt", "latent"])
def test_tiles_of_a_large_image_fit_together(tiny_pipeline, output_type):
    image = photograph(300, 410)
    settings = {"output_type": output_type, "num_inference_steps": 1}
    whole, tiled = (run(tiny_pipeline, image, tile=tile, **settings) for tile in (0, 192))
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.1 * (whole - whole.mean()).abs().mean()


def test_the_grid_covers_an_image_only_where_it_is_large(tiny_pipeline):
    assert len(tiny_pipeline.grid(1024, 700, 768)) == 1
    assert len(tiny_pipeline.grid(1032, 700, 768)) == 2
    assert len(tiny_pipeline.grid(1032, 700, 0)) == 1


def test_what_stays_as_it_is_has_no_blur_beside_others_that_have(tiny_pipeline):
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with pytest.warns(UserWarning, match="stays as it is"):
        found = tiny_pipeline([PIL.Image.fromarray(levels), photograph(64, 64)[0]])
    assert np.array_equal(found.images[0], levels) and found.blur[0] == "no blur found" != found.blur[1]


@pytest.mark.parametrize("output_type", ["pt", "latent"])
def test_where_no_blur_is_found_the_photograph_comes_back_and_no_network_runs(tiny_pipeline, monkeypatch, output_type):
    image, settings = photograph(70, 64), {"strength": 0.0, "output_type": output_type}
    as_it_is, read = run(tiny_pipeline, image, **settings), tiny_pipeline.read_at_scales
    monkeypatch.setattr(
        tiny_pipeline, "read_at_scales", lambda *given: replace(read(*given), kernels=delta(1), doubtful=None)
    )
    monkeypatch.setattr(tiny_pipeline.unet, "forward", lambda *_, **__: pytest.fail("the UNet ran"))
    found = tiny_pipeline(image, output_type=output_type)
    assert torch.allclose(found.images, as_it_is, atol=1e-5) and found.blur == ["no blur found"]
    assert tiny_pipeline.num_timesteps == 0 and found.images is not image


@pytest.mark.parametrize("doubtful", [False, True])
def test_a_photograph_without_blur_stays_beside_a_blurred_one(tiny_pipeline, monkeypatch, doubtful):
    images, read = torch.cat([photograph(70, 64), photograph(70, 64).flip(2)]), tiny_pipeline.read_at_scales
    changes = {
        "kernels": torch.cat([delta(1), gaussian(torch.tensor([1.5]))]),
        "doubtful": torch.tensor([doubtful, False]),
    }
    monkeypatch.setattr(tiny_pipeline, "read_at_scales", lambda *given: replace(read(*given), **changes))
    change = (run(tiny_pipeline, images) - images).abs().amax((1, 2, 3))
    assert (change[0] < 1e-5) != doubtful and change[1] > 1e-2


def test_without_the_search_no_windows_are_read_where_blur_is_believed_at_a_smaller_scale(tiny_pipeline, monkeypatch):
    read, scale = tiny_pipeline.read_at_scales, torch.tensor([0.5])
    believed = {"kernels": gaussian(torch.tensor([1.5])), "doubtful": torch.tensor([False]), "scale": scale}
    monkeypatch.setattr(tiny_pipeline, "read_at_scales", lambda *given: replace(read(*given), **believed))
    monkeypatch.setattr(tiny_pipeline, "read_fields", lambda *_: pytest.fail("windows were read"))
    assert tiny_pipeline(photograph(70, 64), fast=True).differs is None


def test_an_exploding_unet_leaves_no_speckles(tiny_pipeline, monkeypatch):
    forward = tiny_pipeline.unet.forward

    def explode(sample, *arguments, **settings):
        output = forward(sample, *arguments, **settings)
        output.sample[..., 10, 10] = 1e4
        return output

    monkeypatch.setattr(tiny_pipeline.unet, "forward", explode)
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert (run(tiny_pipeline, grey, num_inference_steps=1) - grey).abs().max() < 0.06


def test_output_types(tiny_pipeline):
    image = photograph(64, 72)
    assert isinstance(run(tiny_pipeline, image, output_type="pil")[0], PIL.Image.Image)
    assert run(tiny_pipeline, image, output_type="np").shape == (1, 64, 72, 3)
    latents = run(tiny_pipeline, image, output_type="latent")
    assert latents.shape == (1, 12, 32, 36)
    assert isinstance(tiny_pipeline(image, fast=True, return_dict=False), tuple)


def test_given_latents_replace_the_generator(tiny_pipeline):
    image = photograph(64, 64)
    noise = torch.randn(1, 12, 32, 32, generator=torch.Generator().manual_seed(5))
    assert torch.equal(run(tiny_pipeline, image, latents=noise), run(tiny_pipeline, image, seed=5))
    with pytest.raises(ValueError, match=r"latents are \(1, 12, 9, 9\); this image needs \(1, 12, 32, 32\)"):
        run(tiny_pipeline, image, latents=noise[..., :9, :9])


def test_strength_goes_from_the_input_to_the_full_result(tiny_pipeline):
    image = photograph(64, 64)
    distances = [(run(tiny_pipeline, image, strength=s) - image).abs().mean() for s in (0.0, 0.3, 0.7, 1.0)]
    assert distances[0] < 1e-6
    assert distances == sorted(distances) and distances[1] < distances[2] < distances[3]


def test_a_blur_image_of_another_size_changes_the_transfer(tiny_pipeline):
    image = photograph(64, 64)
    blurred = blur(photograph(96, 80, seed=1), line(torch.tensor([15.0]), torch.tensor([0.2]))).clamp(0, 1)
    transferred = run(tiny_pipeline, image, blur_image=blurred)
    assert transferred.shape == image.shape
    assert not torch.equal(transferred, run(tiny_pipeline, image, blur_image=photograph(96, 80, seed=2)))


def test_a_callback_reads_and_changes_the_latents(tiny_pipeline):
    seen = []

    def stop_at_zero(pipeline, step, timestep, values):
        seen.append((step, values["latents"].shape, values["tokens"].shape[1]))
        return {"latents": torch.zeros_like(values["latents"])}

    settings = {"callback_on_step_end": stop_at_zero, "callback_on_step_end_tensor_inputs": ["latents", "tokens"]}
    image = photograph(64, 64)
    result = run(tiny_pipeline, image, **settings)
    assert seen == [(0, (1, 12, 32, 32), 4 + 49), (1, (1, 12, 32, 32), 4 + 49)]
    assert (result - image).abs().max() < 1e-6  # a zero residual is the image


def test_a_swapped_scheduler_samples(tiny_pipeline):
    image, before = photograph(64, 64), tiny_pipeline.scheduler
    ddim = run(tiny_pipeline, image, num_inference_steps=4)
    try:
        tiny_pipeline.scheduler = DPMSolverMultistepScheduler.from_config(before.config)
        other = run(tiny_pipeline, image, num_inference_steps=4)
    finally:
        tiny_pipeline.scheduler = before
    assert other.isfinite().all() and not torch.equal(ddim, other)


def test_a_saved_pipeline_loads_in_a_fresh_process_and_gives_the_same_image(
    tiny_pipeline, tiny_pipeline_folder, tmp_path
):
    image = photograph(64, 64)
    torch.save(image, tmp_path / "image.pt")
    program = (
        "import sys, torch; from bd_diff import BDDiffPipeline; torch.set_num_threads(1)\n"
        "pipe = BDDiffPipeline.from_pretrained(sys.argv[1]); image = torch.load(sys.argv[2])\n"
        "result = pipe(image, num_inference_steps=2, fast=True, generator=torch.Generator().manual_seed(0),"
        " output_type='pt').images; torch.save(result, sys.argv[3])"
    )
    paths = [tiny_pipeline_folder, tmp_path / "image.pt", tmp_path / "result.pt"]
    subprocess.run([sys.executable, "-c", program, *map(str, paths)], check=True)
    assert torch.equal(torch.load(tmp_path / "result.pt"), run(tiny_pipeline, image))


def test_a_hub_id_is_downloaded_whole_and_loads(tiny_pipeline, tiny_pipeline_folder, monkeypatch):
    asked = []

    def stand_in(name, **settings):
        asked.append((name, settings["revision"]))
        return str(tiny_pipeline_folder)

    monkeypatch.setattr("bd_diff.pipeline.saved_pipeline.snapshot_download", stand_in)
    other = BDDiffPipeline.from_pretrained("someone/bd-diff", revision="v1")
    other.set_progress_bar_config(disable=True)
    assert asked == [("someone/bd-diff", "v1")]
    assert torch.equal(run(other, photograph(64, 64)), run(tiny_pipeline, photograph(64, 64)))


def test_components_and_settings_can_be_passed_and_shared(tiny_pipeline, tiny_pipeline_folder):
    other = BDDiffPipeline.from_pretrained(tiny_pipeline_folder, unet=tiny_pipeline.unet, default_steps=3)
    assert other.unet is tiny_pipeline.unet and other.config.default_steps == 3
    again = BDDiffPipeline.from_pipe(tiny_pipeline)
    assert again.vae is tiny_pipeline.vae


def test_offloading_gives_the_same_image(tiny_pipeline_folder):
    pipeline = BDDiffPipeline.from_pretrained(tiny_pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    image = photograph(64, 64)
    before = run(pipeline, image)
    pipeline.enable_model_cpu_offload(device="cpu")
    assert torch.equal(run(pipeline, image), before)
    assert torch.equal(run(pipeline, image), before)


def test_stable_diffusion_components_run_through_the_same_code(tiny_pipeline):
    """Epsilon prediction, a real VAE, no blur decoder: the paper's model, at toy width."""
    torch.manual_seed(0)
    parts = {name: tiny_pipeline.components[name] for name in ("image_encoder", "structure_qformer", "blur_qformer")}
    unet = UNet2DConditionModel(
        in_channels=8,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
    )
    pipeline = BDDiffPipeline(
        **parts, blur_decoder=None, unet=unet, vae=vae, scheduler=DDIMScheduler(), residual=False, default_steps=2
    )
    pipeline.set_progress_bar_config(disable=True)
    assert run(pipeline, photograph(50, 70)).shape == (1, 3, 50, 70)
    assert run(pipeline, photograph(50, 70), blur_image=photograph(64, 64)).shape == (1, 3, 50, 70)
    with pytest.raises(ValueError, match="has no blur_decoder"):
        pipeline.estimate_kernel(photograph())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": True}, "num_inference_steps is True"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"output_type": "jpg"}, "output_type is 'jpg'"),
        ({"tile": 100}, "tile is 100; it must be 0 or a multiple of 8 from 192 up"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "callbacks cannot get noise"),
        ({"blur_image": torch.rand(2, 3, 64, 64)}, "blur_image holds 2 images for 1"),
        ({"hidden": torch.zeros(1, 1, 64, 64, dtype=torch.bool)}, r"hidden is \(1, 1, 64, 64\)"),
    ],
)
def test_a_wrong_argument_is_named(tiny_pipeline, settings, message):
    with pytest.raises(ValueError, match=message):
        run(tiny_pipeline, photograph(), **settings)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 5, 40), "5x40 pixels; both sides must be at least 8"),
        (torch.rand(1, 40, 40), r"image is \(1, 40, 40\)"),
        (torch.full((3, 40, 40), 2.0), r"values in \[2, 2\]"),
        (torch.full((3, 40, 40), float("nan")), "values in"),
        (torch.zeros(3, 40, 40, dtype=torch.uint8), "type torch.uint8"),
        ([], "an empty list"),
        ([torch.rand(3, 40, 40), torch.rand(3, 40, 41)], "sizes 40x40, 40x41"),
    ],
)
def test_an_unusable_image_is_one_clear_error(tiny_pipeline, image, message):
    with pytest.raises(ValueError, match=message):
        run(tiny_pipeline, image)


def test_outputs_are_short_to_print_and_one_step_shows_no_progress(tiny_pipeline, capfd):
    array = np.zeros((24, 32, 3), np.uint8)
    tiny_pipeline.set_progress_bar_config(disable=False)
    try:
        one = tiny_pipeline(array, num_inference_steps=1)
        assert "it/s" not in capfd.readouterr().err
        tiny_pipeline(array, num_inference_steps=2)
        assert "2/2" in capfd.readouterr().err
    finally:
        tiny_pipeline.set_progress_bar_config(disable=True)
    assert repr(one) == "BDDiffPipelineOutput(images: 1 PIL, kernels: (1, 33, 33))"
    shown = repr(tiny_pipeline(array, output_type="np"))
    assert shown == "BDDiffPipelineOutput(images: ndarray (1, 24, 32, 3), kernels: (1, 33, 33))"
