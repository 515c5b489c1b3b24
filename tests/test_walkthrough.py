"""The commands of assets/docs/stable-diffusion.md, from a hub id to a scored adapter, work on a toy base."""

import os
import re
import shlex
import subprocess

import yaml
from bd_diff_toys import ROOT
from bd_diff_toys.stable_diffusion import SIZES, save_base

from bd_diff.data.crops import seeded
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image

RUN = {"steps": 2, "batch_size": 2, "validate_every": 2, "warmup_steps": 1, "trackers": [], "cpu": True}
JOINT = {
    "run": RUN | {"folder": "runs/sd21_24gb"},
    "lora_rank": 2,
    "networks": SIZES,
    "optimizer": {"lr": 1e-3},
    "weights": {"kernel": 0.5, "deblur": 1.0, "transfer": 0.2, "cross_crop": 0.1, "back_translation": 0.1},
    "families": {"gaussian": 1.0},
    "data": {"window": 64, "crop": 64, "exclude": "val.txt", "validation_photographs": 1},
    "sampling_steps": 1,
}
REFINE = {
    "run": RUN | {"folder": "runs/sd21_vae", "steps": 1},
    "base": "set by the command",
    "optimizer": {"lr": 1e-3},
    "blur": {"families": {"gaussian": 1.0}},
    "layer_weight": 0.1,
    "data": {"exclude": "val.txt", "crop": 32},
}


def test_from_a_hub_id_to_a_scored_adapter(warm_python, tmp_path):
    save_base(tmp_path / "sd")
    for name, values in {"joint": JOINT, "refine": REFINE}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    for folder, count in {"sharp": 4, "blurry": 1}.items():
        (tmp_path / folder).mkdir()
        for index in range(count):
            save_image(to_image(procedural_image(260, seeded(index))), tmp_path / folder / f"{index}.png")
    for name in ("train", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    for name, start in {"bd-diff": "-m bd_diff.cli", "python": ""}.items():
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {shlex.join(warm_python)} {start} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    page = (ROOT / "assets/docs/stable-diffusion.md").read_text()
    code = "\n".join(re.findall(r"^```sh\n(.*?)```", page, re.M | re.S))
    toys = {"BASE": str(tmp_path / "sd"), "CONFIG": "joint.yaml", "VAE_CONFIG": "refine.yaml"}
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", code], cwd=tmp_path, env=os.environ | toys | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "held out: blurry" in done.stdout and "steps per epoch: 1.0" in done.stdout
    for name in ("runs/sd21_24gb/pipeline/adapter.json", "cards/adapter/card.json", "restored/0.png",
                 "whole/model_index.json"):  # fmt: skip
        assert (tmp_path / name).exists(), f"no {name} was written: {done.stdout}"
    assert '"class": "RefinedVAE"' in (tmp_path / "runs/sd21_24gb/pipeline/adapter.json").read_text()
