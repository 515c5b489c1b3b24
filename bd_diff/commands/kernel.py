"""`bd-diff kernel`: a picture of the blur that the model sees in a photograph."""

from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Device, Dtype, Fast, Model, Overwrite, check_output, load_pipeline


def kernel(
    image: Annotated[Path, typer.Argument(help="The blurry photograph.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The image file to write.")],
    model: Model = None,
    fast: Fast = False,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw the blur kernel that the model sees in a photograph, and print its extent and direction."""
    check_output(out, [image], overwrite)

    from bd_diff.data.drawing import draw_kernel, kernel_shape
    from bd_diff.data.images import read_image, save_image
    from bd_diff.data.inputs import part_of

    part = part_of(read_image(image), str(image), deblur=False)
    (found,) = load_pipeline(model, device, dtype).pipeline.estimate_kernel(part.pixels[None], fast=fast).cpu()
    save_image(draw_kernel(found), out)
    along, across, angle = kernel_shape(found)
    print(
        f"spread {along:.1f} px along {angle:.0f} degrees, {across:.1f} px across (standard deviations); drawn in {out}"
    )
