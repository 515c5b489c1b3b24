"""Train BD-Diff: `accelerate launch train/joint.py --config FILE [section.name=value ...]`."""

import sys

from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig, train_joint


def main(arguments: list[str]) -> None:
    train_joint(load_config(JointConfig, arguments))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
