"""What every command tells: less with `--quiet`, more with `--verbose`, through the standard `logging`."""

import functools
import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

PANEL = "How much is told"
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Tell errors only.", rich_help_panel=PANEL)]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Tell more; twice, all.", rich_help_panel=PANEL)
]


def talking(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options `--quiet` and `--verbose`, which are set before it runs."""

    @functools.wraps(command)
    def run(*arguments, quiet: bool, verbose: int, **settings) -> None:
        set_level(quiet, verbose)
        command(*arguments, **settings)

    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (("quiet", False, Quiet), ("verbose", 0, Verbose))
    ]
    signature = inspect.signature(command)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *own])  # type: ignore[attr-defined]
    run.__annotations__ = command.__annotations__ | {"quiet": Quiet, "verbose": Verbose}
    return run


def set_level(quiet: bool, verbose: int) -> None:
    """Set the logger "bd_diff", which every module of the package logs to, that of other libraries, and what becomes
    of warnings."""
    if quiet and verbose:
        raise ValueError("--quiet and --verbose contradict each other; give one of them")
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("bd_diff").setLevel(level)
    logging.getLogger().setLevel(logging.ERROR if quiet else logging.WARNING)  # xformers warns at import
    if quiet:
        warnings.simplefilter("ignore")


def is_quiet() -> bool:
    """Whether only errors are told."""
    return not logging.getLogger("bd_diff").isEnabledFor(logging.WARNING)
