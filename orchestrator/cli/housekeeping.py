"""The commands that look after a results folder: which sweeps are there, and what of them can go."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    EXIT_BAD_INPUT,
    Overrides,
    ResultsRoot,
    open_ledger,
    refuse_url,
)
from orchestrator.cli.console import complain, make_console, print_raw
from specvit.errors import SpecsweepError
from specvit.messages import one_line

if TYPE_CHECKING:
    from orchestrator.catalog import ListedSweep
    from orchestrator.cleanup import Removable

_STYLES = {"running": "cyan", "complete": "green", "stopped": "yellow", "silent": "yellow"}
"""Of states; the others, failed and unreadable, are red."""

_MINUTES = len("2026-01-31T12:00")


def list_sweeps(
    results: Annotated[
        str, typer.Argument(metavar="[RESULTS]", help="Folder that holds one folder per sweep; a path or a URL.")
    ] = DEFAULT_RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the sweeps of a results folder: state, trials, the last run, the question.

    Of one that cannot be read a line on stderr says why; the exit code is 2 if that is so of all of them.
    """
    from orchestrator.catalog import list_sweeps as read_sweeps

    sweeps = read_sweeps(results)
    if as_json:
        print_raw(json.dumps([sweep.to_json() for sweep in sweeps], indent=2))
    elif not sweeps:
        raise SpecsweepError(f"{results}: holds no sweep's results")
    else:
        make_console().print(_render(sweeps))
    for sweep in sweeps:
        if sweep.error:
            complain(f"{sweep.name} cannot be read: {sweep.error}")
    if sweeps and all(sweep.error for sweep in sweeps):
        raise typer.Exit(EXIT_BAD_INPUT)


def delete(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="The sweep: its file, its results folder, or its name.")
    ] = None,
    unused: Annotated[
        bool,
        typer.Option(
            "--unused", help="What no sweep in --results refers to: states, weights, decoded images in --cache."
        ),
    ] = False,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of decoded images; default: ~/.cache/specsweep.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete the results of a sweep, or what no sweep refers to any more; say before what that frees, and ask."""
    from orchestrator.cleanup import delete_sweep, delete_unused, find_sweep, find_unused

    refuse_url(*filter(None, (target, results)), why="results at a URL are deleted by the tools of their store")
    if unused == (target is not None):
        raise SpecsweepError("delete: give a sweep, or --unused")
    console = make_console()
    if target is None:
        found = find_unused(Path(results), cache)
        if not found:
            console.print("nothing is unused", markup=False)
            return
        everything = [each for removable in found.values() for each in removable]
        for each in everything:
            console.print(f"{each.path}: {each.what}, {_size(each.num_bytes)}", markup=False, soft_wrap=True)
        _confirm(f"delete these {_summary(everything)}", yes=yes)
        delete_unused(found)
        console.print(f"deleted: {_summary(everything)}", markup=False)
        return
    folder = _folder_of(target, results, overrides)
    everything = find_sweep(folder)
    _confirm(f"delete {folder} with {_summary(everything)}", yes=yes)
    is_gone = delete_sweep(folder, everything)
    left = "" if is_gone else "; what others have put there is left"
    console.print(f"deleted: {folder}, {_summary(everything)}{left}", markup=False, soft_wrap=True)


def _folder_of(target: str, results: str, overrides: Sequence[str] | None) -> Path:
    """Return the folder of a sweep's results, also of one whose ledger cannot be read."""
    if Path(target).is_dir():
        return Path(target)
    if (Path(results) / target).is_dir():
        return Path(results) / target
    from orchestrator.storage.views import folder_of_view

    with open_ledger(target, results, overrides) as ledger:
        return folder_of_view(ledger.path.parent)


def _confirm(question: str, *, yes: bool) -> None:
    """Ask, unless that was answered before.

    Raises:
        SpecsweepError: If nobody can be asked.
        typer.Exit: If the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise SpecsweepError(f"{question}? There is nobody to ask; give --yes")
    if not typer.confirm(f"{question}?"):
        raise typer.Exit(0)


def _summary(found: Iterable[Removable]) -> str:
    """Return what is deleted, by kind: ``ledger and tables``, ``3 states``, and how much it frees."""
    sizes: dict[str, int] = {}
    for each in found:
        sizes[each.what] = sizes.get(each.what, 0) + each.num_bytes
    parts = ", ".join(f"{what} {_size(num_bytes)}" for what, num_bytes in sizes.items())
    return f"{parts}: {_size(sum(sizes.values()))} in all"


def _size(num_bytes: int) -> str:
    if num_bytes < 1000:
        return f"{num_bytes} bytes"
    power = min(4, int(math.log10(num_bytes)) // 3)
    return f"{num_bytes / 1000**power:.1f} {'_kMGT'[power]}B"


def _state_text(sweep: ListedSweep) -> str:
    from orchestrator.reports.rendering.formatting import format_seconds

    return f"silent for {format_seconds(sweep.silent_s)}" if sweep.state == "silent" else sweep.state


def _render(sweeps: Sequence[ListedSweep]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("sweep", "state", "trials", "last run", "question"):
        table.add_column(name, overflow="fold")
    for sweep in sweeps:
        trials = ", ".join(f"{count} {state}" for state, count in sweep.counts.items())
        last_run = sweep.last_run[:_MINUTES].replace("T", " ")
        table.add_row(
            Text(one_line(sweep.name)),
            Text(_state_text(sweep), style=_STYLES.get(sweep.state, "red")),
            Text(f"{trials} of {sweep.trials}" if sweep.trials else ""),
            Text(last_run),
            Text(one_line(sweep.question)),
        )
    return table
