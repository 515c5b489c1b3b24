"""Search kernels in blurred photographs, once, for train/joint.py: `python train/kernel_bank.py --config FILE`.

With `estimator=FOLDER`, what that model makes of each blurred photograph is added: what its restorer has to live with.

Several processes (`torchrun --nproc-per-node 2 train/kernel_bank.py ...`) share the work. Stopped, it goes on where it
was; `count` may grow.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from bd_diff.blur.camera import RandomCamera
from bd_diff.blur.kernels import SIZE
from bd_diff.data.photographs import Photographs
from bd_diff.training.config import load_config
from bd_diff.training.kernel_bank import build_bank, estimate_bank
from bd_diff.training.pipelines import load_pipeline
from bd_diff.training.run_settings import keep_settings, settings_of


@dataclass(frozen=True)
class BankConfig:
    """The kernel bank."""

    folder: str  # where the bank goes
    sharp: str  # folder of sharp photographs
    families: dict[str, float]  # shares of the synthetic blurs
    count: int
    estimator: str | None = None  # pipeline folder whose estimates are added
    exclude: str | None = None  # text file of names in `sharp` that are kept for validation
    noise: float = 2 / 255  # this and the next three: see `bd_diff.blur.camera.RandomCamera`
    curve: float | str = 1.0
    curve_share: float = 1.0
    jpeg: int = 0
    window: int = 256
    seed: int = 1


def main(arguments: list[str]) -> None:
    config = load_config(BankConfig, arguments)
    processes = PartialState(cpu=True)
    torch.set_num_threads(1)
    keep_settings(Path(config.folder), settings_of(config, left_out=("folder", "count", "estimator")))
    photographs = Photographs(config.sharp, config.exclude).check_sizes(config.window + SIZE - 1)
    build_bank(
        photographs,
        config.folder,
        config.count,
        config.families,
        camera=RandomCamera(config.noise, config.curve, config.curve_share, config.jpeg),
        window=config.window,
        seed=config.seed,
        part=processes.process_index,
        parts=processes.num_processes,
    )
    processes.wait_for_everyone()
    if config.estimator:
        pipeline = load_pipeline(config.estimator)
        estimate_bank(pipeline, config.folder, part=processes.process_index, parts=processes.num_processes)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
