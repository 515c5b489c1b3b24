"""The grid search and the curriculum study, on their tiny configurations."""

import csv
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bd_diff_toys import ROOT
from PIL import Image

from bd_diff.training.config import load_config


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "train" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GRID, STUDY = script("uresnet_grid"), script("curriculum_study")


@pytest.fixture
def overrides(tmp_path):
    """Where the photographs are and the results go."""
    (tmp_path / "set").mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        pixels = torch.randint(256, (64, 64, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / "set" / f"{index}.png")
    (tmp_path / "validation.txt").write_text("2.png")
    places = {
        "data.dataset_dir": tmp_path,
        "data.dataset_name": "set",
        "data.validation": tmp_path / "validation.txt",
        "run.folder": tmp_path / "results",
    }
    return [f"training.{name}={place}" for name, place in places.items()]


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def counted(module, monkeypatch) -> list[str]:
    """Folders of the trainings that `module` starts from here on."""
    started, train = [], module.train
    monkeypatch.setattr(module, "train", lambda config: started.append(Path(config.run.folder).name) or train(config))
    return started


def test_the_grid_tries_all_losses_and_optimizers_and_then_all_rates_for_the_winner(overrides, tmp_path, monkeypatch):
    config = load_config(GRID.GridConfig, ["--config", str(ROOT / "configs/uresnet/grid_tiny.yaml"), *overrides])
    started = counted(GRID, monkeypatch)
    table = GRID.search(config)
    cells = rows(tmp_path / "results" / "grid.csv")
    pairs = [(cell["losses"], cell["optimizer"]) for cell in cells if not cell["cell"].startswith("lr")]
    assert sorted(pairs) == [(f"1 {loss}", name) for loss in ("mae", "mse") for name in ("rmsprop", "sgd")]
    winner = next(cell for cell in cells if not cell["cell"].startswith("lr"))  # best first
    second = [cell for cell in cells if cell["cell"].startswith("lr")]
    assert {(cell["losses"], cell["optimizer"]) for cell in second} == {(winner["losses"], winner["optimizer"])}
    assert sorted(cell["rho"] for cell in second) == ["0.5", "0.9"]
    assert [float(cell["psnr"]) for cell in cells] == sorted((float(cell["psnr"]) for cell in cells), reverse=True)
    assert table.count("\n") == 2 + 6 and len(started) == 6


def test_a_stopped_grid_trains_only_what_is_missing(overrides, tmp_path, monkeypatch):
    config = load_config(GRID.GridConfig, ["--config", str(ROOT / "configs/uresnet/grid_tiny.yaml"), *overrides])
    whole = GRID.search(config)
    (tmp_path / "results" / "mse-sgd" / "diffusion_pytorch_model.safetensors").unlink()
    started = counted(GRID, monkeypatch)
    assert GRID.search(config) == whole
    assert started == ["mse-sgd"]
    longer = replace(config.training, run=replace(config.training.run, steps=99))
    with pytest.raises(ValueError, match="was begun with run.steps"):
        GRID.search(replace(config, training=longer))


def test_the_study_tests_every_curriculum_and_seed_at_every_level(overrides, tmp_path):
    config = load_config(STUDY.StudyConfig, ["--config", str(ROOT / "configs/xdecode/study_tiny.yaml"), *overrides])
    report = STUDY.study(config)
    lines = rows(tmp_path / "results" / "study.csv")
    trained = {(row["curriculum"], row["seed"], row["level"]) for row in lines if row["seed"]}
    assert trained == {(c, s, n) for c in ("linear", "none", "sigmoid", "stepwise") for s in "01" for n in ("3", "9")}
    assert Image.open(tmp_path / "results" / "study.png").size == (720, 480)
    assert "| as it is |" in report and "Published order: linear, stepwise, sigmoid." in report


def test_the_study_s_table_is_mean_and_spread_over_the_seeds():
    lines = [
        {"curriculum": "linear", "seed": seed, "level": "19", "psnr": psnr, "ssim": ssim}
        for seed, psnr, ssim in (("0", 20.0, 0.5), ("1", 22.0, 0.7))
    ]
    assert STUDY.table(lines) == [{"curriculum": "linear", "level 19: dB / SSIM": "21.00 ± 1.41 / 0.600 ± 0.141"}]


@pytest.mark.parametrize("order, agreement", [(STUDY.PUBLISHED, "1.00"), (STUDY.PUBLISHED[::-1], "-1.00")])
def test_the_ranking_says_how_far_it_agrees_with_the_published_one(order, agreement):
    lines = [{"curriculum": name, "psnr": 20.0 - place} for place, name in enumerate([*order, "none"])]
    text = STUDY.ranking(lines, STUDY.StudyConfig(training=None))
    assert text.startswith(f"Order here, best first, mean over levels and 3 seeds: {order[0]} (20.00 dB)")
    assert text.endswith(f"Rank correlation (Spearman) of the two: {agreement}.")
