"""The task table: every network takes part, the loss goes down, and training stops and resumes."""

import re
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from bd_diff_toys import ROOT, TINY
from bd_diff_toys.short_search import short_search
from safetensors.torch import load_file
from torch import nn

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.kernels import delta, gaussian, line, shake
from bd_diff.data.crops import SharpCrops, seeded
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.models.conditioning import min_snr_weights, prediction_target
from bd_diff.training.checkpoints import newest_checkpoint
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig, joint_objective, joint_samples
from bd_diff.training.kernel_bank import build_bank, read_bank
from bd_diff.training.losses import kernel_loss
from bd_diff.training.objective import JointObjective
from bd_diff.training.pipelines import build_pipeline
from bd_diff.training.samples import JointSamples, collate_joint
from bd_diff.training.tasks import Denoising
from train import joint

WEIGHTS = {
    "kernel": 0.5,
    "deblur": 1.0,
    "transfer": 0.2,
    "cross_crop": 0.1,
    "reconstruction": 0.1,
    "back_translation": 0.1,
}
SEEDED = {  # whatever changes these changes training
    "kernel": 1.6255687475204468,
    "deblur": 1.3309094905853271,
    "transfer": 1.2776483297348022,
    "cross_crop": 2.4135611057281494,
    "reconstruction": 2.4135611057281494,
    "back_translation": 1.483876347541809,
    "loss": 3.0303232669830322,
}
FAMILIES = {"delta": 0.1, "gaussian": 0.3, "line": 0.3, "shake": 0.3}


def make_objective(**settings):
    torch.manual_seed(0)
    pipeline = build_pipeline(TINY)
    networks = nn.ModuleDict({name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)})
    networks["vae"].requires_grad_(False)
    given = {"weights": WEIGHTS, "families": FAMILIES, "crop": 64} | settings
    return JointObjective(networks.train(), pipeline.scheduler, **given)


@pytest.fixture(scope="module")
def photographs():
    return [(procedural_image(140, seeded(index)) * 255).byte() for index in range(3)]


@pytest.fixture(scope="module")
def bank(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    large = [nn.functional.interpolate(p[None].float(), (230, 230))[0].byte() for p in photographs]
    with short_search():
        build_bank(large, folder, count=8, families=FAMILIES, window=192)
    return folder


def batch(photographs, bank=None, targets=None, size=4):
    samples = JointSamples(SharpCrops(photographs, 96, 0), 64, targets, bank)
    return collate_joint([samples[index] for index in range(size)])


def test_every_parameter_gets_a_gradient_with_and_without_bank_and_target(photographs, bank):
    for given in ({}, {"bank": read_bank([bank]), "targets": photographs}):
        objective = make_objective()
        for zero in (objective.networks["unet"].leave.weight, objective.networks["blur_decoder"].to_logits.weight):
            nn.init.normal_(zero, std=0.02)
        losses = objective(batch(photographs, **given), seeded(1))
        losses["loss"].backward()
        trained = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
        assert [name for name, p in trained if p.grad is None] == []
        assert ("cross_crop" in losses) == ("targets" in given)
        assert all(loss.isfinite() for loss in losses.values())


def test_without_a_weight_on_the_kernel_the_decoder_stays_and_all_that_trains_still_gets_a_gradient(tiny_pipeline):
    pipeline = build_pipeline(TINY)
    config = load_config(
        JointConfig, ["--config", str(ROOT / "configs/bd_diff_tiny/smoke.yaml"), "weights.kernel=0", "weights.carry=0"]
    )
    objective = joint_objective(config, pipeline)
    for parameter in objective.networks["unet"].parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    samples = JointSamples(SharpCrops([torch.rand(3, 140, 140)], 96, 0), config.data.crop)
    objective(collate_joint([samples[0], samples[1]]), seeded(1))["loss"].backward()
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert not any("blur_decoder" in name for name in trained)


def test_the_loss_is_the_weighted_sum_of_the_tasks(photographs):
    losses = make_objective()(batch(photographs, targets=photographs), seeded(1))
    total = sum(WEIGHTS[task] * loss for task, loss in losses.items() if task != "loss")
    assert torch.allclose(losses["loss"], total)


def test_the_same_generator_gives_the_same_losses(photographs):
    objective, given = make_objective(), batch(photographs)
    assert torch.equal(objective(given, seeded(7))["loss"], objective(given, seeded(7))["loss"])
    assert not torch.equal(objective(given, seeded(7))["loss"], objective(given, seeded(8))["loss"])


def test_the_seeded_losses_are_what_they_have_been(photographs):
    objective = make_objective()
    for zero in (objective.networks["unet"].leave.weight, objective.networks["blur_decoder"].to_logits.weight):
        nn.init.normal_(zero, std=0.02, generator=seeded(5))
    losses = objective(batch(photographs, targets=photographs), seeded(1))
    assert {task: loss.item() for task, loss in losses.items()} == pytest.approx(SEEDED, rel=1e-5)


def test_back_translation_waits_for_its_step(photographs):
    waiting = make_objective(back_translation_from=2)
    given = batch(photographs, targets=photographs)
    values = [waiting(given, seeded(1))["back_translation"].item() for _ in range(4)]
    assert values[0] == values[1] == 0 and values[2] > 0 and values[3] > 0


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="there is no task deblurr to weigh"):
        make_objective(weights={"deblurr": 1.0})


