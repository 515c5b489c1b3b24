"""What adapting may give: the kernel of a lens, the trained model, or only its reading of blur; one of them is kept."""

from pathlib import Path

import torch
from torch import Tensor

from bd_diff.adaptation.lens import Lens, find_lens
from bd_diff.data.crops import PhotographSource
from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.model_folder import is_adapter
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.reading.lens import as_lens
from bd_diff.training.pipelines import load_pipeline

READER, WHOLE, LENS = "reader", "whole", "lens"
SAID = {
    LENS: "These photographs have the blur of one lens: the model knows its kernel now and takes it for each that it "
    "explains; the networks are as they were.",
    READER: "It reads blur as it was trained to for these photographs, and restores as before.",
    WHOLE: "It reads blur and restores as it was trained to for these photographs.",
}


@torch.no_grad()
def candidates(model: Path, trained: Path | None) -> dict[str, BDDiffPipeline]:
    """The candidates by their names in `SAID`, from the folder of the model one began with, that of the trained one
    where training gained.
    """
    found = {}
    if trained is not None:
        found[WHOLE] = load_pipeline(str(trained))
        if not is_adapter(trained) and isinstance(found[WHOLE].image_encoder, ImageEncoder):
            found[READER] = with_reader(load_pipeline(str(model)), load_pipeline(str(trained)))
    return found


@torch.no_grad()
def lens_of(begun: BDDiffPipeline, photographs: list[Tensor], sharp: PhotographSource) -> Lens:
    """What photographs `(1, 3, H, W)` in [0, 1] share, beginning with what the model reads in each; `sharp` as for
    `find_lens`.
    """
    read = []
    for one in photographs:
        kernels = begun.encode_image(one.to(begun.device) * 2 - 1, fast=True).kernels
        assert kernels is not None  # there is a blur decoder
        read.append(kernels.float().cpu())
    return find_lens(photographs, torch.cat(read), sharp)


def with_lens(begun: BDDiffPipeline, kernel: Tensor) -> BDDiffPipeline:
    """The model one began with, which knows the kernel `(1, k, k)` of a lens."""
    begun.register_to_config(lens=as_lens(kernel))
    return begun


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
