"""`bd-diff probe`: does the model read blur, or does it only pretend?"""

from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Fast, Model, Seed


def probe(
    data: Annotated[Path, typer.Option(help="A folder of sharp photographs.")],
    names: Annotated[Path | None, typer.Option(help="A text file that lists those to use.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Only the first so many.")] = None,
    model: Model = None,
    fast: Fast = False,
    seed: Seed = 0,
) -> None:
    """Transfer blur from a right and from a wrong reference, and print how much better the right one is."""
    from tqdm import tqdm

    from bd_diff.commands.options import load_pipeline
    from bd_diff.data.batches import read_photographs
    from bd_diff.probe import transfer_margin

    photographs = read_photographs(data, only=names)[:limit]
    pipeline = load_pipeline(model).pipeline
    pipeline.set_progress_bar_config(disable=True)
    margins = transfer_margin(pipeline, photographs, seed, fast, progress=lambda items: tqdm(items, unit="photograph"))
    print(f"{'blur transfer':<14} {'right':>9} {'wrong':>9} {'margin':>9}")
    for family, (right, wrong) in margins.items():
        print(f"{family:<14} {right:>6.2f} dB {wrong:>6.2f} dB {right - wrong:>+6.2f} dB")
