"""`bd-diff bench`: time and memory of restoration on this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.assets import asset
from bd_diff.commands.options import Fast, Overwrite, Steps, check_output


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Folders or hub ids; by default the model in this repository."),
    ] = None,
    sides: Annotated[list[int] | None, typer.Option("--side", min=8, help="Pixels a side; may be repeated.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs, after one to warm up.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per run.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; the GPU where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 or float16 by autocast.")] = "float32",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Store images and weights channels last.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network (torch.compile).")] = False,
    steps: Steps = None,
    fast: Fast = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the JSON to this file, too.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Seconds, images a second, GMACs and peak memory by system and size, each in a process of its own."""
    if out is not None:
        check_output(out, [], overwrite)

    from bd_diff.data.writing import replacing
    from bd_diff.serving.bench import DTYPES, Case, report, table
    from bd_diff.serving.bench import bench as measure

    if dtype not in DTYPES:
        raise ValueError(f"--dtype is {dtype}; it must be one of {', '.join(DTYPES)}")
    settings = {"num_inference_steps": steps, "fast": fast}
    costs = [
        measure(Case(model, side, batch_size, runs, device, dtype, channels_last, compiled, settings))
        for model in models or [str(asset("bd-diff-tiny"))]
        for side in sides or [256, 512, 1024]
    ]
    found = json.dumps(report(costs), indent=2)
    print(found if as_json else table(costs))
    if out is not None:
        with replacing(out) as part:
            part.write_text(found + "\n")