def test_a_few_steps_on_one_batch_lower_the_loss(photographs):
    objective, given = make_objective(), batch(photographs)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    values = []
    for _ in range(25):
        losses = objective(given, seeded(3))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(losses["loss"].item())
    assert values[-1] < 0.8 * values[0]


def test_kernel_loss_is_zero_for_the_true_kernel_and_sees_a_mirrored_one():
    true = shake(torch.tensor([16.0]), torch.Generator().manual_seed(0))
    assert kernel_loss(true, true) < 1e-3
    assert kernel_loss(true.flip(1, 2), true) > 0.2
    soft, softer = gaussian(torch.tensor([2.0])), gaussian(torch.tensor([2.5]))
    assert kernel_loss(soft, softer) < kernel_loss(delta(1), softer)
    assert kernel_loss(line(torch.tensor([9.0]), torch.tensor([0.0])), true) > kernel_loss(soft, softer)


@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
def test_a_step_undoes_what_the_prediction_target_says(prediction_type):
    scheduler = build_pipeline(
        TINY | {"scheduler": {"prediction_type": prediction_type, "clip_sample": False}}
    ).scheduler
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    noisy = scheduler.add_noise(clean, noise, torch.tensor([700, 700]))
    perfect = prediction_target(scheduler, clean, noise, torch.tensor([700, 700]))
    scheduler.set_timesteps(10)
    assert torch.allclose(scheduler.step(perfect, 700, noisy).pred_original_sample, clean, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["sample", "epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_paper(prediction_type):
    scheduler = build_pipeline(TINY | {"scheduler": {"prediction_type": prediction_type}}).scheduler
    timesteps = torch.tensor([1, 300, 998])
    snr = scheduler.alphas_cumprod[timesteps] / (1 - scheduler.alphas_cumprod[timesteps])
    assert snr[0] > 5 > snr[1] > snr[2]
    divided = {"sample": 1, "epsilon": snr, "v_prediction": snr + 1}[prediction_type]
    expected = torch.stack([torch.tensor(5.0), snr[1], snr[2]]) / divided
    assert torch.allclose(min_snr_weights(scheduler, timesteps, 5.0), expected)


def test_by_the_logarithm_every_image_counts_alike():
    wrong = torch.ones(2, 12, 8, 8) * torch.tensor([1.0, 10.0])[:, None, None, None]
    target = Denoising(wrong, torch.zeros(2), wrong, torch.zeros_like(wrong), wrong)
    better = [wrong * torch.tensor(shares)[:, None, None, None] for shares in ([0.5, 1.0], [1.0, 0.5])]
    gained = [make_objective(error="log").error_of(one, target) for one in (wrong, *better)]
    assert gained[1] < gained[0] and torch.allclose(gained[1], gained[2], atol=0.01)
    squared = [make_objective(error="squared").error_of(one, target) for one in better]
    assert squared[1] < 0.5 * squared[0]
    with pytest.raises(ValueError, match="error is 'logarithm'; it must be one of absolute, squared, log"):
        make_objective(error="logarithm")


def test_a_sample_depends_on_its_index_alone(photographs):
    samples = JointSamples(SharpCrops(photographs, 96, 0), 64, photographs)
    again = JointSamples(SharpCrops(photographs, 96, 0), 64, photographs)
    backwards = [again[index] for index in (5, 3)]
    assert torch.equal(samples[3]["sharp"], backwards[1]["sharp"])
    assert torch.equal(samples[3]["target"], backwards[1]["target"])
    assert not torch.equal(samples[3]["sharp"], samples[5]["sharp"])


def test_the_bank_is_kept_when_building_goes_on_and_banked_samples_come_first(photographs, bank):
    (first,) = sorted(bank.glob("*.safetensors"))
    before = first.stat().st_mtime_ns
    build_bank([p.repeat(1, 2, 2) for p in photographs], bank, count=8, families=FAMILIES, window=192)
    assert first.stat().st_mtime_ns == before
    read = read_bank([bank])
    assert read["blurry"].shape == (8, 3, 192, 192) and read["evidence"].shape == (8, 2, 33, 33)
    together = batch(photographs, bank=read)
    assert together["sharp"].shape == (4, 3, 96, 96) and together["bank_kernel"].shape == (2, 33, 33)
    with pytest.raises(ValueError, match="holds no kernel bank"):
        read_bank([bank / "nowhere"])


def arguments(folder, *overrides):
    return ["--config", str(ROOT / "configs/bd_diff_tiny/smoke.yaml"), f"run.folder={folder}", *overrides]


def test_a_training_killed_at_any_moment_resumes_to_the_same_weights_bit_for_bit(warm_python, photographs, tmp_path):
    (tmp_path / "target").mkdir()
    for index, photograph in enumerate(photographs):
        save_image(to_image(photograph / 255), tmp_path / f"target/{index}.png")
    given = [f"data.target={tmp_path / 'target'}", "run.steps=8", "run.save_minutes=0"]
    joint.main(arguments(tmp_path / "whole", *given))
    command = [*warm_python, str(ROOT / "train/joint.py"), *arguments(tmp_path / "parts", *given)]
    running = subprocess.Popen(command, cwd=ROOT)
    while newest_checkpoint(tmp_path / "parts") is None and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert again.returncode == 1 and "already holds a training; pass --resume" in again.stderr
    assert "Traceback" not in again.stderr
    joint.main(arguments(tmp_path / "parts", *given, "--resume"))
    paths = sorted(path.relative_to(tmp_path / "whole") for path in tmp_path.glob("whole/pipeline/*/*.safetensors"))
    assert len(paths) == 6
    for path in paths:
        expected, found = load_file(tmp_path / "whole" / path), load_file(tmp_path / "parts" / path)
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_dry_run_prints_sizes_and_stops(tmp_path, capsys):
    joint.main(arguments(tmp_path / "run", "--dry-run"))
    printed = capsys.readouterr().out
    assert "blur_qformer" in printed and "frozen" in printed and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.stepz=3", "there is no stepz; did you mean steps?"),
        ("data.sharp=nowhere", "nowhere"),
        ("networks.unet.widht=3", "NAFUNet has no widht; did you mean width?"),
        ("optimizer.lr=1e-3", "optimizer"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_the_key(override, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        joint.main(arguments(tmp_path / "run", override))


def test_one_unreadable_photograph_among_many_is_named_before_training_starts(photographs, tmp_path):
    (tmp_path / "sharp").mkdir()
    save_image(to_image(photographs[0] / 255), tmp_path / "sharp/good.png")
    (tmp_path / "sharp/bad.png").write_text("not an image")
    with pytest.raises(ValueError, match="bad.png"):
        joint.main(arguments(tmp_path / "run", f"data.sharp={tmp_path / 'sharp'}"))
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_the_configuration_for_cameras_is_read_and_a_curve_that_is_none_is_told(tiny_pipeline):
    config = load_config(JointConfig, ["--config", str(ROOT / "configs/bd_diff_tiny/cameras.yaml")])
    assert config.linear_light and config.curve == "srgb" and config.jpeg == 70
    with pytest.raises(ValueError, match="camera curve is '1e-4'; it must be 'srgb' or a gamma exponent"):
        joint_objective(replace(config, curve="1e-4", trained=()), tiny_pipeline)


def test_a_share_of_the_photographs_is_made_in_light_and_half_go_through_jpeg(tiny_pipeline):
    given = {"weights": {"deblur": 1.0}, "families": {"line": 1.0}, "noise": 0.0}
    networks = nn.ModuleDict({k: v for k, v in tiny_pipeline.components.items() if isinstance(v, nn.Module)})
    sharp = torch.stack([procedural_image(96, seeded(index)) for index in range(16)])
    kernels = line(torch.full((16,), 15.0), torch.zeros(16))

    def capture(**camera):
        objective = JointObjective(networks, tiny_pipeline.scheduler, **given, **camera)
        return objective.camera.capture(sharp, kernels, seeded(0))

    display, light, both = capture(), capture(curve="srgb"), capture(curve="srgb", curve_share=0.5)
    as_light = [torch.allclose(one, other, atol=1e-6) for one, other in zip(both, light, strict=True)]
    as_display = [torch.allclose(one, other, atol=1e-6) for one, other in zip(both, display, strict=True)]
    assert not torch.allclose(light, display, atol=0.01)
    assert 3 < sum(as_light) < 13 and all(a != b for a, b in zip(as_light, as_display, strict=True))
    changed = [not torch.equal(one, other) for one, other in zip(capture(jpeg=50), display, strict=True)]
    assert 3 < sum(changed) < 13
    changed = [
        not torch.equal(one, other) for one, other in zip(capture(jpeg=50, jpeg_share=1.0), display, strict=True)
    ]
    assert all(changed)


def test_with_a_variation_half_of_the_batches_differ_from_what_the_kernels_that_are_learnt_give(photographs, bank):
    objective = make_objective(families={"disc": 1.0}, variation=0.8, noise=0.0)
    given, differing = batch(photographs, read_bank([bank])), 0
    banked = len(given["bank_kernel"])
    for seed in range(8):
        _, blurry, kernels, _ = objective.synthesize(given, seeded(seed))
        assert torch.equal(kernels[:banked], given["bank_kernel"]) and kernels.shape == (4, 33, 33)
        far = (objective.camera.capture(given["sharp"], kernels, seeded(seed)) * 2 - 1 - blurry).abs().amax((1, 2, 3))
        assert far[:banked].max() < 1e-5  # banked kernels are for the whole image
        differing += bool(far[banked:].min() > 0.01)
    assert 0 < differing < 8


def test_with_a_skew_most_photographs_have_little_noise():
    flat, none = torch.full((64, 3, 40, 40), 0.5), delta(64)
    spreads = [
        RandomCamera(noise=0.03, noise_skew=skew).capture(flat, none, seeded(0)).std((1, 2, 3)) for skew in (1, 2)
    ]
    assert all(spread.max() < 0.031 for spread in spreads)
    assert 0.011 < spreads[0].median() < 0.019 and spreads[1].median() < 0.011


def test_photographs_that_no_task_looks_at_are_told():
    config = load_config(
        JointConfig, ["--config", str(ROOT / "configs/bd_diff_tiny/adapt.yaml"), "data.target=anywhere"]
    )
    with pytest.raises(ValueError, match="data.target: no task on photographs has a weight; give one to cross_crop"):
        joint_samples(config)
