"""The refined VAE: at first the frozen VAE itself, then each phase teaches its own half."""

import re

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from bd_diff_toys.stable_diffusion import SIZES, save_base, toy_vae
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from typer.testing import CliRunner

from bd_diff import BDDiffPipeline
from bd_diff.blur.kernels import SIZE
from bd_diff.cli import app
from bd_diff.data.crops import seeded
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.models.conditioning import condition, to_latents, to_pixels
from bd_diff.models.fingerprint import fingerprint
from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.stable_diffusion.adapters import add_lora, save_adapter
from bd_diff.stable_diffusion.base_model import load_base
from bd_diff.stable_diffusion.vaes import put_vae
from bd_diff.training.config import load_config
from bd_diff.training.losses import WeightedLosses
from bd_diff.training.pairs import BlurConfig
from bd_diff.training.pipelines import pipeline_from_base
from bd_diff.training.vae_refinement import RefineObjective
from train import refine_vae

BLUR = BlurConfig(families={"gaussian": 1.0}, noise=2 / 255)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return toy_vae().eval()


def moved(refined):
    for name, parameter in refined.named_parameters():
        if name.endswith("leave.weight"):
            torch.nn.init.normal_(parameter, std=0.05)
    return refined


def objective(refined, phase):
    return RefineObjective(refined, phase, WeightedLosses({"mae": 1.0}), BLUR)


def batch(size=2, side=32):
    return {"sharp": torch.stack([procedural_image(side + SIZE - 1, seeded(index)) for index in range(size)])}


def test_untrained_refiners_are_the_identity_to_the_bit(vae):
    refined, pixels = RefinedVAE.around(vae), torch.rand(2, 3, 32, 48) * 2 - 1
    latents = vae.encode(pixels).latent_dist.mode()
    assert torch.equal(refined.encode(pixels).latent_dist.mode(), latents)
    assert torch.equal(refined.refine(pixels)[0], latents)
    assert torch.equal(refined.decode(latents).sample, vae.decode(latents).sample)
    assert torch.equal(refined.decode(latents, source=pixels).sample, vae.decode(latents).sample)


def test_trained_refiners_change_only_what_knows_its_source(vae):
    refined, pixels = moved(RefinedVAE.around(vae)), torch.rand(1, 3, 32, 32) * 2 - 1
    latents = vae.encode(pixels).latent_dist.mode()
    assert torch.equal(refined.encode(pixels).latent_dist.mode(), latents)
    assert torch.equal(refined.decode(latents).sample, vae.decode(latents).sample)
    results = [refined.decode(latents, source=source).sample for source in (pixels, pixels.flip(-1))]
    assert not torch.equal(results[0], vae.decode(latents).sample) and not torch.equal(*results)


@pytest.mark.parametrize("phase", ["encoder", "decoder"])
def test_each_phase_trains_its_own_refiners_and_nothing_else(vae, phase):
    refined = moved(RefinedVAE.around(vae))
    objective(refined, phase)(batch(), seeded(1))["loss"].backward()
    learning = {name for name, parameter in refined.named_parameters() if parameter.grad is not None}
    # The skips meet every resolution once; the encoder's last stages have no skip but make the latents.
    assert learning == {name for name, _ in refined.named_parameters() if name.startswith(f"{phase}_refiners")}


@pytest.mark.parametrize("phase", ["encoder", "decoder"])
def test_a_few_steps_lower_each_phases_loss(vae, phase):
    refined = RefinedVAE.around(vae)
    one, given = objective(refined, phase), batch()
    optimizer = torch.optim.Adam([p for p in refined.parameters() if p.requires_grad], lr=3e-3)
    values = []
    for _ in range(15):
        loss = one(given, seeded(3))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_the_encoder_can_learn_the_features_of_every_stage_too(vae):
    refined = moved(RefinedVAE.around(vae))
    one = RefineObjective(refined, "encoder", WeightedLosses({"mae": 1.0}), BLUR, layer_weight=0.5)
    losses = one(batch(), seeded(1))
    plain = objective(refined, "encoder")(batch(), seeded(1))
    assert losses["layers"] > 0 and torch.equal(losses["latent"], plain["loss"])
    assert torch.allclose(losses["loss"], losses["latent"] + 0.5 * losses["layers"])
    untouched = RefinedVAE.around(vae)
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    assert all(torch.equal(*pair) for pair in zip(untouched.features(pixels), untouched.refine(pixels)[1], strict=True))


