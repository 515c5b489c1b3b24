"""Rows by target domains by seeds, resumable: `python train/experiment.py --config configs/experiment/full.yaml`."""

import sys
from pathlib import Path

from bd_diff.adaptation.experiment import ExperimentConfig, run_experiment
from bd_diff.training.config import load_config


def main(arguments: list[str]) -> None:
    config = load_config(ExperimentConfig, arguments)
    run_experiment(config)
    print((Path(config.run.folder) / "table.md").read_text())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
