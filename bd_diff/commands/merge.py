"""`bd-diff merge`: an adapter and its base as one pipeline folder."""

from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import BaseConfig, Overwrite, Vae, check_writable


def merge(
    adapter: Annotated[Path, typer.Argument(help="The folder of the adapter.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the pipeline.")],
    base: Annotated[str | None, typer.Option(help="Where the base is, if not where the adapter found it.")] = None,
    base_config: BaseConfig = None,
    vae: Vae = None,
    overwrite: Overwrite = False,
) -> None:
    """Add an adapter's LoRA into the weights of its base and save the whole pipeline."""
    from bd_diff.models.model_folder import ADAPTER, is_adapter

    if not is_adapter(adapter):
        raise ValueError(f"{adapter} is not an adapter: it has no {ADAPTER}")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} is already there; pass --overwrite to replace it")
    check_writable(out.absolute().parent)

    from bd_diff.pipeline import BDDiffPipeline
    from bd_diff.stable_diffusion.adapters import merge_lora
    from bd_diff.stable_diffusion.vaes import put_vae
    from bd_diff.training.pipelines import save_pipeline

    pipeline = merge_lora(BDDiffPipeline.from_pretrained(adapter, base=base, base_config=base_config))
    save_pipeline(put_vae(pipeline, vae) if vae else pipeline, out)
    print(f"{out} holds the pipeline")