def test_the_unet_sees_the_photograph_filtered_and_everything_else_as_it_is(vae):
    refined, guesses = moved(RefinedVAE.around(vae)), torch.rand(2, 4, 3, 32, 32) * 2 - 1
    plain, seen = (condition(one, guesses, 4) for one in (vae, refined))
    assert torch.equal(seen[0], to_latents(refined, guesses[:, 0], degraded=True))
    assert not torch.equal(seen[0], plain[0]) and torch.equal(seen[1][:, 4:], plain[1][:, 4:])
    transfer = guesses[:, :2]  # blur that is wanted, which must not be filtered away
    assert all(
        torch.equal(*pair) for pair in zip(*(condition(one, transfer, 4) for one in (vae, refined)), strict=True)
    )
    alone = guesses[:, :1]  # the paper's model, without an explicit operator
    assert torch.equal(condition(refined, alone, 1)[1], to_latents(refined, alone[:, 0], degraded=True))


def test_init_and_merge_put_it_into_a_pipeline(vae, tmp_path):
    base = save_base(tmp_path / "sd", vae=vae)
    refined = moved(RefinedVAE.around(load_base(base).vae))
    refined.save_pretrained(tmp_path / "refined")
    run = CliRunner().invoke
    sizes = ["--structure-tokens", "3", "--hidden-size", "64", "--layers", "1"]
    init = ["init", "--base", str(base), "--out", str(tmp_path / "out"), *sizes]
    run(app, [*init, "--vae", str(tmp_path / "refined")], catch_exceptions=False)
    pipeline = BDDiffPipeline.from_pretrained(tmp_path / "out")
    assert fingerprint(pipeline.vae) == fingerprint(refined)
    assert pipeline.config.base["sha256"] == load_base(base).sha256  # an adapter still finds the base as it was
    plain = pipeline_from_base(load_base(base), SIZES)
    add_lora(plain.unet, 2)
    save_adapter(plain, tmp_path / "adapter")
    merge = ["merge", str(tmp_path / "adapter"), "--out", str(tmp_path / "whole"), "--vae", str(tmp_path / "refined")]
    run(app, merge, catch_exceptions=False)
    assert fingerprint(BDDiffPipeline.from_pretrained(tmp_path / "whole").vae) == fingerprint(refined)


def test_a_vae_that_does_not_belong_there_is_named(vae, tmp_path):
    pipeline = pipeline_from_base(load_base(save_base(tmp_path / "sd", vae=vae)), SIZES)
    torch.manual_seed(5)
    RefinedVAE.around(toy_vae()).save_pretrained(tmp_path / "other")
    toy_vae().save_pretrained(tmp_path / "plain")
    AutoencoderTiny(latent_channels=16).save_pretrained(tmp_path / "taef1")
    for name, message in (
        ("other", "was refined around another VAE than the pipeline's"),
        ("plain", "holds a AutoencoderKL; a pipeline takes the VAE of its base, or RefinedVAE or AutoencoderTiny"),
        ("taef1", "its latents have 16 channels, and those of the pipeline's 4"),
    ):
        with pytest.raises(ValueError, match=message):
            put_vae(pipeline, tmp_path / name)


def test_an_unknown_phase_is_named(vae):
    with pytest.raises(ValueError, match="phase is 'both'; it must be encoder or decoder"):
        objective(RefinedVAE.around(vae), "both")


