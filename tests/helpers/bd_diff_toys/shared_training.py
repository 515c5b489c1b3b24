"""What each of two processes runs for tests/training/test_sharding.py, launched with the settings of FSDP:
`python -m torch.distributed.run ... FOLDER`, where FOLDER holds sd.yaml and naf.yaml.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import patch_environment
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor

from bd_diff.data.processes import leave_at_exit
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig, train_joint
from bd_diff.training.loop import sharding
from bd_diff.training.memory_savings import make_optimizer
from bd_diff.training.sharding import SharedAverage, Shares
from bd_diff_toys.two_processes import loss_of, objective_of


def gradients(objective: nn.Module, half: int) -> dict[str, torch.Tensor]:
    loss_of(objective, half).backward()
    return {name: p.grad for name, p in objective.named_parameters() if p.requires_grad}


def held(tensors) -> torch.Tensor:
    """How many numbers of these tensors are in this process."""
    return torch.tensor(sum((t.to_local() if isinstance(t, DTensor) else t).numel() for t in tensors))


def one_step(config: str, folder: Path, rank: int) -> None:
    """Save the gradients of the whole and of the shares, and what this process holds after a step of the shares."""
    accelerator, objective = Accelerator(cpu=True), objective_of(config)
    own = [p for p in objective.parameters() if p.requires_grad]
    total, optimizer = held(own), make_optimizer(own, {"lr": 1e-3})
    whole = {name: accelerator.reduce(gradient, "mean") for name, gradient in gradients(objective, rank).items()}
    objective.zero_grad()
    shares = Shares(objective, optimizer, sharding(), accelerator)
    average = SharedAverage(shares.shares)
    cut = {name: gradient.full_tensor() for name, gradient in gradients(shares.objective, rank).items()}
    optimizer.step()
    average.step(shares.shares)
    counts = {
        "whole": total,
        "parameters": held(own) + held(shares.shares),
        "gradients": held(p.grad for p in shares.shares),
        "first moments": held(state["exp_avg"] for state in optimizer.state.values()),
        "second moments": held(state["exp_avg_sq"] for state in optimizer.state.values()),
        "average": held(average.shadow_params),
    }
    for name, tensors in (("whole", whole), ("cut", cut), ("counts", counts)):
        save_file(tensors, folder / f"{Path(config).stem}-{name}-{rank}.safetensors")


def train(config: str, folder: Path, *more: str, stop: bool = False) -> None:
    """Train to the end, or until the first validation, where a signal comes to one of the processes."""

    def watch(pipeline, objective):
        def validate(step: int) -> dict[str, float]:
            if stop:
                os.kill(os.getpid(), signal.SIGTERM)
            image = pipeline(torch.full((1, 3, 64, 64), 0.5), num_inference_steps=1, output_type="pt").images
            sums = [p.detach().sum() for p in pipeline.unet.parameters()]
            save_file({"image": image, "sums": torch.stack(sums)}, folder / f"seen-{step}.safetensors")
            return {"mean": float(image.mean())}

        return validate

    train_joint(load_config(JointConfig, ["--config", config, f"run.folder={folder}", *more]), watch=watch)


def main(folder: str) -> None:
    leave_at_exit()
    folder, rank = Path(folder), int(os.environ["RANK"])
    for name in ("sd", "naf"):
        one_step(str(folder / f"{name}.yaml"), folder, rank)
    config = str(folder / "sd.yaml")
    train(config, folder / "cut", stop=True)
    if rank == 0:
        shutil.copytree(folder / "cut", folder / "mixed")
    train(config, folder / "cut", "--resume")
    with patch_environment(ACCELERATE_USE_FSDP="false"):
        train(config, folder / "whole")
        train(config, folder / "mixed", "--resume")


if __name__ == "__main__":
    main(*sys.argv[1:])
