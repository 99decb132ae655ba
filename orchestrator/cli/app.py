"""The command line. It parses, prints and sets the exit code; the work is done elsewhere.

Exit codes: 0 all trials have a result; 1 some trials failed, or all arms were pruned; 2 the input cannot be used;
3 another run holds the results folder; 4 results cannot be written (a full disk, a read-only file), or everything
fails; 130 stopped by Ctrl-C: to be continued by the same command.
"""

from __future__ import annotations

import atexit
import errno
import gc
import io
import json
import sys
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_LOCKED,
    EXIT_STOPPED,
    Overrides,
    ResultsRoot,
    Target,
    open_ledger,
    read_data,
)
from orchestrator.cli.compare import compare
from orchestrator.cli.console import complain, discard_output, is_closed_pipe, make_console, print_raw
from orchestrator.cli.control import cancel, prune, redo, retry
from orchestrator.cli.evaluate import evaluate
from orchestrator.cli.export import bundle, export, publish, verify
from orchestrator.cli.housekeeping import delete, list_sweeps
from orchestrator.cli.plan import plan
from orchestrator.cli.power import power
from orchestrator.cli.report import report
from orchestrator.cli.run import run
from orchestrator.cli.shares import shares
from orchestrator.cli.watch import events, logs, status
from orchestrator.ledger.errors import LedgerWriteError
from orchestrator.storage.folder_lock import LockedError
from specvit.errors import PartError, SpecsweepError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (*_NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run ablation sweeps over [CLS]/patch specialization of Vision Transformers, and print their tables.",
    epilog="Exit codes: 0 all done, 1 some trials failed or all arms were pruned, 2 bad input, "
    "3 results in use by another run, 4 results cannot be written, the cluster is gone or everything fails, "
    "130 stopped by Ctrl-C.",
)


class Format(StrEnum):
    """The forms in which tables are printed."""

    TEXT = "text"
    MARKDOWN = "md"
    LATEX = "latex"
    HTML = "html"
    CSV = "csv"
    JSON = "json"


def _print_version(wanted: bool) -> None:
    if wanted:
        print_raw(f"specsweep {version('specsweep')}")
        raise typer.Exit


@app.callback()
def _options(
    version_: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line; turn what a user can cause into one message and an exit code."""
    # What is imported lives as long as the process: to look through it for garbage, now and then and once more at the
    # end, takes a sixth of a short command's time.
    threshold = gc.get_threshold()
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the locale's encoding lacks a character, its code is printed, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as end:
        if not is_closed_pipe(end):
            raise
        discard_output()
        sys.exit(0)
    except (SpecsweepError, OSError) as error:
        if is_closed_pipe(error):
            discard_output()
            sys.exit(0)
        # Also a folder that cannot be written, or a disk that is full: the system's words name the file.
        complain(error)
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        gc.set_threshold(*threshold)


def table(
    target: Target,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    format_: Annotated[Format, typer.Option("--format", help="Form of the tables.")] = Format.TEXT,
    metrics: Annotated[
        str, typer.Option(metavar="NAMES", help="Metrics to show, by commas, in this order: knn_top1,miou.")
    ] = "",
    arms: Annotated[
        str,
        typer.Option(
            metavar="ARMS",
            help="Rows to show beside the baseline, by commas: names as in the table, or globs: 'norm*,paper'. "
            "Intervals and verdicts stay those of all arms.",
        ),
    ] = "",
    sort: Annotated[
        str,
        typer.Option(
            metavar="METRIC|arm|parameters|difference",
            help="Sort the rows of each role: by a metric's mean or the difference in the primary metric, best first; "
            "by name; by extra parameters, fewest first. Default: as in the sweep.",
        ),
    ] = "",
) -> None:
    """Print a sweep's tables from its ledger; also of a sweep that is not finished, or still runs.

    Without a ledger, as of a published study, or where TARGET is a trials.csv, they are made of trials.csv and the
    sweep.json beside it.
    """
    from orchestrator import reports
    from orchestrator.reports.ablation_table import tables_of

    data = read_data(target, results, overrides)
    info, tables = data.info, tables_of(data.records, data.info)
    tables = reports.apply_view(tables, reports.TableView(metrics, arms, sort))
    if format_ is Format.TEXT:
        make_console().print(reports.render_rich(tables, info))
        return
    renderers = {
        Format.MARKDOWN: "render_markdown",
        Format.LATEX: "render_latex",
        Format.HTML: "render_html_page",
        Format.CSV: "render_csv",
        Format.JSON: "render_json",
    }
    print_raw(getattr(reports, renderers[format_])(tables, info).rstrip("\n"))


def curves(target: Target, overrides: Overrides = None, results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Write a sweep's rungs as curves over training, and its diagnostics, as CSV and figures; also while it runs.

    Without a ledger, as of a published study, curves are made of the trials.csv and curves.csv there.
    """
    from orchestrator.reports.curves import write_curves
    from orchestrator.reports.diagnostics.csv_file import write_diagnostics
    from orchestrator.reports.per_trial.sweep_data import SweepData
    from orchestrator.results import find_study
    from orchestrator.storage.views import folder_of_view

    if (study := find_study(target, results)) is not None:
        written = write_curves(study, SweepData.of_folder(study).records)
    else:
        with open_ledger(target, results, overrides) as ledger:
            folder, records = folder_of_view(ledger.path.parent), ledger.records()
            written = (*write_curves(folder, records), *write_diagnostics(folder, records, ledger.diagnostics()))
    if not written:
        raise SpecsweepError(f"{target}: no trial has come to a rung; rungs.count says how many there are (0 = none)")
    print_raw(f"written: {', '.join(map(str, written))}")


def diagnose(
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
        model, data=data, num_images=images, folder=out, untrained=untrained, console=make_console()
    )


def schema() -> None:
    """Print the JSON schema of the sweep file, for editors."""
    from orchestrator.sweep.schema import sweep_json_schema

    print_raw(json.dumps(sweep_json_schema(), indent=2))


def _exit_code(error: BaseException) -> int:
    """Return the code of an error: what cannot be written now is told from what cannot be used."""
    if isinstance(error, PartError):  # with a part that is broken, nothing more can be imported
        return EXIT_BAD_INPUT
    from orchestrator.execution.capacity import ClusterLostError
    from orchestrator.scheduling.breaker import EverythingFailsError

    is_lock = isinstance(error, LockedError)
    causes = _UNWRITABLE if is_lock else _NO_ROOM
    found: BaseException | None = error
    while found is not None:
        is_full = isinstance(found, OSError) and found.errno in causes
        if is_full or isinstance(found, LedgerWriteError | ClusterLostError | EverythingFailsError):
            return EXIT_STOPPED
        found = found.__cause__
    return EXIT_LOCKED if is_lock else EXIT_BAD_INPUT


_COMMANDS = (
    *(run, evaluate, retry, redo, cancel, prune, plan, power),
    *(status, logs, events, table, report, compare, curves, publish, bundle, verify),
    *(shares, delete, diagnose, schema),
)
for command in _COMMANDS:
    app.command()(command)
app.command("list")(list_sweeps)
app.add_typer(export, name="export")
