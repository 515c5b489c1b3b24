"""`bd-diff demo`: a local web page to try the model."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bd_diff.commands.options import Device, Dtype, Model, load_pipeline


def demo(
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in, without a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="A host name that the page is reached by; may be repeated.")
    ] = None,
    largest: Annotated[int, typer.Option("--max-upload-mb", min=1, help="Largest photograph in megabytes.")] = 100,
    megapixels: Annotated[
        float | None, typer.Option("--max-megapixels", min=0.001, help="Largest photograph; by default up to 50.")
    ] = None,
) -> None:
    """Open a page in the browser where photographs can be dropped; only this computer can reach it."""
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise ValueError("the page needs Gradio; install it: pip install 'bd-diff[demo]'") from None

    from bd_diff.serving.demo import MOST_WAITING, Demo
    from bd_diff.serving.page import build, launch_settings
    from bd_diff.serving.threads import Desk, others_compute_alone

    def stop(*_) -> None:
        sys.exit(0)

    restorer = load_pipeline(model, device, dtype)
    for number in ("SIGTERM", "SIGHUP"):  # docker and systemd, and a terminal that is closed
        if hasattr(signal, number) and signal.getsignal(getattr(signal, number)) != signal.SIG_IGN:  # as nohup has it
            signal.signal(getattr(signal, number), stop)
    running, desk = None, Desk()
    try:
        running = Demo(restorer, int(megapixels * 1e6) if megapixels else None, desk.ask)
        os.environ["GRADIO_TEMP_DIR"] = str(running.folder)  # uploads are removed with everything else
        samples = Path(__file__).parents[2] / "assets" / "samples" / "blurry"
        running.warm_up()
        page = build(running, [str(path) for path in sorted(samples.glob("*"))])
        page.queue(max_size=MOST_WAITING, status_update_rate=1)
        settings = launch_settings(host, names or [], largest)
        with others_compute_alone():
            page.launch(server_port=port, allowed_paths=[str(samples)], prevent_thread_lock=True, **settings)
            desk.serve()
    finally:
        if running:
            running.close()
