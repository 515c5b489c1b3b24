"""`bd-diff sample`: photographs deblurred, measured, and laid side by side; the repository's samples by default."""

import time
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Device, Dtype, Fast, Model, Seed, Steps, check_writable, load_system

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"


def sample(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")] = Path("outputs"),
    photographs: Annotated[
        Path | None, typer.Option(help="Your own folder of photographs, or of the subfolders blurry and sharp.")
    ] = None,
    names: Annotated[Path | None, typer.Option(help="A text file that lists the photographs to use.")] = None,
    model: Model = None,
    steps: Steps = None,
    seed: Seed = 0,
    fast: Fast = False,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Deblur photographs and draw one sheet: before, after, and the truth where it is known."""
    folder = photographs or SAMPLES
    if not folder.is_dir():
        hint = "" if photographs else "; the sample photographs are in a checkout of the repository"
        raise ValueError(f"{folder} is missing{hint}")
    check_writable(out)

    from bd_diff.data.drawing import contact_sheet
    from bd_diff.data.images import list_images, listed_images, read_image, save_image, to_image, to_tensor
    from bd_diff.data.inputs import hidden_in, part_of
    from bd_diff.evaluation.metrics import psnr
    from bd_diff.restore import call_settings

    blurred = folder / "blurry" if (folder / "blurry").is_dir() else folder
    chosen = listed_images(blurred, names) if names else list_images(blurred)
    restorer = load_system(model, device, dtype)
    restorer.check_settings(**call_settings(restorer, seed, num_inference_steps=steps, fast=fast))
    rows, seconds = [], []
    print(f"{'photograph':<28} {'size':>9} {'seconds':>8} {'PSNR before':>12} {'after':>7}")
    for path in chosen:
        photograph = read_image(path)
        blurry = to_tensor(photograph)[None]
        started = time.perf_counter()
        part = part_of(photograph, str(path))
        settings = call_settings(restorer, seed, num_inference_steps=steps, fast=fast, hidden=hidden_in([part]))
        restored = restorer(part.pixels[None], **settings)
        result = to_image(part.put_back(restored[0]), like=photograph)
        seconds.append(time.perf_counter() - started)
        save_image(result, out / f"{path.stem}.png")
        row = [(f"{path.stem}: before", photograph), ("after", result)]
        figures = ""
        truth = folder / "sharp" / path.name
        if truth.exists():
            sharp = to_tensor(read_image(truth))[None]
            before, after = (psnr(images, sharp).item() for images in (blurry, to_tensor(result)[None]))
            row = [(f"{path.stem}: {before:.2f} dB", photograph), (f"after: {after:.2f} dB", result)]
            row.append(("truth", read_image(truth)))
            figures = f"{before:>9.2f} dB {after:>7.2f} dB"
        rows.append(row)
        print(f"{path.stem:<28} {'x'.join(map(str, photograph.size)):>9} {seconds[-1]:>8.1f} {figures}")
    save_image(contact_sheet(rows), out / "sample.png")
    mean = sum(seconds) / len(seconds)
    print(f"{mean:.1f} seconds per image on the {restored.device.type.upper()}; results and sample.png are in {out}/")
