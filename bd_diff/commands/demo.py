"""`bd-diff demo`: a local web page to try the model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Model, load_pipeline


def demo(
    model: Model = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in, unasked.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    largest: Annotated[int, typer.Option("--max-upload-mb", min=1, help="Largest photograph in megabytes.")] = 100,
) -> None:
    """Open a page in the browser where photographs can be dropped; only this computer can reach it."""
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("the page needs Gradio; install it: pip install 'bd-diff[demo]'") from None

    from bd_diff.serving.demo import Demo, build

    running = Demo(load_pipeline(model))
    os.environ["GRADIO_TEMP_DIR"] = str(running.folder)  # uploads are removed with everything else
    samples = Path(__file__).parents[2] / "assets" / "samples" / "blurry"
    try:
        page = build(running, [str(path) for path in sorted(samples.glob("*"))])
        page.queue(max_size=8).launch(
            server_name=host, server_port=port, max_file_size=f"{largest}mb", allowed_paths=[str(samples)]
        )
    finally:
        running.close()
