"""Train the refined VAE, encoder then decoder: `accelerate launch train/refine_vae.py --config FILE [name=value]`."""

import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from bd_diff.data.crops import SharpCrops, seeded
from bd_diff.data.photographs import Photographs
from bd_diff.data.procedural import ProceduralImages
from bd_diff.evaluation.metrics import psnr
from bd_diff.models.model_folder import load_checked
from bd_diff.models.refined_vae import RefinedVAE
from bd_diff.stable_diffusion.base_model import find, load_part
from bd_diff.training.config import RunConfig, load_config
from bd_diff.training.loop import Turn, fit, report, start
from bd_diff.training.losses import WeightedLosses
from bd_diff.training.memory_savings import make_optimizer
from bd_diff.training.pairs import BORDER, BlurConfig, make_pair
from bd_diff.training.pipelines import save_network
from bd_diff.training.vae_refinement import PHASES, RefineObjective


@dataclass(frozen=True)
class DataConfig:
    sharp: str | None = None  # folder; None trains on procedural images
    exclude: str | None = None  # text file of names in `sharp` that the gain is measured on
    crop: int = 256  # pixels a side


@dataclass(frozen=True)
class RefineConfig:
    """The refined VAE's training; `run.steps` are those of each phase."""

    run: RunConfig
    base: str  # folder or hub id whose `vae` is refined
    optimizer: dict
    blur: BlurConfig
    loss_weights: dict[str, float] = field(default_factory=lambda: {"mae": 1.0})  # of the decoder's phase
    layer_weight: float = 0.0  # of the features of every stage in the encoder's phase, see RefineObjective
    data: DataConfig = field(default_factory=DataConfig)


def train(config: RefineConfig) -> None:
    """Leave the refined VAE in `run.folder/vae`; prints its gain on the photographs kept out of training."""
    torch.manual_seed(config.run.seed)
    vae = RefinedVAE.around(load_part(find(config.base) / "vae", weights=True))
    losses = WeightedLosses(config.loss_weights)
    if config.run.dry_run:
        RefineObjective(vae, "encoder", losses, config.blur)
        return report(config, nn.ModuleDict({"vae": vae}))
    wide, data = config.data.crop + BORDER, config.data
    samples = ProceduralImages(wide, config.run.seed)
    if data.sharp:
        samples = SharpCrops(Photographs(data.sharp, data.exclude).check_sizes(wide), wide, config.run.seed)
    out = Path(config.run.folder)
    for phase in PHASES:
        if config.run.resume and (out / phase / "vae").exists():
            vae = load_checked(RefinedVAE, out / phase / "vae")
            continue
        run = replace(config.run, folder=str(out / phase), resume=config.run.resume and (out / phase).exists())
        objective = RefineObjective(vae, phase, losses, config.blur, config.layer_weight)
        trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
        turn = Turn(objective, make_optimizer(trained, config.optimizer))
        fit(start(run), [turn], samples, run, save=partial(save_vae, vae))
        vae = load_checked(RefinedVAE, out / phase / "vae")  # the averaged weights
    save_vae(vae, out)
    if data.sharp and data.exclude:
        print(report_gain(vae, config))


def save_vae(vae: RefinedVAE, folder: Path) -> None:
    save_network(vae, folder / "vae")


def report_gain(vae: RefinedVAE, config: RefineConfig) -> str:
    """What the refined VAE gains on the photographs kept out of training, in words and dB PSNR."""
    found = gain(vae, config)
    return (
        "held out: blurry {blurry:.2f} dB through the VAE, {refined:.2f} dB refined, gain {gain:+.2f} dB; "
        "sharp {sharp:.2f} dB through the VAE, {detailed:.2f} dB with the blurry one's detail, gain {detail:+.2f} dB"
    ).format(
        **found, gain=found["refined"] - found["blurry"], detail=found["detailed"] - found["sharp"]
    )  # fmt: skip


@torch.no_grad()
def gain(vae: RefinedVAE, config: RefineConfig) -> dict[str, float]:
    """Mean PSNR against the sharp photographs: blurred ones through the plain VAE (`blurry`) and the refined one
    (`refined`); the sharp ones, which are what a perfect UNet would give, decoded plainly (`sharp`) and with the detail
    of the blurred ones (`detailed`).
    """
    wide, found = config.data.crop + BORDER, []
    for index, photograph in enumerate(Photographs(config.data.sharp, only=config.data.exclude)):
        top, left = ((side - wide) // 2 for side in photograph.shape[1:])
        if min(top, left) < 0:
            continue
        crop = photograph[None, :, top : top + wide, left : left + wide] / 255
        blurry, sharp = make_pair({"sharp": crop}, config.blur, seeded(1, index))
        pixels = blurry * 2 - 1
        perfect = vae.encode(sharp * 2 - 1).latent_dist.mode()
        images = {
            "blurry": vae.decode(vae.encode(pixels).latent_dist.mode()),
            "refined": vae.decode(vae.refine(pixels)[0], source=pixels),
            "sharp": vae.decode(perfect),
            "detailed": vae.decode(perfect, source=pixels),
        }
        found.append({k: psnr((image.sample / 2 + 0.5).clamp(0, 1), sharp).item() for k, image in images.items()})
    if not found:
        raise ValueError(f"{config.data.exclude} names no photograph of at least {wide} pixels a side")
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


if __name__ == "__main__":
    try:
        train(load_config(RefineConfig, sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
