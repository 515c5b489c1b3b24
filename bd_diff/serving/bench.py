"""Benchmarks on this machine: seconds, multiplications and peak memory, by system and size."""

import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from diffusers.utils import logging
from torch.utils.flop_counter import FlopCounterMode

from bd_diff.restore import NetworkRestorer, System, call_settings, load

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Case:
    """What is measured: a model folder or id, `batch` images of `side` x `side` pixels at once, and the options.

    Half precision is that of autocast: weights and spectra stay float32.
    """

    model: str
    side: int
    batch: int = 1
    runs: int = 5
    device: str | None = None
    dtype: str = "float32"
    channels_last: bool = False
    compiled: bool = False
    settings: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a case costs: seconds per batch (`median`, `fastest`, `slowest`), images per second, GMACs per image, MiB.

    GMACs count convolutions and matrix products, not FFTs. Peak memory is the accelerator's, or that of the whole
    process without one (None if the system does not report it).
    """

    system: str
    side: int
    batch: int
    median: float
    fastest: float
    slowest: float
    images_per_second: float
    gmacs: float
    peak_mib: float | None


def bench(case: Case) -> Cost:
    """Measure in a process of its own, so that peak memory is that of this case alone. Its errors are raised here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, case).result()


def measure(case: Case) -> Cost:
    """Measure in this process: one run to warm up and count operations, then `runs` timed runs."""
    logging.disable_progress_bar()
    restorer, dtype = load(case.model, case.device), DTYPES[case.dtype]
    for part in parts(restorer):
        part.requires_grad_(False)  # the counter follows gradients where there could be some
    switch(restorer, case.channels_last, case.compiled)
    device = next(module(restorer).parameters()).device
    images = smooth_noise(case.batch, case.side).to(device)

    def restore() -> float:
        settings = call_settings(restorer, 0, case.batch, **case.settings)
        began = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            restorer(images, **settings)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - began

    with FlopCounterMode(display=False) as counter:
        restore()
    if case.compiled:
        restore()  # counting may have been compiled in
    seconds = sorted(restore() for _ in range(case.runs))
    median = statistics.median(seconds)
    return Cost(
        system=restorer.name,
        side=case.side,
        batch=case.batch,
        median=median,
        fastest=seconds[0],
        slowest=seconds[-1],
        images_per_second=case.batch / median,
        gmacs=counter.get_total_flops() / 2e9 / case.batch,
        peak_mib=peak_mib(device),
    )


def parts(restorer: System) -> list[torch.nn.Module]:
    """All networks of a system."""
    if isinstance(restorer, NetworkRestorer):
        return [restorer.network]
    return [part for part in restorer.pipeline.components.values() if isinstance(part, torch.nn.Module)]


def module(restorer: System) -> torch.nn.Module:
    """The network that does most of the work: the UNet of BD-Diff, any other system itself."""
    return restorer.network if isinstance(restorer, NetworkRestorer) else restorer.pipeline.unet


def switch(restorer: System, channels_last: bool, compiled: bool) -> None:
    """Switch the network that does most of the work to channels-last memory, to `torch.compile`, or to both."""
    if channels_last:
        module(restorer).to(memory_format=torch.channels_last)
    if compiled:
        module(restorer).compile()


def smooth_noise(batch: int, side: int) -> torch.Tensor:
    """Images `(B, 3, side, side)` with structure of about four pixels, the same on every call."""
    coarse = torch.rand(batch, 3, -(-side // 4), -(-side // 4), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")[..., :side, :side]


def peak_mib(device: torch.device) -> float | None:
    """The most memory in MiB that this process has used on the device so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")  # Not getrusage: its peak includes the parent's at the fork.
    if not status.exists():
        return None
    (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(peak) / 1024


def machine() -> dict:
    """The device, the number of threads and the versions that the figures hold for."""
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(costs: list[Cost]) -> str:
    """The costs as a Markdown table, one row per case."""
    rows = [
        "| system | pixels | seconds (fastest to slowest) | images/s | GMACs | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for cost in costs:
        times = f"{cost.batch} x " if cost.batch > 1 else ""
        peak = "unknown" if cost.peak_mib is None else f"{cost.peak_mib:.0f}"
        rows.append(
            f"| {cost.system} | {times}{cost.side}x{cost.side} | {cost.median:.3g} ({cost.fastest:.3g} to "
            f"{cost.slowest:.3g}) | {cost.images_per_second:.3g} | {cost.gmacs:.3g} | {peak} |"
        )
    return "\n".join(rows)


def report(costs: list[Cost]) -> dict:
    """The costs and the machine as a dictionary for JSON."""
    return {"machine": machine(), "costs": [asdict(cost) for cost in costs]}
