"""`bd-diff exits`: how many sub-decoders AdaRevD runs on the tiles of a photograph."""

from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Device, find_device


def exits(
    model: Annotated[Path, typer.Argument(help="The folder of an AdaRevD.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs.")],
    device: Device = None,
) -> None:
    """Print, for each photograph, how many of its tiles left AdaRevD after each number of sub-decoders."""
    import torch

    from bd_diff.baselines.adarevd import AdaRevD
    from bd_diff.data.images import read_image, to_tensor
    from bd_diff.restore import NetworkRestorer, load

    restorer = load(model, find_device(device))
    if not isinstance(restorer, NetworkRestorer) or not isinstance(restorer.network, AdaRevD):
        raise ValueError(f"{model} holds a {restorer.name}; only AdaRevD has early exits")
    network = restorer.network
    for path in images:
        photograph = to_tensor(read_image(path)).to(network.device)
        with torch.no_grad():
            (report,) = network.restore(photograph[None]).report()
        counts = ", ".join(f"{number} after {depth}" for depth, number in report["exits"].items())
        print(f"{path}: {report['tiles']} tiles, {report['mean_depth']:.2f} of {network.depth} sub-decoders; {counts}")
