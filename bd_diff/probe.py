"""Did structure and blur come apart? Measured by moving blur from one photograph to another."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bd_diff.evaluate import TABLE_FAMILIES, eight_bit, family_pairs
from bd_diff.metrics import psnr
from bd_diff.models.blur_operator import reblur

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

    The blur of photograph i + 1 (cases of `bd_diff.evaluate.family_pairs`) is transferred to photograph i and compared
    with photograph i blurred by the true kernel. The right reference has that kernel, the wrong ones have one of
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
