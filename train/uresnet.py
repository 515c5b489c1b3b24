"""Train U-ResNet: `accelerate launch train/uresnet.py --config configs/uresnet/uresnet.yaml [section.name=value ...]`.

The original's three words work too: `--model_path FOLDER --dataset_dir FOLDER --dataset_name NAME` stand for
run.folder, data.dataset_dir and data.dataset_name.
"""

import argparse
import sys
from dataclasses import dataclass, field
from functools import partial

from accelerate.utils import set_seed
from torch import nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

from bd_diff.baselines.uresnet import UResNet, UResNetObjective
from bd_diff.baselines.validation import Validation, save_whole, validation_cases
from bd_diff.models.components import construct
from bd_diff.restore import NetworkRestorer
from bd_diff.training.config import RunConfig, load_config
from bd_diff.training.loop import Turn, fit, report, start
from bd_diff.training.losses import WeightedLosses
from bd_diff.training.pairs import BlurConfig, DataConfig, training_samples

OPTIMIZERS = {  # rho: the share of its past that the running average keeps; Keras's epsilon
    "rmsprop": lambda weights, lr, rho: RMSprop(weights, lr, alpha=rho, eps=1e-7),
    "adam": lambda weights, lr, rho: Adam(weights, lr, betas=(rho, 0.999), eps=1e-7),
    "sgd": lambda weights, lr, rho: SGD(weights, lr, momentum=rho),
}


@dataclass(frozen=True)
class OptimizerConfig:
    """RMSprop(1e-3, 0.9) is what the original's grid search chose."""

    name: str = "rmsprop"
    lr: float = 1.0e-3
    rho: float = 0.9

    def build(self, network: nn.Module) -> Optimizer:
        """The optimizer of a network's weights. Raises ValueError for a name that does not exist."""
        if self.name not in OPTIMIZERS:
            raise ValueError(f"optimizer.name is {self.name!r}; the optimizers are {', '.join(OPTIMIZERS)}")
        return OPTIMIZERS[self.name](network.parameters(), self.lr, self.rho)


@dataclass(frozen=True)
class UResNetConfig:
    """U-ResNet's training."""

    run: RunConfig
    data: DataConfig
    network: dict[str, int] = field(default_factory=dict)
    blur: BlurConfig = field(default_factory=BlurConfig)
    loss_weights: dict[str, float] = field(default_factory=lambda: {"mae": 1.0})
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def train(config: UResNetConfig) -> None:
    """Leave the trained network, and the best one, in `run.folder`."""
    set_seed(config.run.seed)
    network = construct(UResNet, config.network, "network")
    if config.run.dry_run:
        return report(config, nn.ModuleDict({"network": network}))
    accelerator = start(config.run)
    objective = UResNetObjective(network, WeightedLosses(config.loss_weights), config.blur)
    samples = training_samples(config.data, config.blur, config.run, accelerator.num_processes)
    cases = validation_cases(config.data)
    restore = NetworkRestorer(network)
    validate = Validation(network, restore, cases, config.run.folder, accelerator, config.run.resume) if cases else None
    turns = [Turn(objective, config.optimizer.build(network))]
    fit(accelerator, turns, samples, config.run, partial(save_whole, network), validate)


def original_words(arguments: list[str]) -> list[str]:
    """The arguments with the original's three words translated into overrides."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words = {"--model_path": "run.folder", "--dataset_dir": "data.dataset_dir", "--dataset_name": "data.dataset_name"}
    for word, name in words.items():
        parser.add_argument(word, dest=name)
    given, others = parser.parse_known_args(arguments)
    return others + [f"{name}={value}" for name, value in vars(given).items() if value is not None]


if __name__ == "__main__":
    try:
        train(load_config(UResNetConfig, original_words(sys.argv[1:])))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
