"""`bd-diff`: one line per command, and one line on the terminal for every error a user can cause."""

import sys
import warnings
from collections.abc import Callable

import typer

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
from bd_diff.commands.transfer import transfer

COMMANDS: list[Callable[..., None]] = [
    deblur,
    transfer,
    kernel,
    sample,
    synth,
    compare,
    adapt,
    domain,
    probe,
    demo,
    bench,
    export,
    convert,
    init,
    merge,
    exits,
]

app = typer.Typer(
    help="Deblur photographs, move blur from one to another, and see what blur a model sees.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)
app.command("eval")(evaluate)
app.add_typer(data, name="data")


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
