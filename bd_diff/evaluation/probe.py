"""Whether structure and blur are disentangled, measured by blur transfer from one photograph to another."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from bd_diff.blur.operator import reblur
from bd_diff.data.drawing import contact_sheet, draw_kernel
from bd_diff.data.images import to_image
from bd_diff.evaluation.evaluate import TABLE_FAMILIES, eight_bit, family_pairs
from bd_diff.evaluation.metrics import psnr

FAMILIES = [family for family in TABLE_FAMILIES if family != "sharp"]


@torch.no_grad()
def transfer_margin(
    pipeline,
    photographs: Sequence[Tensor],
    seed: int = 0,
    fast: bool = False,
    progress=lambda items: items,
) -> dict[str, tuple[float, float]]:
    """By family, the PSNR in dB of a photograph blurred like the right reference, and like a wrong one.

    The blur of photograph i + 1 (cases of `evaluate.family_pairs`) is transferred to photograph i and compared with
    photograph i blurred by the true kernel. The right reference has that kernel, the wrong ones have one of
    another family (mean over both). A model that ignores its blur tokens gets the same figure for both.
    """
    pairs = {family: [pair for pair in family_pairs(photographs, seed) if pair.family == family] for family in FAMILIES}
    rows: dict[str, list[tuple[float, float]]] = {family: [] for family in FAMILIES}
    for index in progress(range(len(photographs))):
        structure = pairs[FAMILIES[0]][index].sharp[None]
        references = {family: pairs[family][(index + 1) % len(photographs)] for family in FAMILIES}
        wanted = {family: eight_bit(reblur(structure, pair.kernel[None])) for family, pair in references.items()}
        produced = {
            family: pipeline(
                structure,
                blur_image=pair.blurry[None],
                fast=fast,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
            ).images.cpu()
            for family, pair in references.items()
        }
        for family in FAMILIES:
            scores = {other: psnr(image, wanted[family]).item() for other, image in produced.items()}
            right = scores.pop(family)
            rows[family].append((right, sum(scores.values()) / len(scores)))
    return {family: tuple(torch.tensor(row).mean(0).tolist()) for family, row in rows.items()}


def picture(pipeline, photographs: Sequence[Tensor], seed: int = 0, fast: bool = False) -> Image.Image:
    """A row for each family: a reference, its kernel as it is and as it is seen, and its blur on another photograph."""
    rows = []
    for pair, other in zip(
        *(family_pairs(images, seed) for images in (photographs[:1], photographs[1:2])), strict=True
    ):
        if pair.family == "sharp":
            continue
        moved = pipeline(
            other.sharp[None],
            blur_image=pair.blurry[None],
            fast=fast,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        )
        rows.append(
            [
                (f"{pair.family}: reference", to_image(pair.blurry)),
                ("its kernel", draw_kernel(pair.kernel)),
                ("as it is seen", draw_kernel(moved.kernels[0])),
                ("another photograph", to_image(other.sharp)),
                ("with that blur", to_image(moved.images[0])),
                ("as it should be", to_image(eight_bit(reblur(other.sharp[None], pair.kernel[None]))[0])),
            ]
        )
    return contact_sheet(rows, height=200)
