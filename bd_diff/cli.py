"""`bd-diff`: one line per command, and one line on the terminal for every error a user can cause."""

import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from bd_diff import __version__
from bd_diff.commands.adapt import adapt
from bd_diff.commands.bench import bench
from bd_diff.commands.convert import convert
from bd_diff.commands.data import data
from bd_diff.commands.deblur import deblur
from bd_diff.commands.demo import demo
from bd_diff.commands.domain import domain
from bd_diff.commands.evaluate import compare, evaluate
from bd_diff.commands.exits import exits
from bd_diff.commands.export import export
from bd_diff.commands.init import init
from bd_diff.commands.kernel import kernel
from bd_diff.commands.merge import merge
from bd_diff.commands.probe import probe
from bd_diff.commands.sample import sample
from bd_diff.commands.synth import synth
from bd_diff.commands.talking import talking
from bd_diff.commands.transfer import transfer

COMMANDS: dict[str, list[Callable[..., None]]] = {  # by the heading that `bd-diff --help` puts them under
    "Photographs": [deblur, adapt, domain, kernel, transfer, sample, demo],
    "Research": [evaluate, compare, probe, bench, synth, exits, export, convert],
    "Stable Diffusion": [init, merge],
}
NAMES = {evaluate: "eval"}

app = typer.Typer(
    help="Deblur photographs, move blur from one to another, and see what blur a model sees.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def tell_version(wanted: bool) -> None:
    """Print the version, and no more."""
    if wanted:
        print(f"bd-diff {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=tell_version, help="Print the version.")
    ] = False,
) -> None:
    """Deblur photographs, move blur from one to another, and see what blur a model sees."""


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(NAMES.get(command), rich_help_panel=panel)(talking(command))
app.add_typer(data, name="data", rich_help_panel="Research")


def main() -> None:
    """Run the command line; `ValueError` and `OSError` become `error: ...` on stderr and exit code 1."""
    warnings.formatwarning = one_line
    try:
        app(prog_name="bd-diff")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def one_line(message, category, filename="", lineno=0, line=None) -> str:
    """A warning as a person reads it; those of libraries keep the name of their kind."""
    kind = "warning" if category is UserWarning else category.__name__
    return f"{kind}: {' '.join(str(message).split())}\n"


if __name__ == "__main__":
    main()
