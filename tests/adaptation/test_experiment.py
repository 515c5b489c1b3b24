"""The experiment: every row in its place, nothing done twice, no photograph on both sides."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from bd_diff_toys import ROOT

from bd_diff.adaptation import blur_mix
from bd_diff.adaptation.experiment import ROWS, ExperimentConfig, make_domains, run_experiment
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.training.config import load_config
from bd_diff.training.pipelines import build_pipeline
from train import experiment

CONFIGS = ROOT / "configs/experiment"


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    """Little is enough to tell a blur that nobody judges here."""
    of_many = blur_mix.source_features
    monkeypatch.setattr(blur_mix, "source_features", lambda *given: of_many(*given[:3], count=4))


@pytest.fixture
def given(tmp_path):
    for index in range(6):
        image = procedural_image(112, torch.Generator().manual_seed(index))
        save_image(to_image(image), tmp_path / f"sharp/{index}.png")
    (tmp_path / "val.txt").write_text("2.png\n")
    names = {"run.folder": tmp_path / "out", "sharp": tmp_path / "sharp", "test": tmp_path / "val.txt"}
    return ["--config", str(CONFIGS / "tiny.yaml"), *(f"{name}={value}" for name, value in names.items())]


def test_every_row_is_trained_scored_and_kept(given, tmp_path):
    experiment.main([*given, "targets=[rolling-shake]", "seeds=[0]"])
    rows = json.loads((tmp_path / "out/results.json").read_text())
    assert [row["row"] for row in rows] == list(ROWS) and all(row["psnr"] > 3 for row in rows)
    by_name = {row["row"]: row for row in rows}
    assert by_name["input"]["gain"] == 0 and by_name["joint"]["parameters"] > by_name["regression"]["parameters"] > 0
    table = (tmp_path / "out/table.md").read_text()
    assert all(f"| {name} |" in table for name in ROWS)
    # A second run finds all of it: the weights that it would train from are gone, and it does not miss them.
    shutil.rmtree(tmp_path / "out/seed0/source/checkpoint-2")
    config = load_config(ExperimentConfig, [*given, "targets=[rolling-shake]", "seeds=[0]"])
    assert run_experiment(config) == rows
    with pytest.raises(ValueError, match="out was begun with run.steps 2, now it is 999"):
        experiment.main([*given, "run.steps=999"])


def test_a_photograph_is_blurred_for_the_target_or_sharp_to_learn_from_or_scored(given, tmp_path):
    excluded = make_domains(load_config(ExperimentConfig, given), tmp_path / "out")
    sharp = {path.stem for path in (tmp_path / "sharp").iterdir()} - {
        Path(name).stem for name in excluded.read_text().split()
    }
    for target in ("rolling-shake", "defocus"):
        blurry, test = (
            {path.stem for path in (tmp_path / f"out/domains/{target}/{part}/blurry").iterdir()}
            for part in ("train", "test")
        )
        assert test == {"2"} and not sharp & blurry and sharp | blurry | test == {str(index) for index in range(6)}


def test_the_regression_network_is_as_large_as_the_model_it_is_compared_with():
    from bd_diff.baselines.nafnet import NAFNet

    config = load_config(ExperimentConfig, ["--config", str(CONFIGS / "full.yaml")])
    pipeline = build_pipeline(config.networks)
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    size = sum(parameter.numel() for network in networks for parameter in network.parameters())
    regression = sum(parameter.numel() for parameter in NAFNet(**config.regression).parameters())
    assert regression == pytest.approx(size, rel=0.15)


def test_a_name_that_is_not_there_is_told(given, tmp_path):
    (tmp_path / "val.txt").write_text("nothing.png\n")
    with pytest.raises(ValueError, match="lists nothing.png, which is not in"):
        experiment.main(given)


def test_a_table_of_nothing_is_refused(given, tmp_path):
    with pytest.raises(ValueError, match="targets: at least one is needed"):
        experiment.main([*given, "targets=[]"])
    assert not (tmp_path / "out").exists()