def test_it_saves_and_loads_alone_in_a_pipeline_and_in_an_adapter(vae, tmp_path):
    base = save_base(tmp_path / "sd", vae=vae)
    pipeline = pipeline_from_base(load_base(base), SIZES)
    image = torch.rand(1, 3, 32, 40)

    def restored(one, **settings):
        one.set_progress_bar_config(disable=True)
        seed = torch.Generator().manual_seed(0)
        return one(image, num_inference_steps=1, generator=seed, output_type="pt", **settings).images

    plain, blurred = restored(pipeline), restored(pipeline, blur_image=image)
    pipeline.register_modules(vae=moved(RefinedVAE.around(pipeline.vae)))
    pipeline.save_pretrained(tmp_path / "whole")
    expected = restored(pipeline)
    assert not torch.equal(expected, plain)
    assert torch.equal(restored(pipeline, blur_image=image), blurred)  # a transfer has no source of detail
    assert torch.allclose(restored(BDDiffPipeline.from_pretrained(tmp_path / "whole")), expected, atol=1e-5)
    add_lora(pipeline.unet, 2)
    save_adapter(pipeline, tmp_path / "adapter")
    names = set(load_file(tmp_path / "adapter/adapter.safetensors"))
    assert {name.split(".")[1] for name in names if name.startswith("vae.")} == {"encoder_refiners", "decoder_refiners"}
    assert torch.allclose(restored(BDDiffPipeline.from_pretrained(tmp_path / "adapter")), expected, atol=1e-5)


def test_strength_zero_is_the_photograph_itself_and_not_what_was_filtered_of_it(vae, tmp_path):
    pipeline = pipeline_from_base(load_base(save_base(tmp_path / "sd", vae=vae)), SIZES)
    pipeline.register_modules(vae=moved(RefinedVAE.around(pipeline.vae)))
    pipeline.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 32, 32)

    def at(strength, **settings):
        seed = torch.Generator().manual_seed(0)
        return pipeline(image, strength=strength, generator=seed, output_type="pt", **settings).images

    pixels = image * 2 - 1
    latents = to_latents(pipeline.vae, pixels)
    with torch.no_grad():
        detailed = to_pixels(pipeline.vae, latents, pixels)
        plain = to_pixels(pipeline.vae, latents)
    assert torch.allclose(at(0.0), (detailed / 2 + 0.5).clamp(0, 1), atol=1e-5)
    assert torch.allclose(at(0.0, blur_image=image), (plain / 2 + 0.5).clamp(0, 1), atol=1e-5)
    assert not torch.allclose(to_latents(pipeline.vae, pixels, degraded=True), latents, atol=1e-3)
    assert not torch.allclose(at(0.0), at(1.0), atol=1e-2)


def test_training_runs_both_phases_and_says_the_gain(tmp_path, capsys):
    base = save_base(tmp_path / "sd")
    (tmp_path / "sharp").mkdir()
    for index in range(3):
        save_image(to_image(procedural_image(80, seeded(index))), tmp_path / f"sharp/{index}.png")
    (tmp_path / "held.txt").write_text("2.png\n")
    values = {
        "run": {
            "folder": str(tmp_path / "run"),
            "steps": 2,
            "batch_size": 2,
            "warmup_steps": 1,
            "ema_decay": 0.0,
            "trackers": [],
            "cpu": True,
        },
        "base": str(base),
        "optimizer": {"lr": 1e-3},
        "blur": {"families": {"gaussian": 1.0}, "noise": 2 / 255},
        "data": {"sharp": str(tmp_path / "sharp"), "exclude": str(tmp_path / "held.txt"), "crop": 32},
    }
    (tmp_path / "refine.yaml").write_text(yaml.safe_dump(values))
    refine_vae.train(load_config(refine_vae.RefineConfig, ["--config", str(tmp_path / "refine.yaml")]))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert re.search(
        r"held out: .* dB refined, gain [+-]\d+\.\d\d dB; sharp .*detail, gain [+-]\d+\.\d\d dB",
        capsys.readouterr().out,
    )
    refined = RefinedVAE.from_pretrained(tmp_path / "run/vae")
    for half in ("encoder", "decoder"):
        leaving = [p for n, p in refined.named_parameters() if n.startswith(half) and n.endswith("leave.weight")]
        assert any(parameter.any() for parameter in leaving)


def test_the_configuration_for_a_gpu_is_read():
    config = load_config(refine_vae.RefineConfig, ["--config", "configs/sd21_vae.yaml"])
    assert config.loss_weights == {"mae": 1.0, "perceptual": 0.1}
