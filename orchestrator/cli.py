"""The command line. It parses, prints and sets the exit code; the work is done elsewhere.

Exit codes: 0 all trials have a result; 1 some trials failed; 2 the input cannot be used; 3 another run holds
the results folder; 130 stopped by Ctrl-C, to be continued by the same command.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from orchestrator.lock import LockedError
from orchestrator.problems import SweepFileError
from specvit.errors import SpecsweepError

if TYPE_CHECKING:
    from types import FrameType

EXIT_FAILED_TRIALS = 1
EXIT_BAD_INPUT = 2
EXIT_LOCKED = 3
EXIT_INTERRUPTED = 130

PIPE_WIDTH = 140
"""Columns to print tables in where there is no terminal whose width could be asked for."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run ablation sweeps over [CLS]/patch specialization of Vision Transformers, and print their tables.",
    epilog="Exit codes: 0 all done, 1 some trials failed, 2 bad input, 3 results in use by another run, "
    "130 stopped by Ctrl-C.",
)


class Format(StrEnum):
    """Name the forms in which tables are printed."""

    TEXT = "text"
    MARKDOWN = "md"
    CSV = "csv"
    JSON = "json"


class ExecutorName(StrEnum):
    """Name the executors."""

    RAY = "ray"
    LOCAL = "local"


SweepPath = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="The sweep file.")]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="A sweep file, or the folder of a sweep's results, a path or a URL.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override a value of the file, e.g. data.root=/images; repeatable."
    ),
]
ResultsRoot = Annotated[
    str, typer.Option("--results", metavar="DIR", help="Folder that holds one folder per sweep; a path or a URL.")
]
DEFAULT_RESULTS = "results"


def main() -> None:
    """Run the command line; turn what a user can cause into one message and an exit code."""
    try:
        app()
    except LockedError as error:
        _complain(error)
        sys.exit(EXIT_LOCKED)
    except SpecsweepError as error:
        _complain(error)
        sys.exit(EXIT_BAD_INPUT)
    except OSError as error:
        # A folder that cannot be written, a disk that is full: the system's words name the file.
        _complain(error)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


