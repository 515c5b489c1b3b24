"""`bd-diff domain`: is the blur of these photographs what the model was trained on, and is adapting worth it?"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bd_diff.commands.options import Device, Dtype, Model, check_writable


def domain(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Blurry photographs.")] = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    reference: Annotated[
        Path | None, typer.Option(help="Sharp photographs: make the model's reference statistics from them first.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Only the first so many photographs of a folder.")] = 64,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A JSON file for all figures.")] = None,
) -> None:
    """Compare the blur of folders with the blur that the model was trained on."""
    if not folders and reference is None:
        raise ValueError("name a folder of blurry photographs, or --reference with a folder of sharp ones")
    for folder in folders or []:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
    if out is not None:
        check_writable(out.parent)

    from bd_diff.adaptation import domain_gap
    from bd_diff.assets import asset
    from bd_diff.commands.options import load_pipeline
    from bd_diff.data.images import list_images, read_image, to_tensor
    from bd_diff.data.photographs import Photographs
    from bd_diff.data.progress import progress
    from bd_diff.data.writing import replacing
    from bd_diff.models.model_folder import find_folder

    home = find_folder(model or asset("bd-diff-tiny"))
    pipeline = load_pipeline(model, device, dtype).pipeline
    if pipeline.blur_decoder is None:
        raise ValueError(f"{home} has no blur_decoder, so its blur cannot be described as kernels")
    if reference is not None:
        check_writable(home)
        bar = lambda items: progress(items, unit="photograph", desc="reference")  # noqa: E731
        domain_gap.write_reference(domain_gap.reference_readings(pipeline, Photographs(reference), progress=bar), home)
        print(f"reference statistics are in {home / domain_gap.REFERENCE}")
    trained_on, sharp = domain_gap.read_reference(home), Photographs(asset("sharp"))
    figures: dict[str, dict[str, Any]] = {}
    for folder in folders or []:
        paths = progress(list_images(folder)[:limit], unit="photograph", desc=folder.name)
        photographs = [domain_gap.middle(to_tensor(read_image(path))) for path in paths]
        readings = domain_gap.read_photographs_blur(pipeline, (one[0] for one in photographs))
        found = domain_gap.gaps(readings, trained_on)
        lens = domain_gap.lens_among(readings, photographs, sharp)
        figures[str(folder)] = {
            "photographs": len(photographs),
            "gap": domain_gap.total_gap(found),
            "gaps": found,
            "means": {name: float(values.mean()) for name, values in readings.items() if values.ndim == 1},
            "lens": lens and lens.figures(),
            "misread": domain_gap.misread(lens, readings),
            "verdict": domain_gap.verdict(readings, trained_on, lens),
        }
    for name, row in sorted(figures.items(), key=lambda item: (item[1]["misread"], item[1]["gap"])):
        print(f"\n{name}, {row['photographs']} photographs\n{'':<12}{'gap':>6}{'here':>9}{'training':>10}")
        for statistic, value in row["gaps"].items():
            means = " " * 19
            if statistic in row["means"]:
                means = f"{row['means'][statistic]:>9.2f}{float(trained_on[statistic].mean()):>10.2f}"
            print(f"{statistic:<12}{value:>6.2f}{means}  {domain_gap.STATISTICS[statistic]}")
        print(row["verdict"])
    if out is not None:
        with replacing(out) as part:
            part.write_text(json.dumps(figures, indent=1) + "\n")
