"""`bd-diff convert`: a checkpoint published by others -> a model folder of this project."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A released NAFNet or AdaRevD .pth file.")],
    out: Annotated[Path, typer.Argument(help="The model folder to make.")],
    classifier: Annotated[
        Path | None, typer.Option(help="AdaRevD's classifier, where it is a file of its own.")
    ] = None,
    exit_table: Annotated[str | None, typer.Option(help="Sub-decoders per class, for example 4,4,3,3,2,1.")] = None,
) -> None:
    """Turn a released NAFNet or AdaRevD checkpoint into a model folder. Its licence stays that of the checkpoint."""
    if out.exists():
        raise ValueError(f"{out} is already there; remove it, or choose another folder")
    table = None if exit_table is None else read_table(exit_table)

    from bd_diff.baselines import adarevd, nafnet
    from bd_diff.baselines.released import read_checkpoint, unwrap
    from bd_diff.data.writing import replacing_folder

    state = read_checkpoint(checkpoint)
    if any(key.startswith("subdenets.") for key in unwrap(state)):
        parts = None if classifier is None else read_checkpoint(classifier)
        network = adarevd.convert_released(state, parts, exit_table=table)
    elif classifier or exit_table:
        raise ValueError(f"{checkpoint} is no AdaRevD, so it takes neither --classifier nor --exit-table")
    else:
        network = nafnet.convert_released(state)
    with replacing_folder(out) as temporary:
        network.save_pretrained(temporary)
    size = sum(parameter.numel() for parameter in network.parameters())
    print(f"{type(network).__name__} with {size:,} parameters, in {out}")


def read_table(text: str) -> list[int]:
    """Depths from a list with commas."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"--exit-table is {text!r}; give whole numbers with commas, as 4,4,3,3,2,1") from None
