"""What adapting may give: the trained model, only its reading of blur, or the kernel of a lens; one of them is kept."""

from pathlib import Path

import torch
from torch import Tensor

from bd_diff.adaptation.lens import ALIKE, LEAST, shared_kernel, unlikeness
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.model_folder import is_adapter
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.training.pipelines import load_pipeline

READER, WHOLE, LENS = "reader", "whole", "lens"
SAID = {
    READER: "It reads blur as it was trained to for these photographs, and restores as before.",
    WHOLE: "It reads blur and restores as it was trained to for these photographs.",
    LENS: "These photographs show the blur of one lens: its kernel is known now, and taken wherever it explains a "
    "photograph best.",
}


@torch.no_grad()
def candidates(model: Path, trained: Path | None, photographs: list[Tensor]) -> dict[str, BDDiffPipeline]:
    """The candidates by their names in `SAID`, from the folder of the model one began with, that of the trained one
    where training gained, and photographs `(1, 3, H, W)` in [0, 1] of the target. There is a lens only where what is
    read in them is alike: elsewhere one kernel does harm.
    """
    found = {}
    if trained is not None:
        found[WHOLE] = load_pipeline(str(trained))
        if not is_adapter(trained) and isinstance(found[WHOLE].image_encoder, ImageEncoder):
            found[READER] = with_reader(load_pipeline(str(model)), load_pipeline(str(trained)))
    begun = load_pipeline(str(model))
    if begun.blur_decoder is not None and not is_adapter(model) and len(photographs) >= LEAST:
        begun.register_to_config(lens=None)
        read = torch.cat([begun.encode_image(one * 2 - 1, fast=True).kernels for one in photographs])
        if unlikeness(read) < ALIKE:
            found[LENS] = with_lens(begun, photographs, read)
    return found


@torch.no_grad()
def with_reader(begun: BDDiffPipeline, trained: BDDiffPipeline) -> BDDiffPipeline:
    """The model one began with, which reads blur as the trained one does. What its UNet sees of structure and of "no
    blur" stays as it was, and so do all bounds that were measured with it.
    """
    encoder, reader = trained.image_encoder, trained.blur_qformer
    encoder.structure.load_state_dict(begun.image_encoder.structure.state_dict())
    reader.null_tokens.copy_(begun.blur_qformer.null_tokens)
    begun.register_modules(image_encoder=encoder, blur_qformer=reader, blur_decoder=trained.blur_decoder)
    begun.register_to_config(search=trained.config.search)
    return begun


@torch.no_grad()
def with_lens(begun: BDDiffPipeline, photographs: list[Tensor], read: Tensor) -> BDDiffPipeline:
    """The model one began with, which knows the kernel that these photographs share; `read` `(N, k, k)` of them."""
    kernel = shared_kernel(photographs, read)
    begun.register_to_config(lens={"kernel": [[round(value, 7) for value in row] for row in kernel[0].tolist()]})
    return begun
