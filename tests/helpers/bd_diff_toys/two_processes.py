"""What each of two processes runs for tests/training/test_sd_training.py, given a configuration and where to write."""

import sys

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from bd_diff.data.crops import seeded
from bd_diff.data.procedural import ProceduralImages
from bd_diff.data.processes import leave_at_exit
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig, joint_objective, starting_pipeline
from bd_diff.training.samples import JointSamples, collate_joint


def objective_of(path: str):
    config = load_config(JointConfig, ["--config", path])
    torch.manual_seed(0)
    return joint_objective(config, starting_pipeline(config))


def loss_of(objective, half: int) -> torch.Tensor:
    """The loss of one half of a batch, with that half's own noise."""
    samples = JointSamples(ProceduralImages(96, 0), 64)
    return objective(collate_joint([samples[2 * half], samples[2 * half + 1]]), seeded(half))["loss"]


def main(config: str, out: str) -> None:
    """Save the gradients that the processes agree on."""
    leave_at_exit()
    accelerator = Accelerator(cpu=True)
    plain = objective_of(config)
    objective = accelerator.prepare(plain)
    accelerator.backward(loss_of(objective, accelerator.process_index))
    if accelerator.is_main_process:
        assert accelerator.num_processes == 2
        save_file({name: p.grad for name, p in plain.named_parameters() if p.requires_grad}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
