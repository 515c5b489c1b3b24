"""`bd-diff export`: a system for runtimes without PyTorch."""

from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Model, Overwrite, check_output, load_system


def export(
    out: Annotated[Path, typer.Option("--out", "-o", help="The .onnx file to write.")],
    model: Model = None,
    side: Annotated[
        int,
        typer.Option(
            min=64,
            help="Side in pixels of the images that BD-Diff or AdaRevD takes; for AdaRevD a power of two is fastest.",
        ),
    ] = 256,
    overwrite: Overwrite = False,
) -> None:
    """Write a regression system, or BD-Diff's learned kernel estimator, as an ONNX file."""
    if out.suffix != ".onnx":
        raise ValueError(f"{out} must end in .onnx")
    check_output(out, [], overwrite)

    from bd_diff.serving.export import export as write

    print(f"{out}: {write(load_system(model, 'cpu'), out, side)}")
