"""Kills of folder runs, trainings and adaptations, at random moments of each of their phases."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bd_diff_toys import ROOT, TINY
from PIL import Image
from safetensors.torch import load_file

from bd_diff.adaptation import adapt as adaptation
from bd_diff.baselines.uresnet import UResNet
from bd_diff.blur.kernels import blur, line
from bd_diff.cli import main as cli
from bd_diff.data.claims import LOCK
from bd_diff.data.deep import DeepImage
from bd_diff.data.images import save_image, to_image
from bd_diff.data.procedural import procedural_image
from bd_diff.serving.folder_run import MANIFEST, Manifest
from bd_diff.training.joint import DataConfig, JointConfig, train_joint
from bd_diff.training.pipelines import build_pipeline, save_pipeline

SHARP = ROOT / "assets/sharp"
SOONER = 0.7  # kills come the next time, where half of them came after the end
LOOK = 0.005  # seconds between two looks at what phase a run is in
DONE = "after the end"  # only the process is left
fork = multiprocessing.get_context("fork")


class Lost(Exception):
    """Something that was promised did not hold."""


def check(right: bool, what: str) -> None:
    if not right:
        raise Lost(what)


def photograph(generator: np.random.Generator, deep: bool = False, side: int = 40):
    levels = generator.integers(0, 65536, (side, side + 8, 3), dtype=np.uint16)
    return DeepImage(levels) if deep else Image.fromarray((levels >> 8).astype(np.uint8))


def quietly(work, *arguments) -> None:
    """What a child process does, without a word."""
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        work(*arguments)


def ended(running) -> int:
    """The exit code of a process, which is 0 or that of our kill."""
    running.join()
    check(running.exitcode in (0, -signal.SIGKILL), f"it ended with {running.exitcode}")
    return running.exitcode


def started(work, *arguments):
    running = fork.Process(target=quietly, args=(work, *arguments))
    running.start()
    return running


def phases_of(work, arguments: tuple, phase: Callable[[], str]) -> dict[str, float]:
    """Seconds in each phase of a run that is not killed."""
    running, seconds, before = started(work, *arguments), {}, time.monotonic()
    while running.exitcode is None:
        running.join(LOOK)
        now, seen = time.monotonic(), phase()
        if running.exitcode is None:
            seconds[seen] = seconds.get(seen, 0.0) + now - before
        before = now
    ended(running)
    return seconds


def kill_in(work, arguments: tuple, phase: Callable[[], str], wanted: str, after: float) -> list[str]:
    """Run, and kill some seconds after a phase has begun; the phase that it died in, none where it ended before."""
    running = started(work, *arguments)
    while running.exitcode is None and phase() != wanted:
        time.sleep(LOOK)
    running.join(after)
    if running.exitcode is None:
        os.kill(running.pid, signal.SIGKILL)
    return [phase()] if ended(running) else []


def kill_through(
    work, arguments: tuple, phase: Callable[[], str], lasts: dict[str, float], times: int, chance: random.Random
) -> list[str]:
    """Kill some times in each phase, at random moments of what is left of it, then let it end; gives where it died."""
    died: list[str] = []
    for number, wanted in enumerate(lasts):
        for kill in range(times):
            later = list(lasts)[number + 1 :]
            if phase() not in later:  # the kill before may have come too late for this phase
                left = lasts[wanted] * (times - kill) / times
                died += kill_in(work, arguments, phase, wanted, chance.uniform(0, left))
    ended(started(work, *arguments))
    return died


def kill_runs(
    work: Callable, folder: Path, phase_of: Callable[[Path], str], kills: int, chance: random.Random, right: Callable
) -> str:
    """Kill runs of `work(out)` in each of their phases until so many kills have come, and end them; `right(out, whole)`
    checks each against the one that was not killed.
    """
    whole = folder / "whole"
    lasts, died, rounds = phases_of(work, (whole,), partial(phase_of, whole)), [], 0
    lasts = {name: seconds for name, seconds in lasts.items() if name != DONE}
    times = 1 + (kills > len(lasts))
    while len(died) < kills or not lasts.keys() <= set(died):
        out = folder / f"out{rounds}"
        rounds += 1
        came = kill_through(work, (out,), partial(phase_of, out), lasts, times, chance)
        if len(came) < times * len(lasts) / 2:  # the machine has less to do now
            lasts = {name: SOONER * seconds for name, seconds in lasts.items()}
        right(out, whole)
        died += came
        shutil.rmtree(out)
    counts = ", ".join(f"{died.count(name)} {name}" for name in dict.fromkeys([*lasts, *died]))
    return f"{len(died)} kills of {rounds} runs ({counts})"


def deblur(photographs: Path, model: Path, out: Path) -> None:
    sys.argv = ["bd-diff", "deblur", *map(str, (photographs, "--out", out, "--model", model, "--resume"))]
    cli()


def contents(folder: Path, ending: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(f"*{ending}"))}


def kill_folders(folder: Path, kills: int, chance: random.Random) -> str:
    """A folder run that is killed again and again ends with the results of one that is not."""
    UResNet(width=2).save_pretrained(folder / "model")
    generator = np.random.default_rng(0)
    for index in range(60):
        save_image(photograph(generator, side=160), folder / "in" / f"{index}.png")

    def right(out: Path, whole: Path) -> None:
        expected = contents(whole, ".png")
        check(len(expected) == 60, "the run that was not killed is not whole")
        check(contents(out, ".png") == expected, f"results differ in {out}")
        left = {path.name for path in out.iterdir()} - {*expected, MANIFEST, LOCK}
        check(not left, f"{left} were left in {out}")
        check(len(Manifest(out).read()) == 60, f"lines are lacking in {out}")

    def phase_of(out: Path) -> str:
        return "among the results" if (out / MANIFEST).exists() else "before the first result"

    work = partial(deblur, folder / "in", folder / "model")
    return f"{kill_runs(work, folder, phase_of, kills, chance, right)}: all results equal to the byte"


def train(out: Path) -> None:
    run = {"steps": 8, "batch_size": 1, "save_minutes": 0, "trackers": (), "warmup_steps": 1, "cpu": True}
    settings = adaptation.RunConfig(folder=str(out), resume=bool(adaptation.begun(out)), validate_every=0, **run)
    config = JointConfig(settings, TINY, {"lr": 1e-3}, {"kernel": 0.5, "deblur": 1.0}, {"line": 1.0}, transfer_rows=0,
                         data=DataConfig(window=96, crop=64))  # fmt: skip
    if not (out / "pipeline").exists():
        train_joint(config)


def states(folder: Path) -> dict[str, dict]:
    return {
        str(path.relative_to(folder)): load_file(path) for path in sorted(folder.rglob("pipeline/**/*.safetensors"))
    }


def same(first: dict[str, dict], second: dict[str, dict]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[file][name]) for file, tensors in first.items() for name, tensor in tensors.items()
    )


def kill_trainings(folder: Path, kills: int, chance: random.Random) -> str:
    """A training that is killed again and again ends with the weights of one that is not, to the bit."""

    def right(out: Path, whole: Path) -> None:
        check(len(states(whole)) >= 6, "the training that was not killed has no model")
        check(same(states(out), states(whole)), f"weights differ in {out}")
        check(not list(out.glob("*-saving")), f"something was left in {out}")

    def phase_of(out: Path) -> str:
        if (out / "pipeline").exists():
            return DONE
        if (out / "pipeline-saving").exists():
            return "writing its model"
        return "between checkpoints" if adaptation.recorded(out) else "before the first checkpoint"

    return f"{kill_runs(train, folder, phase_of, kills, chance, right)}: all weights equal to the bit"


def adapt(target: Path, model: Path, out: Path) -> None:
    config = adaptation.adaptation_config(target, model, SHARP, out, steps=8)
    run = adaptation.replace(config.run, batch_size=1, save_minutes=0.02, cpu=True)
    adaptation.adapt(adaptation.replace(config, run=run))


def kill_adaptations(folder: Path, kills: int, chance: random.Random) -> str:
    """An adaptation killed in whatever phase ends with the report and the model of one that is not."""
    torch.manual_seed(0)
    save_pipeline(build_pipeline(TINY), folder / "model")
    for index in range(4):
        image = procedural_image(136, torch.Generator().manual_seed(index))[None]
        path = folder / "target" / f"{index}.png"
        save_image(to_image(blur(image, line(torch.tensor([9.0]), torch.tensor([0.3])))[0]), path)

    def right(out: Path, whole: Path) -> None:
        for name in ("report.json", "blur.json", "history.json", "held_out.txt"):
            check((out / name).read_text() == (whole / name).read_text(), f"{name} differs in {out}")
        check((out / "samples.png").read_bytes() == (whole / "samples.png").read_bytes(), f"samples differ in {out}")
        check(same(states(out), states(whole)), f"weights differ in {out}")
        check(not list(out.glob("best*")) and not list(out.glob("*-saving")), f"something was left in {out}")

    def phase_of(out: Path) -> str:
        if (out / "report.json").exists():
            return DONE
        if (out / "last").exists():
            return "in the report"
        if adaptation.recorded(out):
            return "training"
        return "before the first checkpoint" if (out / "blur.json").exists() else "telling the blur"

    work = partial(adapt, folder / "target", folder / "model")
    return f"{kill_runs(work, folder, phase_of, kills, chance, right)}: all reports and weights equal"
