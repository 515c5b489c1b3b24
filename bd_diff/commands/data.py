"""`bd-diff data check FOLDER`: what is in a folder of images, and what is wrong with it."""

from functools import partial
from typing import Annotated

import typer

from bd_diff.commands.talking import talking

data = typer.Typer(help="Look at folders of images.", no_args_is_help=True)


@data.callback()
def commands() -> None:
    """Look at folders of images."""


@data.command()
@talking
def check(
    folder: Annotated[str, typer.Argument(help="A folder in one of the known layouts.")],
    split: Annotated[str, typer.Option(help="train, val or test, where the layout has them.")] = "test",
    layout: Annotated[
        str | None, typer.Option(help="Take the folder as this layout instead of recognising it.")
    ] = None,
) -> None:
    """Tell layout, counts, sizes, unreadable files and odd pairs; exit code 1 where there are problems."""
    from bd_diff.data.check import check as check_folder
    from bd_diff.data.folders import open_folder
    from bd_diff.data.progress import progress

    findings = check_folder(open_folder(folder, split, layout), partial(progress, unit="item"))
    print("\n".join(findings.lines()))
    if findings.problems:
        raise typer.Exit(1)
