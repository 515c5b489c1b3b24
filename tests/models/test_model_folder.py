"""A model folder made to do harm, or damaged, is one clear line within seconds, and nothing in it runs."""

import pickle
import shutil
import time

import pytest
import torch
from bd_diff_toys.damage import DAMAGE, UNET, Flag
from safetensors.torch import load_file

from bd_diff.baselines.uresnet import UResNet
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


@pytest.mark.parametrize("read", [lambda folder: load(folder, "cpu").pipeline, BDDiffPipeline.from_pretrained])
def test_weights_lie_as_those_of_a_new_network_lie(folder, read):
    networks = [part for part in read(folder).components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for network in networks for tensor in network.state_dict().values()]
    assert len(tensors) > 100 and not any(tensor.data_ptr() % 64 for tensor in tensors)


def test_those_of_a_network_by_itself_lie_so_too(tmp_path):
    UResNet(width=3).save_pretrained(tmp_path)
    assert any(tensor.data_ptr() % 64 for tensor in UResNet.from_pretrained(tmp_path).parameters())
    assert not any(tensor.data_ptr() % 64 for tensor in load(tmp_path, "cpu").network.parameters())
