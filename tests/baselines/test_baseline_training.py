"""The train scripts of U-ResNet and X-DECODE on their tiny configurations."""

import importlib.util
import json
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from bd_diff_toys import ROOT
from PIL import Image
from safetensors.torch import load_file

from bd_diff.baselines.validation import validation_cases
from bd_diff.restore import load
from bd_diff.training.config import RunConfig, load_config
from bd_diff.training.pairs import BlurConfig, DataConfig, training_samples

CONFIGS = {"uresnet": "UResNetConfig", "xdecode": "XDecodeConfig"}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def script(system: str):
    """The train script as a module."""
    spec = importlib.util.spec_from_file_location(f"train_{system}", ROOT / "train" / f"{system}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPTS = {system: script(system) for system in CONFIGS}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder `set` of six photographs, and the list of the two for validation."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "set").mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(6):
        pixels = torch.randint(256, (10, 12, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(pixels).resize((96, 80), Image.Resampling.BICUBIC).save(folder / "set" / f"{index}.png")
    (folder / "validation.txt").write_text("1.png\n4.png\n")
    return folder


def arguments(system: str, photographs: Path, folder: Path, *overrides: str) -> list[str]:
    config = ROOT / "configs" / system / f"{system}_tiny.yaml"
    data = [f"data.dataset_dir={photographs}", "data.dataset_name=set"]
    data.append(f"data.validation={photographs / 'validation.txt'}")
    return ["--config", str(config), *data, f"run.folder={folder}", *overrides]


def train(system: str, given: list[str]) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    module = SCRIPTS[system]
    module.train(load_config(getattr(module, CONFIGS[system]), given))


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, photographs, tmp_path_factory):
    """A system's name and the folder of its finished training of 40 steps."""
    folder = tmp_path_factory.mktemp(request.param)
    train(request.param, arguments(request.param, photographs, folder, "run.steps=40", "run.trackers=[tensorboard]"))
    return request.param, folder


def test_a_killed_training_resumes_to_the_same_weights_bit_for_bit(warm_python, trained, photographs, tmp_path):
    """SIGKILL leaves no chance to clean up: what is on disk must be enough."""
    system, whole = trained
    given = arguments(system, photographs, tmp_path, "run.steps=40", "run.save_minutes=0.0")
    process = subprocess.Popen(
        [*warm_python, str(ROOT / "train" / f"{system}.py"), *given],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not list(tmp_path.glob("checkpoint-[3-9]*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / WEIGHTS).exists(), "it was killed too late"

    train(system, [*given, "--resume"])
    expected, weights = load_file(whole / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


def test_the_last_and_the_best_model_restore_images_of_any_size(trained):
    images = torch.rand(2, 3, 21, 38)
    for folder in (trained[1], trained[1] / "best"):
        restored = load(folder, device="cpu")(images)
        assert restored.shape == images.shape and restored.isfinite().all()


def test_the_trackers_have_the_curves_and_the_pictures_of_the_best_step(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    system, folder = trained
    events = EventAccumulator(str(folder / "logs")).Reload()
    curve = {event.step: event.value for event in events.Scalars("validation/psnr")}
    best = json.loads((folder / "best.json").read_text())
    assert best["step"] in curve and curve[best["step"]] == pytest.approx(max(curve.values()))
    assert best["psnr"] == pytest.approx(max(curve.values()), rel=1e-5)
    case = {"uresnet": "shake", "xdecode": "29"}[system]
    assert events.Images(f"validation/{case}") and events.Scalars("train/l1" if system == "xdecode" else "train/mae")


@pytest.mark.parametrize("system", CONFIGS)
def test_a_dry_run_prints_sizes_and_writes_nothing(system, photographs, tmp_path, capsys):
    train(system, arguments(system, photographs, tmp_path / "run", "--dry-run"))
    assert "trained" in capsys.readouterr().out and not (tmp_path / "run").exists()


@pytest.mark.parametrize("system", CONFIGS)
def test_a_folder_of_pairs_is_trained_and_validated_on(system, photographs, tmp_path):
    pairs = tmp_path / "pairs"
    for side in ("blur", "sharp"):
        (pairs / side).mkdir(parents=True)
        for path in (photographs / "set").iterdir():
            Image.open(path).save(pairs / side / path.name)
    given = arguments(system, tmp_path, tmp_path / "run", "data.dataset_name=pairs", f"data.validation={pairs}")
    with pytest.raises(ValueError, match="follows no curriculum; set data.own_blur=false"):
        train(system, given)
    train(system, [*given, "blur.curriculum=none"])
    assert list(json.loads((tmp_path / "run" / "best.json").read_text())) == ["step", "psnr/all", "ssim/all", "psnr"]


def test_the_sharp_side_of_pairs_can_be_blurred_by_a_curriculum_instead(tmp_path):
    pairs = tmp_path / "pairs"
    for side in ("blur", "sharp"):
        (pairs / side).mkdir(parents=True)
        Image.new("RGB", (64, 64), "red" if side == "sharp" else "blue").save(pairs / side / "0.png")
    data = DataConfig(str(tmp_path), "pairs", str(pairs), own_blur=False, crop=16, validation_size=32, levels=(3, 9))
    run = RunConfig("runs/none", steps=10, batch_size=2)
    sample = training_samples(data, BlurConfig(curriculum="linear"), run)[0]
    assert set(sample) == {"sharp", "severity"}
    assert torch.equal(sample["sharp"], torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 48, 48))
    assert list(validation_cases(data)) == ["3", "9"]


@pytest.mark.parametrize(
    "system, override, sentence",
    [
        ("uresnet", "optimizer.name=rmsprob", "optimizer.name is 'rmsprob'; the optimizers are rmsprop"),
        ("uresnet", "network.widht=2", "UResNet has no widht; did you mean width"),
        ("uresnet", "loss_weights.mea=1.0", "no loss 'mea'"),
        ("uresnet", "blur.curriculum=quick", "no curriculum 'quick'"),
        ("uresnet", "data.crop=64", "at least 96 pixels a side"),
        ("xdecode", "data.crop=40", "data.crop is 40; this generator needs a multiple of 16"),
        ("xdecode", "generator.nfg=2", "Generator has no nfg; did you mean ngf"),
        ("xdecode", "discriminator.ndf=two", "discriminator.ndf is 'two'; expected int"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(system, override, sentence, photographs, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        train(system, arguments(system, photographs, tmp_path, override))


def test_a_plateau_without_validation_is_refused(photographs, tmp_path):
    given = arguments("xdecode", photographs, tmp_path, "optimizer.plateau={patience: 1}", "data.validation=null")
    with pytest.raises(ValueError, match="name its photographs in data.validation"):
        train("xdecode", given)


def test_the_words_of_the_original_command_line_are_overrides():
    words = ["--model_path", "runs/a", "--dataset_dir=data", "--dataset_name", "gopro", "--config", "c.yaml", "a.b=1"]
    expected = ["--config", "c.yaml", "a.b=1", "run.folder=runs/a", "data.dataset_dir=data", "data.dataset_name=gopro"]
    assert SCRIPTS["uresnet"].original_words(words) == expected


def test_the_script_ends_with_one_line_for_a_wrong_setting(monkeypatch, tmp_path):
    config = ROOT / "configs" / "uresnet" / "uresnet_tiny.yaml"
    monkeypatch.setattr(sys, "argv", ["uresnet.py", "--config", str(config), "--dataset_dir", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "train" / "uresnet.py"), run_name="__main__")
    assert end.value.code == f"error: {tmp_path / 'samples'} is not a folder"
