"""What adapting may give: the trained model, or only its reading of blur; one of them is kept."""

from pathlib import Path

import torch

from bd_diff.models.image_encoder import ImageEncoder
from bd_diff.models.model_folder import is_adapter
from bd_diff.pipeline import BDDiffPipeline
from bd_diff.training.pipelines import load_pipeline

READER, WHOLE = "reader", "whole"
SAID = {
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
