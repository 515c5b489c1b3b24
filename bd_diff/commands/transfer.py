"""`bd-diff transfer`: one photograph with the blur of another."""

from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Device, Dtype, Model, Overwrite, Seed, Steps, check_output, load_pipeline


def transfer(
    structure: Annotated[Path, typer.Argument(help="The photograph to blur.")],
    blur: Annotated[Path, typer.Argument(help="The photograph whose blur is taken.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The image file to write.")],
    model: Model = None,
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Blur one photograph the way another is blurred."""
    check_output(out, [structure, blur], overwrite)

    from bd_diff.data.images import read_image, save_image, to_image
    from bd_diff.data.inputs import part_of
    from bd_diff.restore import call_settings

    photograph = read_image(structure)
    part, reference = (
        part_of(*one, deblur=False) for one in ((photograph, str(structure)), (read_image(blur), str(blur)))
    )
    restorer = load_pipeline(model, device, dtype)
    restorer.check_settings(num_inference_steps=steps)
    settings = call_settings(restorer, seed, num_inference_steps=steps, blur_image=reference.pixels[None])
    (result,) = restorer(part.pixels[None], **settings)
    save_image(to_image(part.put_back(result), like=photograph), out)
    print(f"written to {out}")
