"""Schedulers: those that give a perfect model's image back, and those that are refused by name."""

import logging

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler

from bd_diff.models.samplers import NOT_OF_CLEAN_IMAGES, SAMPLERS, check_scheduler, take_step

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
STABLE_DIFFUSION |= {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": False}
TINY = {"timestep_spacing": "trailing", "clip_sample": False, "rescale_betas_zero_snr": True}
WORKING = ["DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler",
           "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "LMSDiscreteScheduler"]  # fmt: skip


def scheduler_of(name, kind):
    trained = DDIMScheduler(prediction_type=kind, **(TINY if kind == "sample" else STABLE_DIFFUSION))
    return getattr(diffusers, name).from_config(trained.config), trained


@pytest.mark.parametrize("kind", ["sample", "epsilon", "v_prediction"])
@pytest.mark.parametrize("name", WORKING)
def test_a_perfect_models_image_comes_back_without_noise(name, kind):
    for steps in (1, 2, 6, 7, 11, 13):  # DDIM's own last step leaves noise at some of these
        scheduler, trained = scheduler_of(name, kind)
        check_scheduler(scheduler, steps)
        scheduler.set_timesteps(steps)
        seed = torch.Generator().manual_seed(0)
        clean = torch.randn(1, 4, 8, 8, generator=seed)
        latents = torch.randn(1, 4, 8, 8, generator=seed) * scheduler.init_noise_sigma
        for i, t in enumerate(scheduler.timesteps, 1):
            a = trained.alphas_cumprod[int(t)]
            noise = (scheduler.scale_model_input(latents, t) - a.sqrt() * clean) / (1 - a).sqrt()
            velocity = a.sqrt() * noise - (1 - a).sqrt() * clean
            output = {"sample": clean, "epsilon": noise, "v_prediction": velocity}[kind]
            latents = take_step(scheduler, output, t, latents, last=i == len(scheduler.timesteps))
        assert (latents - clean).abs().max() < 2e-3


@pytest.mark.parametrize("name", NOT_OF_CLEAN_IMAGES)
def test_what_cannot_sample_a_model_of_clean_images_is_refused_by_name(name):
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    scheduler, _ = scheduler_of(name, "sample")
    with pytest.raises(ValueError, match=f"{name} cannot sample a model that predicts clean images.*set pipeline"):
        check_scheduler(scheduler, 10)
    check_scheduler(scheduler_of(name, "epsilon")[0], 10)


def test_other_schedules_and_too_few_steps_are_refused_by_name():
    for name in ("EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "IPNDMScheduler", "RePaintScheduler",
                 "DDIMInverseScheduler", "SCMScheduler", "KarrasVeScheduler"):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} is made for another noise schedule"):
            check_scheduler(getattr(diffusers, name)(), 10)
    listed = diffusers.DDIMScheduler(trained_betas=[0.1] * 10)
    with pytest.raises(ValueError, match="DDIMScheduler has 10 trained_betas for 1000 timesteps"):
        check_scheduler(listed, 10)
    with pytest.raises(ValueError, match="PNDMScheduler needs at least 4 steps, not 2"):
        check_scheduler(scheduler_of("PNDMScheduler", "epsilon")[0], 2)


def test_every_scheduler_of_diffusers_samples_or_is_refused_by_name(tiny_pipeline):
    own, image = tiny_pipeline.scheduler, torch.rand(1, 3, 32, 32)
    names = [
        name for name in dir(diffusers) if name.endswith("Scheduler") and isinstance(getattr(diffusers, name), type)
    ]
    sampled = set()
    try:
        for name in names:
            try:
                tiny_pipeline.scheduler = getattr(diffusers, name).from_config(own.config)
            except Exception:  # it cannot be made from the model's own schedule
                continue
            try:
                seed = torch.Generator().manual_seed(0)
                images = tiny_pipeline(image, fast=True, num_inference_steps=2, generator=seed, output_type="pt").images
            except ValueError as error:
                assert str(error).startswith(f"{name} ")
                continue
            assert images.isfinite().all()
            sampled.add(name)
    finally:
        tiny_pipeline.scheduler = own
    assert {"DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"} <= sampled <= SAMPLERS


def test_casting_a_network_says_nothing_of_empty_lists(tiny_pipeline, caplog):
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        tiny_pipeline.unet.to(torch.float32)
    finally:
        logger.removeHandler(caplog.handler)
    assert "should be kept in float32" not in caplog.text


def test_a_swapped_scheduler_that_cannot_work_is_refused_before_anything_runs(tiny_pipeline):
    own, image = tiny_pipeline.scheduler, torch.rand(1, 3, 32, 32)
    tiny_pipeline.scheduler = diffusers.HeunDiscreteScheduler.from_config(own.config)
    try:
        with pytest.raises(ValueError, match="HeunDiscreteScheduler cannot sample"):
            tiny_pipeline(image, fast=True)
    finally:
        tiny_pipeline.scheduler = own
    tiny_pipeline(image, fast=True, num_inference_steps=3, output_type="pt")
    assert tiny_pipeline.num_timesteps == 3


def test_as_many_generators_as_images(tiny_pipeline):
    generators = [torch.Generator().manual_seed(index) for index in range(3)]
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"generator holds {count} for 2 images"):
            tiny_pipeline(torch.rand(2, 3, 32, 32), fast=True, generator=generators[:count])
    both = [
        tiny_pipeline(
            torch.full((2, 3, 32, 32), 0.5), fast=True, generator=kind(generators[:2]), output_type="pt"
        ).images
        for kind in (list, tuple)
    ]
    assert torch.equal(*both)  # one step is the mean of all samples


def test_a_pipeline_trained_with_a_blur_decoder_does_not_go_without(tiny_pipeline, tiny_pipeline_folder):
    with pytest.raises(ValueError, match="this pipeline was trained with a blur_decoder; load it with that"):
        type(tiny_pipeline).from_pretrained(tiny_pipeline_folder, blur_decoder=None)
