import importlib.util

import pytest
import torch
from bd_diff_toys import ROOT
from bd_diff_toys.adarevd import noise, toy
from PIL import Image

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.adarevd_data import PairCrops, cases, crops, held_out_pairs, held_out_split
from bd_diff.baselines.nafnet import NAFNet
from bd_diff.data.images import to_image
from bd_diff.training.config import load_config
from bd_diff.training.pairs import BORDER, BlurConfig, DataConfig

spec = importlib.util.spec_from_file_location("train_adarevd", ROOT / "train" / "adarevd.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def run(config, folder, *overrides):
    """Train a stage in `folder`, its data read from this repository."""
    data = f"data.dataset_dir={ROOT / 'assets/samples'}"
    script.train(
        load_config(script.AdaRevDConfig, ["--config", str(ROOT / config), data, *overrides, f"run.folder={folder}"])
    )


def test_the_four_stages_follow_one_another(tmp_path, capsys):
    run("configs/adarevd/tiny/nafnet.yaml", tmp_path / "nafnet")
    run("configs/adarevd/tiny/decoders.yaml", tmp_path / "decoders", f"start={tmp_path / 'nafnet'}")
    run("configs/adarevd/tiny/classifier.yaml", tmp_path / "classifier", f"start={tmp_path / 'decoders'}")
    run("configs/adarevd/tiny/exits.yaml", tmp_path / "exits", f"start={tmp_path / 'classifier'}")
    nafnet = NAFNet.from_pretrained(tmp_path / "nafnet")
    stages = {name: AdaRevD.from_pretrained(tmp_path / name) for name in ("decoders", "classifier", "exits")}
    weights = {name: network.state_dict() for name, network in stages.items()}
    for name, tensor in nafnet.encoder.state_dict().items():
        assert torch.equal(tensor, weights["exits"][f"encoder.{name}"])
    for name, tensor in weights["decoders"].items():
        assert torch.equal(tensor, weights["exits"][name])
    assert stages["classifier"].config.exit_table is None and len(stages["exits"].config.exit_table) == 6
    assert sum(stages["exits"].config.exit_counts) == 4
    assert "exit table for tau = 0.05 dB" in capsys.readouterr().out
    again = f"start={tmp_path / 'exits'}", "exits.crops=0", "exits.tau=1000"
    run("configs/adarevd/tiny/exits.yaml", tmp_path / "again", *again)
    seen = [count > 0 for count in stages["exits"].config.exit_counts]
    assert AdaRevD.from_pretrained(tmp_path / "again").config.exit_table == [0 if one else 2 for one in seen]


@pytest.mark.parametrize(
    "config", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("configs/adarevd/**/*.yaml"))
)
def test_every_config_is_read(config):
    read = load_config(script.AdaRevDConfig, ["--config", str(ROOT / config)])
    with torch.device("meta"):
        if read.stage == "decoders":
            AdaRevD(**read.network)
        elif read.stage == "nafnet":
            NAFNet(**read.network)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["stage=encoder"], "the stages are nafnet, decoders, classifier, exits"),
        (["start=somewhere"], "stage nafnet: start must not be given"),
        (["stage=decoders"], "stage decoders: start must be given"),
        (["network.widht=4"], "did you mean width"),
        (["held_out=1"], "leaves none of 3 photographs or scenes to train on"),
    ],
)
def test_a_wrong_setting_stops_before_training(overrides, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run("configs/adarevd/tiny/nafnet.yaml", tmp_path / "run", *overrides)


def test_a_stage_refuses_what_another_stage_left(tmp_path):
    NAFNet(4, (1, 1), 1, (1, 1)).save_pretrained(tmp_path / "nafnet")
    NAFNet(8, (1, 1), 1, (1, 1)).save_pretrained(tmp_path / "wider")
    with pytest.raises(ValueError, match="holds a NAFNet; this stage starts from AdaRevD"):
        run("configs/adarevd/tiny/classifier.yaml", tmp_path / "run", f"start={tmp_path / 'nafnet'}")
    with pytest.raises(ValueError, match=r"intro.weight is \(8, 3, 3, 3\) and should be \(4, 3, 3, 3\)"):
        run("configs/adarevd/tiny/decoders.yaml", tmp_path / "run", f"start={tmp_path / 'wider'}")


def test_the_classifier_is_not_trained_on_more_than_a_tile(tmp_path):
    toy(2).save_pretrained(tmp_path / "decoders")
    with pytest.raises(ValueError, match="data.crop is 48; the classifier sees tiles of 32"):
        start = f"start={tmp_path / 'decoders'}"
        run("configs/adarevd/tiny/classifier.yaml", tmp_path / "run", start, "data.crop=48")


def test_scenes_stay_on_one_side_of_the_split():
    frames, groups = list(range(12)), ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert held_out_split(frames, groups, 2) == ([4, 5, 6, 7], [0, 1, 2, 3, 8, 9, 10, 11])
    assert held_out_split(frames, ["one"] * 12, 5) == ([1, 2, 3, 4, 6, 7, 8, 9, 11], [0, 5, 10])
    assert held_out_split(frames, groups, 0) == (frames, [])


def pair_folder(folder):
    """Two scenes in GoPro's layout; the blurry side is half the sharp one, so that pairs can be recognised."""
    for scene in ("first", "second"):
        for side, factor in (("sharp", 1.0), ("blur", 0.5)):
            place = folder / "train" / scene / side
            place.mkdir(parents=True)
            for frame in range(2):
                to_image(factor * noise(3, 24, 28, seed=frame)).save(place / f"{frame}.png")
    return DataConfig(str(folder.parent), folder.name, crop=16, validation_size=16)


def test_pairs_are_cropped_together_and_are_a_function_of_the_index(tmp_path):
    samples = crops(pair_folder(tmp_path / "pairs"), every=2, seed=3)
    assert isinstance(samples, PairCrops) and {item.name for item in samples.items} == {"second/0", "second/1"}
    for index in range(4):
        sample = samples[index]
        assert sample["sharp"].shape == (3, 16, 16)
        torch.testing.assert_close(sample["blurry"], sample["sharp"] / 2, atol=1 / 255, rtol=0)
        assert torch.equal(sample["sharp"], samples[index]["sharp"])
    assert not torch.equal(samples[0]["sharp"], samples[1]["sharp"])


def test_pairs_are_validated_on_scenes_kept_from_training(tmp_path):
    data = pair_folder(tmp_path / "pairs")
    ((name, (blurry, sharp)),) = cases(data, every=2).items()
    assert name == "held-out" and blurry.shape == sharp.shape == (2, 3, 16, 16)
    (pair, _) = held_out_pairs(data, 2, BlurConfig(), count=2, seed=0)
    assert pair[0].shape == (1, 3, 16, 16)


def test_sharp_crops_reach_beyond_what_is_seen_and_held_out_photographs_are_others(tmp_path):
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index,) * 3).save(tmp_path / f"{index}.png")
    data = DataConfig(str(tmp_path.parent), tmp_path.name, crop=16)
    train, held = (crops(data, 2, 0, held_out=side) for side in (False, True))
    assert train[0]["sharp"].shape == (3, 16 + BORDER, 16 + BORDER)
    shades = [{round(side[index]["sharp"].mean().item() * 255) for index in range(20)} for side in (train, held)]
    assert shades == [{60, 180}, {0, 120}]
    blurry, sharp = next(held_out_pairs(data, 2, BlurConfig(), count=1, seed=0))
    assert blurry.shape == sharp.shape == (1, 3, 16, 16)


def test_nothing_held_out_cannot_be_measured(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    data = DataConfig(str(tmp_path.parent), tmp_path.name, crop=16)
    with pytest.raises(ValueError, match="nothing is kept from training"):
        crops(data, 0, 0, held_out=True)
