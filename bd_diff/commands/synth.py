"""`bd-diff synth`: a folder of sharp photographs as a paired or an unpaired folder of a blur domain."""

from pathlib import Path
from typing import Annotated

import typer


def synth(
    photographs: Annotated[Path, typer.Argument(help="A folder of sharp photographs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write; it must not exist or be empty.")],
    domain: Annotated[
        str, typer.Option(help="source, night-shake, rolling-shake, steady-shake, defocus or extreme.")
    ] = "source",
    names: Annotated[Path | None, typer.Option(help="A text file that lists the photographs to use.")] = None,
    unpaired: Annotated[
        bool, typer.Option("--unpaired", help="Blur one half of the photographs, keep the other.")
    ] = False,
    severity: Annotated[float, typer.Option(min=0, max=1, help="How much of the range of blur is used.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same folder.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Name unreadable photographs and go on.")] = False,
) -> None:
    """Write blurry/ and sharp/ (or unpaired/ and sharp/) with manifest.jsonl: blur, camera and seed of every image."""
    from bd_diff.blur.domains import find_domain
    from bd_diff.data.images import list_images, listed_images
    from bd_diff.data.progress import progress
    from bd_diff.data.synthetic import write_domain

    find_domain(domain)
    paths = listed_images(photographs, names) if names else list_images(photographs)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} already holds something; give a new folder")
    written, bad = write_domain(
        progress(paths), out, domain, paired=not unpaired, severity=severity, seed=seed, skip_bad=skip_bad
    )
    for reason in bad:
        print(f"skipped: {reason}")
    print(f"{written} photographs of the domain {domain} in {out}")
