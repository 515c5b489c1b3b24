"""Train X-DECODE: `accelerate launch train/xdecode.py --config configs/xdecode/cross_domain.yaml [name=value ...]`.

Two turns a step: the discriminator, then the generator. `run.folder` gets the generator; `run.folder/best` the one with
the best validation.
"""

import sys
from dataclasses import dataclass, field
from functools import partial

from accelerate.utils import set_seed
from torch import nn
from torch.optim import Adam, Optimizer

from bd_diff.baselines.validation import Plateau, Validation, save_whole, validation_cases
from bd_diff.baselines.xdecode import (
    PUBLISHED_WEIGHTS,
    Discriminator,
    DiscriminatorObjective,
    Generator,
    GeneratorObjective,
)
from bd_diff.models.components import construct
from bd_diff.restore import NetworkRestorer
from bd_diff.training.config import RunConfig, load_config
from bd_diff.training.loop import Turn, fit, report, start
from bd_diff.training.pairs import BlurConfig, DataConfig, training_samples


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam of both networks. `plateau` holds `Plateau`'s settings (the GoPro recipe); empty is a constant rate."""

    lr: float = 2.0e-4
    betas: tuple[float, float] = (0.5, 0.999)
    plateau: dict[str, float] = field(default_factory=dict)

    def build(self, network: nn.Module) -> Optimizer:
        """The optimizer of the weights of a network that learn."""
        return Adam([weight for weight in network.parameters() if weight.requires_grad], self.lr, self.betas)


@dataclass(frozen=True)
class XDecodeConfig:
    """X-DECODE's training."""

    run: RunConfig
    data: DataConfig
    generator: dict[str, int] = field(default_factory=dict)
    discriminator: dict[str, int] = field(default_factory=dict)
    sigmoid: bool = False  # scores as the release has them; see Discriminator
    blur: BlurConfig = field(default_factory=BlurConfig)
    loss_weights: dict[str, float] = field(default_factory=lambda: dict(PUBLISHED_WEIGHTS))
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def train(config: XDecodeConfig) -> None:
    """Leave the trained generator, and the best one, in `run.folder`."""
    run, blur, optimizer = config.run, config.blur, config.optimizer
    set_seed(run.seed)
    generator = construct(Generator, config.generator, "generator")
    discriminator = construct(Discriminator, {"sigmoid": config.sigmoid, **config.discriminator}, "discriminator")
    if config.data.crop % generator.multiple:
        raise ValueError(f"data.crop is {config.data.crop}; this generator needs a multiple of {generator.multiple}")
    if run.dry_run:
        return report(config, nn.ModuleDict({"generator": generator, "discriminator": discriminator}))
    accelerator = start(run)
    critic = DiscriminatorObjective(discriminator, generator, blur)
    artist = GeneratorObjective(generator, discriminator, blur, config.loss_weights)
    turns = [Turn(critic, optimizer.build(discriminator)), Turn(artist, optimizer.build(generator))]
    samples = training_samples(config.data, blur, run, accelerator.num_processes)
    cases = validation_cases(config.data)
    restore = NetworkRestorer(generator, lowest=-1)
    validation = Validation(generator, restore, cases, run.folder, accelerator, run.resume) if cases else None
    plateau = Plateau(**optimizer.plateau) if optimizer.plateau else None
    if plateau:
        if not validation:
            raise ValueError("optimizer.plateau watches the validation; name its photographs in data.validation")
        validation.watchers.append(plateau.observe)
    rate = plateau or constant
    kept = {"plateau": plateau} if plateau else {}
    fit(accelerator, turns, samples, run, partial(save_whole, generator), validation, rate=rate, others=kept)


def constant(step: int) -> float:
    """The published recipe neither warms the rate up nor lets it fall."""
    return 1.0


if __name__ == "__main__":
    try:
        train(load_config(XDecodeConfig, sys.argv[1:]))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
