"""Damaged model folders, full disks, and a pickle that tells when it ran."""

import json
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

UNET = "unet/diffusion_pytorch_model.safetensors"


class Flag:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@contextmanager
def room_for(count):
    """Inside, no file grows beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def change(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def retype(path, how):
    tensors = load_file(path)
    save_file({name: how(tensor) for name, tensor in tensors.items()}, path, {"format": "pt"})


DAMAGE = {
    "an earlier version": (
        lambda f: change(f / "blur_decoder/config.json", num_tokens=16),
        "is of bd-diff 0.2.0 or before",
    ),
    "blocks": (lambda f: change(f / "unet/config.json", middle_blocks=10**5), "middle_blocks is 100000"),
    "fewer blocks": (lambda f: change(f / "unet/config.json", middle_blocks=60_000), "many times as large"),
    "levels": (lambda f: change(f / "unet/config.json", encoder_blocks=[2] * 10**4), "many times as large"),
    "width": (lambda f: change(f / "unet/config.json", width=10**12), "width is 1e.12"),
    "queries": (lambda f: change(f / "structure_qformer/config.json", num_queries=50_000), "cannot be loaded"),
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
    "a pipe": (lambda f: pipe(f / "unet/config.json"), "unet/config.json is damaged .it is no file"),
    "a pipe of weights": (lambda f: pipe(f / UNET), "unet holds no .safetensors file"),
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
