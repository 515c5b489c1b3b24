"""What BD-Diff's training costs beside the UNet it trains: one step over forward and backward of the UNet alone.

`python tests/benches/bench_joint_overhead.py [--width quarter] [--side 128] [--batch 1] [--device cpu] [--dtype fp32]`

Stable Diffusion 2.1's architecture, random weights, the configuration sd21_24gb; measured in turn, round by round, in
one run: the UNet alone on the batch, a step of supervised deblurring, a step of all tasks. Prints the median seconds,
their ratio to the UNet alone, the same of the multiplications, and the VAE's part of those. No optimizer step.
"""

import argparse
import inspect
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bd_diff.blur.kernels import SIZE
from bd_diff.data.crops import seeded
from bd_diff.data.procedural import ProceduralImages
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.patch_qformer import NULL_TOKENS
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.stable_diffusion.adapters import add_lora
from bd_diff.stable_diffusion.base_model import load_base
from bd_diff.training.config import load_config
from bd_diff.training.joint import JointConfig, joint_objective
from bd_diff.training.pipelines import pipeline_from_base
from bd_diff.training.samples import JointSamples, collate_joint

ROOT = Path(__file__).parents[2]
GIB = 2**30
DIVISORS = {"toy": 8, "quarter": 4, "half": 2, "full": 1}  # of channels, groups and heads, of every network
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
GOALS = {"deblur": 1.15, "joint": 1.6}
DEBLUR = {"kernel": 0.5, "deblur": 1.0}