@app.command()
def run(
    sweep_file: SweepPath,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    executor: Annotated[
        ExecutorName, typer.Option(help="ray: a cluster, this machine being the smallest. local: one by one.")
    ] = ExecutorName.RAY,
    address: Annotated[
        str | None, typer.Option(help="Address of a running Ray cluster; 'auto' finds one on this machine.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Trials to run at once; default: as many as there is room for.")
    ] = None,
) -> None:
    """Run what is missing of a sweep, then print and write its tables."""
    from orchestrator.remote_results import results_folder
    from orchestrator.run import run_sweep
    from orchestrator.sweepfile import load_sweep
    from orchestrator.wiring import data_loader, executor_factory, print_outcome, view_factory

    console = _console()
    sweep = load_sweep(sweep_file, overrides or ())
    with results_folder(results, sweep.name) as folder, _stop_on_signal() as should_stop:
        outcome = run_sweep(
            sweep,
            folder=folder.local,
            remote=folder.remote,
            make_executor=executor_factory(
                console, sweep, local=executor is ExecutorName.LOCAL, address=address, slots=slots
            ),
            make_view=view_factory(console, sweep),
            load_data=data_loader(console),
            should_stop=lambda: should_stop() or folder.is_taken_over(),
        )
    print_outcome(console, outcome, folder.local)
    if not outcome.finished:
        command = shlex.join(["specsweep", *sys.argv[1:]])
        console.print(f"Stopped. To go on, run the same command again: {command}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if outcome.num_failed:
        raise typer.Exit(EXIT_FAILED_TRIALS)


@app.command()
def plan(
    sweep_file: SweepPath,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Slots to forecast for; default: what this machine has room for.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the groups, arms and trials of a sweep, and forecast its time, without running anything."""
    from orchestrator.plan import make_plan, render_plan
    from orchestrator.remote_results import local_view
    from orchestrator.sweepfile import load_sweep

    made = make_plan(load_sweep(sweep_file, overrides or ()), results_root=local_view(results), num_slots=slots)
    if as_json:
        _print_raw(json.dumps(made.to_json(), indent=2))
    else:
        _console().print(render_plan(made))


@app.command()
def status(target: Target, results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Show where a sweep stands: trials by state, what runs, what failed and why."""
    from orchestrator.lock import is_held
    from orchestrator.remote_results import holder_of_view
    from orchestrator.status import render_status

    with _open_ledger(target, results) as ledger:
        held = is_held(ledger.path.parent) or bool(holder_of_view(ledger.path.parent))
        _console().print(render_status(ledger.sweep(), ledger.records(), ledger.provenance(), is_held=held))


@app.command()
def table(
    target: Target,
    results: ResultsRoot = DEFAULT_RESULTS,
    format_: Annotated[Format, typer.Option("--format", help="Form of the tables.")] = Format.TEXT,
) -> None:
    """Print a sweep's tables from its ledger; also of a sweep that is not finished, or still runs."""
    from orchestrator.diagnostics_table import write_diagnostics
    from orchestrator.rendering import render_csv, render_json, render_markdown, render_rich
    from orchestrator.tables import build_tables

    with _open_ledger(target, results) as ledger:
        info, records = ledger.sweep(), ledger.records()
        try:
            write_diagnostics(ledger.path.parent, records, ledger.diagnostics())
        except SpecsweepError as error:
            _complain(error)  # of results in a folder that is read-only there is a table all the same
    tables = build_tables(records, info.metrics)
    if format_ is Format.TEXT:
        _console().print(render_rich(tables, info))
        return
    render = {Format.MARKDOWN: render_markdown, Format.CSV: render_csv, Format.JSON: render_json}[format_]
    _print_raw(render(tables, info).rstrip("\n"))


@app.command()
def curves(target: Target, results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Write a sweep's rungs as curves over training, a CSV and a figure; also of a sweep that still runs."""
    from orchestrator.curves import write_curves

    with _open_ledger(target, results) as ledger:
        written = write_curves(ledger.path.parent, ledger.records())
    if not written:
        raise SpecsweepError(f"{target}: no trial has come to a rung; rungs.count says how many there are (0 = none)")
    _print_raw(f"written: {', '.join(map(str, written))}")


@app.command("diagnose")
def diagnose_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file that specvit wrote, or the name of a model of timm's.")
    ],
    data: Annotated[
        str, typer.Option(metavar="SOURCE[:ROOT]", help="Images (val split): scenes, image_folder:DIR, masks:DIR.")
    ],
    images: Annotated[int, typer.Option(min=1, metavar="N", help="How many images, at most.")] = 256,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write to; default: results/diagnostics/MODEL.")
    ] = None,
    untrained: Annotated[bool, typer.Option(help="Draw the weights of timm's model at random.")] = False,
) -> None:
    """Look into one model: cosines, norms and attention of [CLS] and patches, block by block."""
    from orchestrator.diagnose import diagnose_model

    diagnose_model(
        model, data=data, num_images=images, folder=out, untrained=untrained, console=_console()
    )


@app.command()
def schema() -> None:
    """Print the JSON schema of the sweep file, for editors."""
    from orchestrator.sweep_schema import sweep_json_schema

    _print_raw(json.dumps(sweep_json_schema(), indent=2))


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    return console


def _complain(error: Exception) -> None:
    # Problems of a sweep file open with their place, as a compiler's do; other messages with the program's name.
    prefix = "" if isinstance(error, SweepFileError) else "specsweep: "
    print(f"{prefix}{error}", file=sys.stderr)


def _print_raw(text: str) -> None:
    print(text)


@contextmanager
def _open_ledger(target: str, results: str) -> Iterator[Any]:
    """Open the ledger of a sweep file or a results folder for reading."""
    from orchestrator.ledger import Ledger
    from orchestrator.remote_folder import is_url
    from orchestrator.remote_results import local_view
    from orchestrator.run import LEDGER_NAME
    from orchestrator.sweepfile import load_sweep

    if is_url(target):
        path = local_view(target) / LEDGER_NAME
    elif Path(target).is_dir():
        path = Path(target) / LEDGER_NAME
    elif Path(target).exists():
        name = load_sweep(Path(target)).name
        path = local_view(results, name=name) / name / LEDGER_NAME
    else:
        path = local_view(results, name=target) / target / LEDGER_NAME
        if not path.exists():
            raise SpecsweepError(f"{target}: no such sweep file or results folder")
    if not path.exists():
        place = f"{target} with --results {results}" if is_url(target + results) else path
        raise SpecsweepError(f"{place}: no ledger here; has this sweep been run with this results folder?")
    with Ledger.read(path) as ledger:
        yield ledger


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one interrupts at once."""
    wishes: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        wishes.append(number)
        if len(wishes) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(wishes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
