"""A model folder made to do harm, or damaged, is one clear line within seconds, and nothing in it runs."""

import pickle
import shutil
import time

import pytest
import torch
from bd_diff_toys import ROOT
from bd_diff_toys.damage import DAMAGE, UNET, Flag
from safetensors.torch import load_file, save_file

from bd_diff.adaptation.domain_gap import REFERENCE, read_reference
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.restore import load


@pytest.fixture
def folder(tiny_pipeline_folder, tmp_path):
    return shutil.copytree(tiny_pipeline_folder, tmp_path / "model")


@pytest.mark.parametrize("name", DAMAGE)
def test_a_hostile_or_damaged_folder_is_one_line_within_seconds(folder, name):
    damage, told = DAMAGE[name]
    damage(folder)
    started = time.monotonic()
    with pytest.raises(ValueError, match=told) as raised:
        load(folder, "cpu")
    assert time.monotonic() - started < 20 and len(str(raised.value)) < 1000
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("read", [lambda folder: load(folder, "cpu"), BDDiffPipeline.from_pretrained])
def test_a_pickle_beside_renamed_weights_is_neither_run_nor_taken_for_them(folder, tmp_path, read):
    (folder / UNET).rename(folder / "unet/weights.safetensors")
    for name in ("diffusion_pytorch_model.bin", "pytorch_model.bin"):
        with open(folder / "unet" / name, "wb") as file:
            pickle.dump(Flag(tmp_path / "ran"), file)
    with pytest.raises((ValueError, OSError), match="safetensors"):
        read(folder)
    torch.save(load_file(folder / "unet/weights.safetensors"), folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises((ValueError, OSError), match="safetensors"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def test_a_whole_folder_loads(folder):
    assert load(folder, "cpu").pipeline.config.default_steps == 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda readings: readings | {"size": readings["size"] * float("nan")}, "its size holds NaN"),
        (lambda readings: readings | {"noise": readings["noise"].int()}, "it has no noise, a list of numbers"),
        (lambda readings: {name: values for name, values in readings.items() if name != "slant"}, "it has no slant"),
        (lambda readings: readings | {"tokens_mean": torch.zeros(0)}, "its tokens_mean holds NaN or nothing"),
    ],
)
def test_reference_statistics_that_are_none_are_told(tmp_path, damage, told):
    readings = load_file(ROOT / "assets/bd-diff-tiny" / REFERENCE)
    save_file(readings, tmp_path / REFERENCE)
    assert read_reference(tmp_path).keys() == readings.keys()
    save_file(damage(readings), tmp_path / REFERENCE)
    with pytest.raises(ValueError, match=f"{REFERENCE} is damaged: {told}"):
        read_reference(tmp_path)
    (tmp_path / REFERENCE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"{REFERENCE} is damaged"):
        read_reference(tmp_path)
