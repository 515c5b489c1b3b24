"""What the refined VAE gains where the VAE does lose detail: a small one, trained here, then refined.

`python tests/benches/bench_refined_vae.py PHOTOS NAMES [--steps 1500] [--refine-steps 500] [--layer-weight 0]`

PHOTOS is a folder of sharp photographs, NAMES a text file of those that are measured on and never trained on. The VAE
(1/4 of the side, 4 channels: a twelfth of the numbers) learns mean absolute error and a KL of 1e-6; then
train/refine_vae.py trains both phases. Prints their gains in dB PSNR.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from bd_diff.data.crops import SharpCrops
from bd_diff.data.photographs import Photographs
from bd_diff.training.config import build
from train.refine_vae import RefineConfig, train

SIDE = 64


def lossy_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIDE,
        scaling_factor=1.0,
    )


def train_vae(photos: Path, names: Path, steps: int) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = lossy_vae()
    samples = SharpCrops(Photographs(photos, names).check_sizes(SIDE), SIDE)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for step in range(steps):
        images = torch.stack([samples[step * 8 + i]["sharp"] for i in range(8)]) * 2 - 1
        latents = vae.encode(images).latent_dist
        loss = (vae.decode(latents.sample()).sample - images).abs().mean() + 1e-6 * latents.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 100 == 99:
            print(f"VAE step {step + 1}: {loss.item():.4f}", flush=True)
    return vae.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("names", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--refine-steps", type=int, default=500)
    parser.add_argument("--layer-weight", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=Path("runs/refined_vae"))
    given = parser.parse_args()
    base = given.out / "base"
    if not (base / "vae").exists():
        train_vae(given.photos, given.names, given.steps).save_pretrained(base / "vae")
    values = {
        "run": {
            "folder": str(given.out / f"refined-{given.refine_steps}-{given.layer_weight:g}"),
            "steps": given.refine_steps,
            "batch_size": 4,
            "ema_decay": 0.99,
            "warmup_steps": 20,
            "trackers": [],
            "cpu": True,
        },
        "base": str(base),
        "optimizer": {"lr": 1e-3, "weight_decay": 1e-2},
        "blur": {"families": {"delta": 0.1, "gaussian": 0.3, "line": 0.3, "shake": 0.3}, "noise": 2 / 255},
        "layer_weight": given.layer_weight,
        "data": {"sharp": str(given.photos), "exclude": str(given.names), "crop": SIDE},
    }
    print(json.dumps(values))
    train(build(RefineConfig, values, "bench"))


if __name__ == "__main__":
    main()