def narrow_base(divisor: int, folder: Path) -> Path:
    """The configuration of Stable Diffusion 2.1 with fewer channels, all layers and the heads' own width."""
    for path in (ROOT / "configs/sd21_base").glob("*/*.json"):
        values = json.loads(path.read_text())
        for name in ("block_out_channels", "attention_head_dim"):
            if name in values:
                values[name] = [max(1, size // divisor) for size in values[name]]
        for name in ("cross_attention_dim", "norm_num_groups"):
            if name in values:
                values[name] //= divisor
        (folder / path.parent.name).mkdir(parents=True)
        (folder / path.parent.name / path.name).write_text(json.dumps(values))
    return folder


def narrow_encoder(divisor: int) -> dict[str, int]:
    """The small image encoder with fewer channels."""
    sizes = {name: p.default for name, p in inspect.signature(ImageEncoder.__init__).parameters.items()}
    return {name: size // divisor for name, size in sizes.items() if name.endswith("_channels")}


def build(config: JointConfig, divisor: int) -> BDDiffPipeline:
    with tempfile.TemporaryDirectory() as folder:
        base = load_base(narrow_base(divisor, Path(folder)), weights=False)
    pipeline = pipeline_from_base(base, config.networks)
    if config.lora_rank:
        add_lora(pipeline.unet, config.lora_rank)
    return pipeline


def seconds(action: Callable, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(device: str) -> float:
    """GiB at most so far; on a GPU since `reset_peak_memory_stats`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


class Multiplications(TorchDispatchMode):
    """Inside, GMACs of matrices and convolutions are counted, forward and backward."""

    total = 0.0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        if (packet := function._overloadpacket) in flop_registry:
            self.total += flop_registry[packet](*arguments, **(settings or {}), out_val=result) / 2e9
        return result


def multiplications(action: Callable, vae: nn.Module) -> tuple[float, float]:
    """GMACs of all, and of the VAE in it, which is called by its methods and has no backward."""
    whole, counts = {name: getattr(vae, name) for name in ("encode", "decode")}, []

    def counting(method):
        def run(*given, **named):
            with Multiplications() as counter:
                result = method(*given, **named)
            counts.append(counter.total)
            return result

        return run

    for name, method in whole.items():
        setattr(vae, name, counting(method))
    with Multiplications() as counter:
        action()
    for name in whole:
        delattr(vae, name)
    return counter.total, sum(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of autocast")
    parser.add_argument("--width", choices=DIVISORS, default="quarter")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--whole-unet", action="store_true", help="train all of the UNet instead of LoRA")
    parser.add_argument("--taesd", action="store_true", help="TAESD's architecture as the VAE, at its own width")
    given = parser.parse_args()
    device, dtype = given.device, DTYPES[given.dtype]
    overrides = [
        *(f"data.{name}={given.side}" for name in ("window", "crop")),
        f"gradient_checkpointing={str(given.checkpointing).lower()}",
        *(["lora_rank=0"] if given.whole_unet else []),
    ]
    config = load_config(JointConfig, ["--config", str(ROOT / "configs/sd21_24gb.yaml"), *overrides])
    for name in ("structure_qformer", "blur_qformer"):
        for size in ("hidden_size", "num_heads"):
            config.networks[name][size] //= DIVISORS[given.width]
    config.networks["image_encoder"] = narrow_encoder(DIVISORS[given.width])
    torch.manual_seed(0)
    pipeline = build(config, DIVISORS[given.width]).to(device)
    if given.taesd:
        pipeline.register_modules(vae=AutoencoderTiny().to(device))
    objective = joint_objective(config, pipeline)
    weights = {"deblur": DEBLUR, "joint": dict(config.weights)}
    objective.back_translation_from = 0
    photographs = torch.rand(given.batch, 3, given.side, given.side).mul(255).byte()
    samples = JointSamples(ProceduralImages(given.side + SIZE - 1, 0), given.side, list(photographs))
    batch = collate_joint([samples[index] for index in range(given.batch)])
    batch = {name: value.to(device) for name, value in batch.items()}
    batches = {"deblur": {name: value for name, value in batch.items() if name != "target"}, "joint": batch}

    unet, latents = pipeline.unet, given.side // pipeline.vae_scale_factor
    noisy = torch.randn(given.batch, unet.config.in_channels, latents, latents, device=device)
    count = pipeline.structure_qformer.config.num_queries + NULL_TOKENS
    tokens = torch.randn(given.batch, count, unet.config.cross_attention_dim, device=device)
    times = torch.full((given.batch,), 500, device=device)

    def run(what: str) -> None:
        with torch.autocast(device, dtype) if dtype else nullcontext():
            if what == "UNet alone":
                loss = unet(noisy, times, tokens).sample.float().square().mean()
            else:
                objective.weights = weights[what]
                loss = objective(batches[what], seeded(1))["loss"]
        loss.backward()
        objective.zero_grad()

    names = ["UNet alone", "deblur", "joint"]
    found = {name: multiplications(lambda name=name: run(name), pipeline.vae) for name in names}
    taken, memory = {name: [] for name in names}, {}
    for _ in range(given.rounds):
        for name in names:
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken[name].append(seconds(lambda name=name: run(name), device))
            memory[name] = peak(device)
    print(f"{given.width} width, {given.side} px, batch {given.batch}, {given.dtype} on {device}, "
          f"{'LoRA' if config.lora_rank else 'whole UNet'}{', checkpointing' * given.checkpointing}; UNet "
          f"{sum(p.numel() for p in unet.parameters()):,} parameters")  # fmt: skip
    for name in names:
        median, alone = statistics.median(taken[name]), statistics.median(taken["UNet alone"])
        ratio, work = median / alone, found[name][0] / found["UNet alone"][0]
        goal = f", goal {GOALS[name]}" if name in GOALS else ""
        print(f"{name:<11}{median:8.3f} s ({min(taken[name]):.3f} to {max(taken[name]):.3f}), {ratio:.2f} times{goal}; "
              f"{found[name][0]:.1f} GMACs, {work:.2f} times, VAE {found[name][1]:.1f}; "
              f"{given.batch / median:.2f} images/s; peak {memory[name]:.2f} GiB")  # fmt: skip


if __name__ == "__main__":
    main()
