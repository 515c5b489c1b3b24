"""Train AdaRevD, one stage after the other: `accelerate launch train/adarevd.py --config configs/adarevd/<stage>.yaml`.

nafnet      a NAFNet, whose encoder the others use; a released NAFNet checkpoint can stand in for it
decoders    the sub-decoders on that encoder, frozen; `start` is the NAFNet (folder or released .pth)
classifier  the classifier of degradation, all else frozen; `start` is the AdaRevD of the stage before
exits       no training: measures the gain of every depth per class on held-out crops and derives the exit table for
            `exits.tau`; with `exits.crops=0` it derives it anew from the figures in the model
"""

import math
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn
from torch.optim import AdamW
from tqdm import tqdm

from bd_diff.baselines.adarevd import AdaRevD
from bd_diff.baselines.adarevd_data import cases, held_out_pairs, training_crops
from bd_diff.baselines.adarevd_objective import (
    ClassifierObjective,
    RestorationObjective,
    measure_exits,
    validate_classifier,
)
from bd_diff.baselines.adarevd_stages import build
from bd_diff.baselines.validation import Validation, save_whole
from bd_diff.restore import NetworkRestorer
from bd_diff.training.config import RunConfig, load_config
from bd_diff.training.loop import Turn, fit, report, start
from bd_diff.training.pairs import BlurConfig, DataConfig

LAST_RATE = 1e-7  # AdaRevD: the cosine's end
VALIDATED = 128  # held-out crops that the classifier is validated on


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; the released settings of stage decoders. Stage classifier: 3e-4 and 3e-4."""

    lr: float = 1.0e-3
    weight_decay: float = 1.0e-3
    betas: tuple[float, float] = (0.9, 0.9)


@dataclass(frozen=True)
class ExitsConfig:
    """tau: dB that one more sub-decoder must gain; crops: how many held-out crops the gains are measured on."""

    features: str = "e3"
    thresholds: tuple[float, ...] = (20.0, 25.0, 30.0, 35.0, 40.0)
    tau: float = 0.05
    crops: int = 512


@dataclass(frozen=True)
class AdaRevDConfig:
    """One stage of AdaRevD's training."""

    run: RunConfig
    data: DataConfig
    stage: str
    start: str | None = None  # what the stage before left: a model folder, or a released .pth for the encoder
    held_out: int = 20  # every so many-th photograph is kept from training; the exits are derived from those
    network: dict[str, Any] = field(default_factory=dict)  # NAFNet's or AdaRevD's settings; stages nafnet and decoders
    blur: BlurConfig = field(default_factory=BlurConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    exits: ExitsConfig = field(default_factory=ExitsConfig)


def train(config: AdaRevDConfig) -> None:
    """Leave the network of this stage in `run.folder`."""
    set_seed(config.run.seed)
    classifier = config.exits.features, config.exits.thresholds
    network = build(config.stage, config.start, config.network, config.data.crop, *classifier)
    objective = (ClassifierObjective if config.stage == "classifier" else RestorationObjective)(network, config.blur)
    if config.run.dry_run:
        return report(config, nn.ModuleDict({"network": network}))
    if config.stage == "exits":
        return derive(config, network)
    accelerator = start(config.run)
    samples = training_crops(config.data, config.held_out, config.blur, config.run, accelerator.num_processes)
    if config.stage == "classifier":
        held_out = [*held_out_pairs(config.data, config.held_out, config.blur, VALIDATED, config.run.seed)]
        validate = partial(validate_classifier, objective, held_out)
    elif found := cases(config.data, config.held_out):
        restore = NetworkRestorer(network)
        validate = Validation(network, restore, found, config.run.folder, accelerator, config.run.resume)
    else:
        validate = None
    optimizer = AdamW([p for p in objective.parameters() if p.requires_grad], **vars(config.optimizer))
    last = LAST_RATE / config.optimizer.lr

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / max(config.run.warmup_steps, 1))
        return warm * (last + (1 - last) * (1 + math.cos(math.pi * step / config.run.steps)) / 2)

    turns = [Turn(objective, optimizer)]
    fit(accelerator, turns, samples, config.run, partial(save_whole, network), validate, rate=rate)


def derive(config: AdaRevDConfig, network: AdaRevD) -> None:
    """Stage `exits`: print what was measured and the table, and save the network with both in its config."""
    if config.exits.crops:
        device = "cuda" if torch.cuda.is_available() and not config.run.cpu else "cpu"
        arguments = config.data, config.held_out, config.blur, config.exits.crops, config.run.seed, device
        pairs = tqdm(held_out_pairs(*arguments), total=config.exits.crops, desc="held-out crops")
        print(measure_exits(network.to(device).eval(), pairs).report())
    print(f"exit table for tau = {config.exits.tau} dB: {network.set_exits(config.exits.tau)}")
    save_whole(network, Path(config.run.folder))


if __name__ == "__main__":
    try:
        train(load_config(AdaRevDConfig, sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
