"""The kernel bank: blurs, photographs blurred by them, and what the kernel search made of each, mistakes included.

The search takes seconds a photograph, too slow inside a training step, so its results are computed once and kept.
"""

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from bd_diff.blur.kernels import SIZE, blur
from bd_diff.blur.synthesis import draw_kernels
from bd_diff.data.batches import SharpCrops, seeded
from bd_diff.metrics import luminance
from bd_diff.models.kernel_search import search_evidence

SHARD = 8  # samples a file


def build_bank(
    photographs: list[Tensor],
    folder: str | Path,
    count: int,
    families: dict[str, float],
    noise: float = 2 / 255,
    window: int = 256,
    seed: int = 0,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Write `count` samples into `folder`, one file per 8; files that exist are kept, so it can be stopped and resumed.

    `part` of `parts` computes every `parts`-th file. Noise has a standard deviation uniform in [0, noise].
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    crops = SharpCrops(photographs, window + SIZE - 1, seed)
    for shard in tqdm(range(part, -(-count // SHARD), parts), desc="kernel bank", unit="file"):
        path = folder / f"{shard:05d}.safetensors"
        if path.exists():
            continue
        generator = seeded(seed, shard, 1)
        sharp = torch.stack([crops[index]["sharp"] for index in range(shard * SHARD, (shard + 1) * SHARD)])
        kernels, family = draw_kernels(SHARD, generator, families)
        blurry = blur(sharp, kernels, mode="valid")
        sigma = noise * torch.rand(SHARD, 1, 1, 1, generator=generator)
        blurry = ((blurry + sigma * torch.randn(blurry.shape, generator=generator)).clamp(0, 1) * 255).round()
        hypothesis, evidence = search_evidence(luminance(blurry / 255))
        sample = {
            "blurry": blurry.byte(),
            "kernel": kernels.half(),
            "family": family,
            "hypothesis": hypothesis.half(),
            "evidence": evidence.half(),
        }
        temporary = path.with_suffix(".part")
        save_file({name: value.contiguous() for name, value in sample.items()}, temporary)
        os.replace(temporary, path)


def read_bank(folder: str | Path) -> dict[str, Tensor]:
    """All samples: `blurry` `(N, 3, H, W)` uint8, `kernel` and `hypothesis` `(N, k, k)`, `evidence` `(N, 2, k, k)`."""
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no kernel bank; make one with train/kernel_bank.py")
    shards = [load_file(path) for path in paths]
    names = ("blurry", "kernel", "hypothesis", "evidence")
    return {name: torch.cat([shard[name] for shard in shards]) for name in names}
