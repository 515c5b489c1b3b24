"""`bd-diff init`: an untrained BD-Diff over a Stable Diffusion of your choice."""

from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import BaseConfig, Overwrite, Vae, check_writable


def init(
    base: Annotated[
        list[str],
        typer.Option(help="Folder, hub id or .safetensors file of a Stable Diffusion; give mirrors by repeating it."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the pipeline.")],
    base_config: BaseConfig = None,
    vae: Vae = None,
    config: Annotated[
        Path | None, typer.Option(help="A training configuration: sizes are those of its section `networks`.")
    ] = None,
    image_encoder: Annotated[
        str | None,
        typer.Option(
            help="Where structure is read from: small (trained), clip or openclip (frozen), or another of these "
            "libraries as clip:FOLDER_OR_HUB_ID or openclip:NAME:TAG_OR_FILE. By default small, or what CONFIG says."
        ),
    ] = None,
    structure_tokens: Annotated[int, typer.Option(min=1)] = 64,
    hidden_size: Annotated[int, typer.Option(min=64, help="Width of the Q-Formers, a multiple of 64.")] = 512,
    layers: Annotated[int, typer.Option(min=1, help="Layers of each Q-Former.")] = 4,
    seed: Annotated[int, typer.Option(help="The seed of the new weights.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make an untrained BD-Diff pipeline from a base; train it with train/joint.py start_from=OUT."""
    if (out / "model_index.json").exists() and not overwrite:
        raise ValueError(f"{out} already holds a pipeline; pass --overwrite to replace it")
    if hidden_size % 64:
        raise ValueError(f"--hidden-size is {hidden_size}; it must be a multiple of 64")
    check_writable(out.absolute().parent)

    import torch

    from bd_diff.stable_diffusion.base_model import load_base
    from bd_diff.stable_diffusion.image_encoders import image_encoder_section
    from bd_diff.stable_diffusion.vaes import put_vae
    from bd_diff.training.config import read_yaml
    from bd_diff.training.pipelines import pipeline_from_base, save_pipeline

    size = {"hidden_size": hidden_size, "num_layers": layers, "num_heads": hidden_size // 64}
    sections = {
        "structure_qformer": size | {"num_queries": structure_tokens},
        "blur_qformer": size,
    }
    if config:
        sections = read_yaml(config).get("networks") or {}
    if image_encoder:
        sections["image_encoder"] = image_encoder_section(image_encoder)
    torch.manual_seed(seed)
    pipeline = pipeline_from_base(load_base(base, base_config), sections)
    if vae:
        put_vae(pipeline, vae)
    save_pipeline(pipeline, out)
    count = sum(
        p.numel()
        for part in pipeline.components.values()
        if isinstance(part, torch.nn.Module)
        for p in part.parameters()
    )
    print(f"{out}: {count:,} parameters over {pipeline.config.base['id']}; nothing is trained yet")
