"""What the commands share: types of their arguments, exit codes, consoles, and the way from a target to its ledger."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from orchestrator.plain_text import visible
from orchestrator.problems import SweepFileError
from specvit.errors import SpecsweepError

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger

EXIT_FAILED_TRIALS = 1
EXIT_BAD_INPUT = 2
EXIT_LOCKED = 3
EXIT_STOPPED = 4
EXIT_INTERRUPTED = 130

PIPE_WIDTH = 140
"""Columns to print tables in where there is no terminal whose width could be asked for."""

SweepPath = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.")]
Target = Annotated[
    Path, typer.Argument(metavar="TARGET", help="A sweep file, or the folder of a sweep's results.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override a value of the file, e.g. data.root=/images; repeatable."
    ),
]
ResultsRoot = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Folder that holds one folder per sweep.")
]
DEFAULT_RESULTS = Path("results")


class _Console(Console):
    """Leave it to the command what a closed pipe means; rich would end the process with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise what was raised."""
        raise BrokenPipeError


def make_console(*, stderr: bool = False) -> Console:
    """Make the console to print on; in a pipe or file it is wide enough for tables."""
    console = _Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = _Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    return console


def complain(error: Exception) -> None:
    """Print an error's message to stderr."""
    # Problems of a sweep file open with their place, as a compiler's do; other messages with the program's name.
    prefix = "" if isinstance(error, SweepFileError) else "specsweep: "
    print(f"{prefix}{visible(str(error))}", file=sys.stderr)


def print_raw(text: str) -> None:
    """Print a text for programs, or in a format of its own, as it is; it is out when this returns."""
    print(text, flush=True)


@contextmanager
def ending_with_the_pipe() -> Iterator[None]:
    """End the command quietly where the program that reads its output has had enough, as ``head`` has.

    Raises:
        typer.Exit: With code 0, if so.
    """
    try:
        yield
    except BrokenPipeError as error:
        # What is still in the buffer would raise once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from error


@contextmanager
def open_ledger(target: Path, results_root: Path) -> Iterator[Ledger]:
    """Open the ledger of a sweep file, a results folder, or a name in ``results_root``, for reading.

    Raises:
        SpecsweepError: If there is none.
    """
    from orchestrator.ledger import Ledger
    from orchestrator.run import LEDGER_NAME
    from orchestrator.sweepfile import load_sweep

    if target.is_dir():
        path = target / LEDGER_NAME
    elif target.exists():
        path = results_root / load_sweep(target).name / LEDGER_NAME
    else:
        path = results_root / target / LEDGER_NAME
        if not path.exists():
            raise SpecsweepError(f"{target}: no such sweep file or results folder")
    if not path.exists():
        raise SpecsweepError(f"{path}: no ledger here; has this sweep been run with this results folder?")
    with Ledger.read(path) as ledger:
        yield ledger
