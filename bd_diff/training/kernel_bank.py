"""The kernel bank: blur kernels, photographs blurred by them, and what the kernel search found, mistakes included.

The search takes seconds a photograph, too slow inside a training step, so its results are computed once and kept.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.kernels import SIZE
from bd_diff.blur.synthesis import draw_kernels
from bd_diff.data.crops import PhotographSource, SharpCrops, seeded
from bd_diff.data.pixels import luminance
from bd_diff.data.progress import progress
from bd_diff.data.writing import replacing
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.reading.denoise import reduce_noise
from bd_diff.reading.kernel_search import search_evidence

SHARD = 8  # samples a file


def build_bank(
    photographs: PhotographSource,
    folder: str | Path,
    count: int,
    families: dict[str, float],
    camera: RandomCamera = RandomCamera(),
    window: int = 256,
    seed: int = 0,
    part: int = 0,
    parts: int = 1,
) -> None:
    """Write `count` samples into `folder`, one file per 8; files that exist are kept, so it can be stopped and resumed.

    `part` of `parts` computes every `parts`-th file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    crops = SharpCrops(photographs, window + SIZE - 1, seed)
    for shard in progress(range(part, -(-count // SHARD), parts), desc="kernel bank", unit="file"):
        path = folder / f"{shard:05d}.safetensors"
        if path.exists():
            continue
        generator = seeded(seed, shard, 1)
        sharp = torch.stack([crops[index]["sharp"] for index in range(shard * SHARD, (shard + 1) * SHARD)])
        kernels, family = draw_kernels(SHARD, generator, families)
        blurry = (camera.capture(sharp, kernels, generator) * 255).round()
        found = search_evidence(luminance(reduce_noise(blurry / 255)))
        assert found is not None  # nothing rivals it
        hypotheses, evidence = found
        sample = {
            "blurry": blurry.byte(),
            "kernel": kernels.half(),
            "family": family,
            "hypothesis": hypotheses[:, 0].half(),
            "evidence": evidence.half(),
        }
        write_shard(sample, path)


def estimate_bank(pipeline: BDDiffPipeline, folder: str | Path, part: int = 0, parts: int = 1) -> None:
    """Add to every sample the kernel that `pipeline` estimates from it, as `estimate`; replaces older estimates."""
    for path in progress(shards_of(folder)[part::parts], desc="estimates", unit="file"):
        sample = load_file(path)
        pixels = sample["blurry"] / 127.5 - 1
        found = sample["hypothesis"][:, None].float(), sample["evidence"].float()
        with torch.no_grad():
            kernels = pipeline.encode_image(pixels, found=found).kernels
        if kernels is None:
            raise ValueError("the estimator has no blur_decoder, so it estimates no kernels")
        sample["estimate"] = kernels.half()
        write_shard(sample, path)


def write_shard(sample: dict[str, Tensor], path: Path) -> None:
    """Write a file of samples; it is complete or not there."""
    with replacing(path) as part:
        save_file({name: value.contiguous() for name, value in sample.items()}, part)


def shards_of(folder: str | Path) -> list[Path]:
    """The files of a bank. Raises ValueError if there are none."""
    if paths := sorted(Path(folder).glob("*.safetensors")):
        return paths
    raise ValueError(f"{folder} holds no kernel bank; make one with train/kernel_bank.py")


def read_bank(
    folders: Sequence[str | Path], names: tuple[str, ...] = ("blurry", "kernel", "hypothesis", "evidence")
) -> dict[str, Tensor]:
    """All samples of the banks in these folders, stacked by name.

    `blurry` `(N, 3, H, W)` uint8, `kernel` and `hypothesis` `(N, k, k)`, `evidence` `(N, 2, k, k)`, and `estimate` `(N,
    k, k)` where `estimate_bank` ran. Raises ValueError if a sample lacks one of `names`.
    """
    shards = [load_file(path) for folder in folders for path in shards_of(folder)]
    if missing := [name for name in names if any(name not in shard for shard in shards)]:
        raise ValueError(
            f"{', '.join(map(str, folders))}: some samples have no {missing[0]}; run train/kernel_bank.py with "
            "estimator=FOLDER"
        )
    return {name: torch.cat([shard[name] for shard in shards]) for name in names}
