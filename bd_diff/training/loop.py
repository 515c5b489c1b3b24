"""The one training loop: turns of (objective, optimizer), EMA, checkpoints, exact resume, orderly stop."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import (
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    gather_object,
    is_torch_version,
    patch_environment,
    send_to_device,
)
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from bd_diff.data.claims import claim
from bd_diff.data.crops import seeded
from bd_diff.data.processes import PATIENCE, leave_at_exit
from bd_diff.data.progress import progress
from bd_diff.training.checkpoints import Checkpoints, begun
from bd_diff.training.config import RunConfig, to_dict

FSDP_CONFIG = "configs/accelerate/eight_gpus_fsdp.yaml"
NOT_OF_FSDP = ("offload_params", "activation_checkpointing", "cpu_ram_efficient_loading")
MOST_BAD_STEPS = 20  # gradients that are not finite, one after the other


@dataclass
class Turn:
    """A part of each step: `objective(batch, generator) -> {"loss": scalar, <parts>}`, and the optimizer for it."""

    objective: nn.Module
    optimizer: Optimizer


def start(run: RunConfig) -> Accelerator:
    """The accelerator of a run; makes the run's folder.

    Raises ValueError if the folder already holds another training or is being written to by one, and if the launcher
    asks for another precision than the configuration.
    """
    folder = Path(run.folder)
    sharding()
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", run.mixed_precision):
        raise ValueError(
            f"the launcher asks for mixed precision {launched}, but run.mixed_precision is {run.mixed_precision}; "
            f"set run.mixed_precision={launched}, or launch with --mixed_precision no"
        )
    if run.mixed_precision not in ("no", "fp16", "bf16"):
        raise ValueError(f"run.mixed_precision is {run.mixed_precision}; it must be no, fp16 or bf16")
    for name in run.trackers:
        if name not in ("tensorboard", "wandb"):
            raise ValueError(f"run.trackers: there is no {name}; the trackers are tensorboard, wandb")
        try:
            __import__(name)
        except ImportError:
            raise ValueError(f"{name} is not installed; pip install 'bd-diff[track]' or set run.trackers=[]") from None
    folder.mkdir(parents=True, exist_ok=True)
    leave_at_exit()
    with patch_environment(ACCELERATE_USE_FSDP="false"):  # its own FSDP knows no CPU, and no network called by itself
        accelerator = Accelerator(
            mixed_precision=run.mixed_precision,
            gradient_accumulation_steps=run.gradient_accumulation,
            log_with=list(run.trackers) or None,
            project_dir=str(folder),
            cpu=run.cpu,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],  # the others wait while one validates
        )
    if accelerator.is_main_process:
        claim(folder)
    if any(gather_object([not run.resume and begun(folder)])):  # of computers without a disk in common
        raise ValueError(f"{folder} already holds a training; pass --resume to continue it, or another run.folder")
    return accelerator


def sharding() -> FullyShardedDataParallelPlugin | None:
    """The FSDP settings that accelerate's launcher asks for; None if it does not ask for sharding.

    Raises ValueError for DeepSpeed, for FSDP version 1, and for settings of FSDP that training does not support.
    """

    def asked(name: str) -> bool:
        return os.environ.get(name, "").lower() == "true"

    if asked("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError(f"training does not run under DeepSpeed; launch it by {FSDP_CONFIG} for FSDP")
    if not asked("ACCELERATE_USE_FSDP"):
        return None
    if os.environ.get("FSDP_VERSION") != "2" or is_torch_version("<", "2.7"):
        raise ValueError(f"training runs under version 2 of FSDP alone, from torch 2.7 on; launch it by {FSDP_CONFIG}")
    for name in NOT_OF_FSDP:
        if asked(f"FSDP_{name.upper()}"):
            raise ValueError(f"training does not know fsdp_{name}; set it to false, as {FSDP_CONFIG} does")
    return FullyShardedDataParallelPlugin()


def fit(
    accelerator: Accelerator,
    turns: list[Turn],
    samples: Dataset,
    run: RunConfig,
    save: Callable[[Path], None],
    validate: Callable[[int], dict[str, float]] | None = None,
    collate: Callable = default_collate,
    rate: Callable[[int], float] | None = None,
    stop: Callable[[], bool] | None = None,
    others: Mapping[str, Any] = MappingProxyType({}),
) -> bool:
    """Train until `run.steps`; returns whether it got there. SIGTERM and Ctrl-C save a checkpoint and stop.

    Batch and noise of step s on process r are functions of (seed, s, r) alone, so a resumed training continues as if it
    had never stopped, on the CPU bit for bit.

    save(folder): writes the finished model, called with the averaged weights in place. validate(step): returns figures
    for the trackers, also with averaged weights. rate(step): the share of each optimizer's own learning rate; by
    default it rises over `warmup_steps` and falls to a fiftieth along a cosine. stop(): asked after every validation
    and when a training goes on; true ends it early, as though these had been all its steps. others: objects with a
    `state_dict`, by name, that are kept in checkpoints.
    """
    folder, device = Path(run.folder), accelerator.device
    shares = None
    stand_in: Callable[..., AbstractContextManager] = averaged
    average_of: type[EMAModel] = EMAModel
    if (plugin := sharding()) and len(turns) > 1:
        raise ValueError("adversaries do not train under FSDP; launch them by configs/accelerate/eight_gpus.yaml")
    if plugin and accelerator.num_processes > 1:
        from bd_diff.training.sharding import SharedAverage, Shares  # they need a newer torch than the rest

        shares = Shares(turns[0].objective, turns[0].optimizer, plugin, accelerator)
        stand_in, average_of, turns = shares.lent, SharedAverage, [Turn(shares.objective, turns[0].optimizer)]
    prepared = [
        (
            accelerator.prepare_model(turn.objective, evaluation_mode=bool(shares)),  # if so, without a wrapper
            accelerator.prepare_optimizer(turn.optimizer),
        )
        for turn in turns
    ]
    trained = [[p for p in turn.objective.parameters() if p.requires_grad] for turn in turns]
    averages = [average_of(parameters, decay=run.ema_decay) for parameters in trained] if run.ema_decay else []
    kept = {f"average {turn}": average for turn, average in enumerate(averages)} | dict(others)
    if accelerator.scaler:
        kept["scaler"] = accelerator.scaler
    objectives, optimizers = ([getattr(turn, name) for turn in turns] for name in ("objective", "optimizer"))
    checkpoints = Checkpoints(accelerator, folder, objectives, optimizers, kept)
    rates = [[group["lr"] for group in optimizer.param_groups] for _, optimizer in prepared]
    step = checkpoints.load() if run.resume else 0
    for average in averages:
        average.to(device)
    accelerator.init_trackers("logs", {name: str(value) for name, value in to_dict(run).items()})
    bar = progress(total=run.steps, done=step, unit="step", silent=not accelerator.is_main_process)
    loader = batches(samples, run, step, accelerator, collate)
    saved_at, bad_steps = time.monotonic(), 0
    history: list[dict[str, float]] = []
    finished = step >= run.steps or bool(step and stop and stop())  # a kill came after its end, before all was saved
    with Interruption() as interruption, bar:
        while not finished:
            values: dict[str, float] = {}
            for (_, optimizer), base in zip(prepared, rates, strict=True):
                for group, full in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = full * (rate(step) if rate else rate_factor(step, run))
            micro_batches = [send_to_device(next(loader), device) for _ in range(run.gradient_accumulation)]
            for turn, ((objective, optimizer), parameters) in enumerate(zip(prepared, trained, strict=True)):
                optimizer.zero_grad()
                for part, batch in enumerate(micro_batches):
                    generator = seeded(run.seed, step, accelerator.process_index, turn, part)
                    torch.manual_seed(generator.initial_seed())  # for dropout, which takes no generator
                    last = part == run.gradient_accumulation - 1
                    with accelerator.autocast(), sync_on(accelerator, objective, last):
                        losses = objective(batch, generator)
                    accelerator.backward(losses["loss"])
                    for name, value in losses.items():
                        values[name] = values.get(name, 0.0) + float(value.detach()) / run.gradient_accumulation
                norm = accelerator.clip_grad_norm_(parameters, run.max_grad_norm)
                bad_steps = 0 if torch.isfinite(norm) else bad_steps + 1
                if bad_steps == 0 or accelerator.scaler:  # which leaves out bad steps itself, and scales less after
                    optimizer.step()
                if bad_steps > MOST_BAD_STEPS:
                    raise ValueError(f"{bad_steps} gradients in a row are not finite at step {step}; lower the rate")
            for average, parameters in zip(averages, trained, strict=False):
                average.step(parameters)
            step += 1
            bar.update()
            history = history[-(run.log_every - 1) :] + [values]
            if step % run.log_every == 0:
                mean = {name: sum(one[name] for one in history) / len(history) for name in values}
                accelerator.log({f"train/{name}": value for name, value in mean.items()}, step=step)
                if accelerator.is_main_process:
                    parts = ", ".join(f"{name} {value:.4f}" for name, value in mean.items())
                    tqdm.write(f"step {step}: {parts}")
            if validate and run.validate_every and (step % run.validate_every == 0 or step == run.steps):
                with stand_in(averages, trained):
                    if accelerator.is_main_process:
                        figures = validate(step)
                        accelerator.log({f"validation/{name}": value for name, value in figures.items()}, step=step)
                accelerator.wait_for_everyone()
                finished = bool(stop and stop())
            finished = finished or step == run.steps
            due = time.monotonic() - saved_at > 60 * run.save_minutes
            wanted = torch.tensor([2.0 if interruption.came else float(due)], device=device)
            wanted = max(accelerator.gather(wanted).tolist())
            if wanted or finished:
                checkpoints.save(step)
                saved_at = time.monotonic()
            if wanted == 2:
                break
    if finished:
        with stand_in(averages, trained):
            if accelerator.is_main_process:
                save(folder)
    elif accelerator.is_main_process:
        print(f"stopped at step {step} of {run.steps}; continue with --resume")
    if shares:
        shares.give(shares.shares)
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:  # end_training() would leave the group, and another `fit` may follow
        tracker.finish()
    return finished


def report(config, networks: nn.ModuleDict, *more: str) -> None:
    """What `--dry-run` prints: parameters trained and frozen per network, `more`, and the effective configuration."""
    for name, network in networks.items():
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        print(f"{name:20s} {trained:>13,} trained {sum(p.numel() for p in network.parameters()) - trained:>13,} frozen")
    for line in more:
        print(line)
    print(yaml.safe_dump(to_dict(config), sort_keys=False))


def rate_factor(step: int, run: RunConfig) -> float:
    """Share of the learning rate at a step: linear warm-up, cosine down to 0.02."""
    warm = min(1.0, (step + 1) / max(run.warmup_steps, 1))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / run.steps)))


def batches(samples: Dataset, run: RunConfig, step: int, accelerator: Accelerator, collate: Callable) -> Iterator:
    """This process's batches from `step` on: batch b of all processes together holds the samples from b * size on."""
    size, processes = run.batch_size, accelerator.num_processes
    first, last = step * run.gradient_accumulation, run.steps * run.gradient_accumulation
    begins = [(b * processes + accelerator.process_index) * size for b in range(first, last)]
    indices = [[*range(begin, begin + size)] for begin in begins]
    return iter(DataLoader(samples, batch_sampler=indices, num_workers=run.workers, collate_fn=collate))


def sync_on(accelerator: Accelerator, objective: nn.Module, last: bool):
    """Context in which gradients are exchanged only at the last accumulated batch; sharded ones at every batch."""
    return torch.enable_grad() if last else accelerator.no_sync(objective)


class averaged:
    """Context in which the averaged weights are in the networks."""

    def __init__(self, averages: list[EMAModel], parameters: list[list[nn.Parameter]]):
        self.pairs = list(zip(averages, parameters, strict=False))

    def __enter__(self):
        for average, parameters in self.pairs:
            average.store(parameters)
            average.copy_to(parameters)

    def __exit__(self, *_):
        for average, parameters in self.pairs:
            average.restore(parameters)


class Interruption:
    """Remembers SIGTERM and SIGINT instead of ending at once, so that the step can end and be saved."""

    def __enter__(self):
        self.came, self.before = False, {}
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, *_):
        self.came = True

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)
