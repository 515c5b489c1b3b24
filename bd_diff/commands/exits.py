"""`bd-diff exits`: how deep AdaRevD goes for each tile of a photograph."""

from pathlib import Path
from typing import Annotated

import typer


def exits(
    model: Annotated[Path, typer.Argument(help="The folder of an AdaRevD.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs.")],
) -> None:
    """Say for each photograph how many of its tiles left AdaRevD after how many sub-decoders."""
    import torch

    from bd_diff.data.images import read_image, to_tensor
    from bd_diff.restore import load

    network = load(model).network
    if not hasattr(network, "restore"):
        raise ValueError(f"{model} holds a {type(network).__name__}; only AdaRevD leaves early")
    for path in images:
        photograph = to_tensor(read_image(path)).to(network.device)
        with torch.no_grad():
            (report,) = network.restore(photograph[None]).report()
        counts = ", ".join(f"{number} after {depth}" for depth, number in report["exits"].items())
        print(f"{path}: {report['tiles']} tiles, {report['mean_depth']:.2f} of {network.depth} sub-decoders; {counts}")
