"""A model folder made to do harm, or damaged, is one clear line within seconds, and nothing in it runs."""

import json
import pickle
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bd_diff.domain_gap import REFERENCE, read_reference
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.restore import load

ROOT = Path(__file__).parents[1]
UNET = "unet/diffusion_pytorch_model.safetensors"


class Flag:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def folder(tiny_pipeline_folder, tmp_path):
    return shutil.copytree(tiny_pipeline_folder, tmp_path / "model")


def change(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def retype(path, how):
    tensors = load_file(path)
    save_file({name: how(tensor) for name, tensor in tensors.items()}, path, {"format": "pt"})


DAMAGE = {
    "blocks": (lambda f: change(f / "unet/config.json", middle_blocks=10**5), "middle_blocks is 100000"),
    "fewer blocks": (lambda f: change(f / "unet/config.json", middle_blocks=60_000), "many times as large"),
    "levels": (lambda f: change(f / "unet/config.json", encoder_blocks=[2] * 10**4), "many times as large"),
    "width": (lambda f: change(f / "unet/config.json", width=10**12), "width is 1e.12"),
    "queries": (lambda f: change(f / "blur_qformer/config.json", num_queries=50_000), "cannot be loaded"),
    "not a number": (lambda f: change(f / "unet/config.json", latent_scale=float("nan")), "latent_scale is nan"),
    "text": (lambda f: change(f / "unet/config.json", width="8"), "cannot be loaded"),
    "steps": (lambda f: change(f / "model_index.json", default_steps=10**9), "default_steps is 1000000000"),
    "caution": (lambda f: change(f / "model_index.json", caution="much"), "caution is 'much'"),
    "timesteps": (
        lambda f: change(f / "scheduler/scheduler_config.json", num_train_timesteps=10**9),
        "num_train_timesteps is 1e.09",
    ),
    "a list": (lambda f: (f / "unet/config.json").write_text("[1, 2]"), "unet/config.json is damaged .it holds a list"),
    "a list above": (lambda f: (f / "model_index.json").write_text("[]"), "model_index.json is damaged"),
    "nested": (lambda f: (f / "unet/config.json").write_text("[" * 10**5), "nested too deeply|is damaged"),
    "deep": (lambda f: change(f / "unet/config.json", a=json.loads("[" * 500 + "]" * 500)), "cannot be loaded|damaged"),
    "int8": (lambda f: retype(f / UNET, lambda t: t.to(torch.int8)), "is of type I8|cannot be loaded"),
    "float8": (lambda f: retype(f / UNET, lambda t: t.to(torch.float8_e4m3fn)), "is of type F8"),
    "NaN": (lambda f: retype(f / UNET, lambda t: t * float("nan")), "holds NaN or infinite values"),
    "cut": (lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:-9]), f"{UNET} is damaged"),
    "another library": (lambda f: change(f / "model_index.json", unet=["subprocess", "Popen"]), "neither of diffusers"),
    "an own module": (lambda f: change(f / "model_index.json", unet=["my_unet", "Net"]), "neither of diffusers"),
    "a way out": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "../../secret.safetensors"}})
        ),
        "'../../secret.safetensors' is no name of a .safetensors file",
    ),
    "pickled shards": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "a.bin"}})
        ),
        "'a.bin' is no name of a .safetensors file",
    ),
}


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
        (lambda known: known | {"size": known["size"] * float("nan")}, "its size holds NaN"),
        (lambda known: known | {"noise": known["noise"].int()}, "it has no noise, a list of numbers"),
        (lambda known: {name: values for name, values in known.items() if name != "slant"}, "it has no slant"),
        (lambda known: known | {"tokens_mean": torch.zeros(0)}, "its tokens_mean holds NaN or nothing"),
    ],
)
def test_reference_statistics_that_are_none_are_told(tmp_path, damage, told):
    known = load_file(ROOT / "assets/bd-diff-tiny" / REFERENCE)
    save_file(known, tmp_path / REFERENCE)
    assert read_reference(tmp_path).keys() == known.keys()
    save_file(damage(known), tmp_path / REFERENCE)
    with pytest.raises(ValueError, match=f"{REFERENCE} is damaged: {told}"):
        read_reference(tmp_path)
    (tmp_path / REFERENCE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"{REFERENCE} is damaged"):
        read_reference(tmp_path)
