"""U-ResNet's grid search: {losses} x {optimizers}, then {lr} x {rho} for the winner.

`python train/uresnet_grid.py --config configs/uresnet/grid.yaml [section.name=value ...]`; where it was stopped, the
same command goes on. Leaves grid.csv and grid.md in `training.run.folder`.
"""

import itertools
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bd_diff.baselines.sweep import markdown, train_all, write_csv
from bd_diff.data.writing import replacing
from bd_diff.training.config import load_config

sys.path.insert(0, str(Path(__file__).parent))
from uresnet import UResNetConfig, train


@dataclass(frozen=True)
class GridConfig:
    """What is tried, and the training that all cells share."""

    training: UResNetConfig
    losses: dict[str, dict[str, float]]  # a name for the table: loss weights
    optimizers: tuple[str, ...]
    lr: tuple[float, ...]
    rho: tuple[float, ...]


def vary(base: UResNetConfig, weights: dict[str, float] | None = None, **optimizer: Any) -> UResNetConfig:
    """The training with other loss weights or optimizer settings."""
    losses = base.loss_weights if weights is None else weights
    return replace(base, loss_weights=losses, optimizer=replace(base.optimizer, **optimizer))


def search(config: GridConfig) -> str:
    """Train all cells that are not yet; returns the table, best PSNR first, which is also written."""
    folder = Path(config.training.run.folder)
    if config.training.data.validation is None:
        raise ValueError("the grid compares by validation; name its photographs in training.data.validation")
    first = {
        f"{loss}-{name}": vary(config.training, weights, name=name)
        for (loss, weights), name in itertools.product(config.losses.items(), config.optimizers)
    }
    figures = results(first, folder)
    winner = first[max(figures, key=lambda cell: figures[cell]["psnr"])]
    second = {
        f"lr{lr:g}-rho{rho:g}": vary(winner, lr=lr, rho=rho) for lr, rho in itertools.product(config.lr, config.rho)
    }
    figures |= results(second, folder)
    rows = [
        {
            "cell": name,
            "losses": " + ".join(f"{weight:g} {loss}" for loss, weight in cell.loss_weights.items()),
            "optimizer": cell.optimizer.name,
            "lr": f"{cell.optimizer.lr:g}",
            "rho": f"{cell.optimizer.rho:g}",
            **{name: round(figure, 4) for name, figure in figures[name].items()},
        }
        for name, cell in (first | second).items()
    ]
    rows.sort(key=lambda row: -row["psnr"])
    write_csv(rows, folder / "grid.csv")
    shown = ("losses", "optimizer", "lr", "rho", "psnr", "step")
    table = markdown([{name: f"{row[name]}" for name in shown} for row in rows])
    with replacing(folder / "grid.md") as part:
        part.write_text(table)
    return table


def results(cells: dict[str, UResNetConfig], folder: Path) -> dict[str, dict[str, float]]:
    """The best validation of each cell, trained where it is not yet."""
    folders = train_all(cells, train, folder)
    return {name: json.loads((cell / "best.json").read_text()) for name, cell in folders.items()}


if __name__ == "__main__":
    try:
        print(search(load_config(GridConfig, sys.argv[1:])))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
