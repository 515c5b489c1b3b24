"""Sweeps: many small trainings by one resumable command, and the table of their results."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bd_diff.data.writing import replacing
from bd_diff.training.run_settings import keep_settings, settings_of

WEIGHTS = "diffusion_pytorch_model.safetensors"


def train_all(cells: Mapping[str, Any], train: Callable[[Any], None], folder: str | Path) -> dict[str, Path]:
    """Train each configuration in `folder/<name>`, on one process; finished ones are kept, others continued.

    Returns the cells' folders. Raises InterruptedError when a training was stopped before its end, ValueError where a
    cell's folder is of a training with other settings.
    """
    folders = {}
    for name, config in cells.items():
        folders[name] = Path(folder) / name
        keep_settings(folders[name], settings_of(config))
        if not (folders[name] / WEIGHTS).exists():
            print(f"training {name}", flush=True)
            train(replace(config, run=replace(config.run, folder=str(folders[name]), resume=True)))
        if not (folders[name] / WEIGHTS).exists():
            raise InterruptedError(f"{name} was stopped; run the same command again to go on")
    return folders


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Rows of the same columns; the file is complete or not there."""
    with replacing(path) as part, open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows as a Markdown table, ending in a line break."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
