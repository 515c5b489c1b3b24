"""`bd-diff adapt`: learn the blur of your own photographs, without sharp twins of them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.assets import asset
from bd_diff.commands.options import Device, Model, check_writable, find_device


def adapt(
    target: Annotated[Path, typer.Option(help="A folder of blurry photographs, 128 pixels a side or more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder for adapted model, report and checkpoints.")],
    model: Model = None,
    sharp: Annotated[
        Path | None,
        typer.Option(help="A folder of 50 or more sharp photographs of anything; by default the 19 that ship."),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            min=1, help="The most steps; training stops earlier once it gains nothing. Under 20 are a rehearsal."
        ),
    ] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 2,
    device: Device = None,
) -> None:
    """Adapt a model to unpaired photographs. Run again after a stop, it continues."""
    for folder in filter(None, (target, sharp)):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
    check_writable(out)
    if (chosen := find_device(device)) is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(chosen)  # where accelerate looks for the device to train on

    from diffusers.utils import logging

    from bd_diff.adaptation import adapt as adaptation
    from bd_diff.models.model_folder import find_folder

    logging.disable_progress_bar()
    home, sharp = find_folder(model or asset("bd-diff-tiny")), sharp or asset("sharp")
    report = adaptation.adapt(adaptation.adaptation_config(target, home, sharp, out, steps, seed))
    if report is None:
        print("stopped; run the same command again to go on")
        raise typer.Exit(1)
    if report["steps"]:
        print(f"\n{report['steps']} steps" + (", stopped early" if report["stopped_early"] else ""), end="")
        print(f"; the best is of step {report['best_step']}\n{'':<12}{'before':>9}{'after':>9}")
        for name in ("criterion", "gap", "kernel_size"):
            print(f"{name:<12}{report[name]['before']:>9.4f}{report[name]['after']:>9.4f}")
        shares = sorted(report["blur"].items(), key=lambda item: -item[1])
        print(f"trained on {', '.join(f'{share:.0%} {family}' for family, share in shares if share >= 0.01)}")
    for sentence in report["advice"]:
        print(sentence)
    print(f"{out / 'samples.png'} shows photographs before and after; use it with --model {out / 'pipeline'}")
