"""BD-Diff on Stable Diffusion 2.1's whole architecture, random weights: one training step, one sampling step.

`python tests/benches/bench_full_width.py [--side 256] [--device cpu]` prints seconds and peak memory;
needs about 10 GiB.
"""

import argparse
import resource
import time
from pathlib import Path

import torch

from bd_diff.blur.kernels import SIZE
from bd_diff.data.crops import seeded
from bd_diff.data.procedural import ProceduralImages
from bd_diff.stable_diffusion.adapters import add_lora
from bd_diff.stable_diffusion.base_model import load_base
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig, joint_objective
from bd_diff.training.memory_savings import make_optimizer
from bd_diff.training.pipelines import pipeline_from_base
from bd_diff.training.samples import JointSamples, collate_joint

ROOT = Path(__file__).parents[2]
GIB = 2**30


def timed(what: str, device: str, action):
    """Run it, print seconds and the peak memory so far."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = action()
    if device == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / GIB
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    print(f"{what:<44} {time.perf_counter() - started:8.1f} s   peak {peak:6.2f} GiB", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    side, device = given.side, given.device
    overrides = [f"data.window={side}", f"data.crop={side}", "optimizer.class=AdamW", "weights.transfer=0"]
    config = load_config(JointConfig, ["--config", str(ROOT / "configs/sd21_24gb.yaml"), *overrides])
    torch.manual_seed(0)

    def build():
        pipeline = pipeline_from_base(load_base(ROOT / "configs/sd21_base", weights=False), config.networks)
        add_lora(pipeline.unet, config.lora_rank)
        return pipeline.to(device)

    pipeline = timed("random weights", device, build)
    objective = joint_objective(config, pipeline)
    parameters = list(objective.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    print(f"UNet {sum(p.numel() for p in pipeline.unet.parameters()):,} parameters, of all trained "
          f"{sum(p.numel() for p in trained):,} of {sum(p.numel() for p in parameters):,}")  # fmt: skip
    optimizer = make_optimizer(trained, config.optimizer)
    batch = collate_joint([JointSamples(ProceduralImages(side + SIZE - 1, 0), side)[0]])
    batch = {name: value.to(device) for name, value in batch.items()}

    def step():
        with torch.autocast(device, torch.bfloat16):
            losses = objective(batch, seeded(1))
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, config.run.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return {name: round(loss.item(), 4) for name, loss in losses.items()} | {"norm": round(norm.item(), 4)}

    print(timed(f"deblur training step, {side} px, batch 1, bf16", device, step))

    def sample():
        objective.networks.eval()
        pipeline.set_progress_bar_config(disable=True)
        with torch.autocast(device, torch.bfloat16):
            return pipeline(
                batch["sharp"][..., :side, :side], num_inference_steps=1, fast=True, output_type="pt"
            ).images

    images = timed(f"one sampling step, {side} px, bf16", device, sample)
    assert images.shape == (1, 3, side, side) and images.isfinite().all()


if __name__ == "__main__":
    main()
