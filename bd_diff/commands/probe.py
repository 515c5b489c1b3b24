"""`bd-diff probe`: whether blur tokens hold the blur, and only the blur."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Device, Dtype, Fast, Model, Seed, check_writable


def probe(
    data: Annotated[Path, typer.Option(help="A folder of sharp photographs.")],
    names: Annotated[Path | None, typer.Option(help="A text file that lists the photographs to use.")] = None,
    limit: Annotated[int | None, typer.Option(min=3, help="Use only the first so many photographs.")] = None,
    model: Model = None,
    fast: Fast = False,
    device: Device = None,
    dtype: Dtype = None,
    samples: Annotated[int, typer.Option(min=30, help="Blurred photographs for the linear probes.")] = 240,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder for probe.json and probe.png.")] = None,
    seed: Seed = 0,
) -> None:
    """Measure how well structure and blur are disentangled: linear probes, distances, swaps, right and wrong blur."""
    from bd_diff.commands.options import load_pipeline
    from bd_diff.data.images import save_image
    from bd_diff.data.photographs import Photographs
    from bd_diff.data.progress import progress
    from bd_diff.data.writing import replacing
    from bd_diff.evaluation import decoupling
    from bd_diff.evaluation.probe import picture, transfer_margin

    if out is not None:
        check_writable(out)
    pipeline = load_pipeline(model, device, dtype).pipeline
    if pipeline.blur_decoder is None:
        raise ValueError(f"{model} has no blur_decoder; probe a model that sees kernels")
    photographs = list(islice(Photographs(data, only=names), limit))
    pipeline.set_progress_bar_config(disable=True)
    bar = lambda items: progress(items, unit="photograph")  # noqa: E731
    figures = {
        "probes": decoupling.token_probes(pipeline, photographs, samples, seed, bar),
        "structure": decoupling.structure_distance(pipeline, photographs, seed),
        "swap": decoupling.swap_inside_a_blur(pipeline, photographs, seed, fast),
        "tokens": decoupling.token_swaps(pipeline, photographs, seed, fast, bar),
        "map": decoupling.map_correlation(pipeline, photographs, seed, fast, bar),
        "transfer": transfer_margin(pipeline, photographs, seed, fast, progress=bar),
    }
    lines = told(figures)
    try:
        if out is not None:
            with replacing(out / "probe.json") as part:
                part.write_text(json.dumps(figures, indent=1) + "\n")
            save_image(picture(pipeline, photographs, seed, fast), out / "probe.png")
            lines.append(f"probe.json and probe.png are in {out}")
    finally:  # figures are written where nobody reads the output, and printed where they cannot be written
        print("\n".join(lines))


def told(figures: dict) -> list[str]:
    """The figures in words."""
    blurred, other = figures["structure"].values()
    same, different = figures["swap"].values()
    return [
        "linear probes from blur tokens: blur should be read, content should not",
        *(f"  {name:<22}{value:>7.3f}" for name, value in figures["probes"].items()),
        f"structure tokens: blurred photograph {blurred:.2e} away, another photograph {other:.2e}",
        f"swap of two references: of one blur {same:.2f} dB alike, of two blurs {different:.2f} dB",
        "deblurring by its own tokens, and by others (gain in dB PSNR):",
        *(
            f"  {family:<10}" + ", ".join(f"{name} {gain:+.2f}" for name, gain in row.items())
            for family, row in figures["tokens"].items()
        ),
        "re-blur map against true error, rank correlation: "
        + ", ".join(f"{name} {value:.2f}" for name, value in figures["map"].items()),
        f"{'blur transfer':<14} {'right':>9} {'wrong':>9} {'margin':>9}",
        *(
            f"{family:<14} {right:>6.2f} dB {wrong:>6.2f} dB {right - wrong:>+6.2f} dB"
            for family, (right, wrong) in figures["transfer"].items()
        ),
    ]
