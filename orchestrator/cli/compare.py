"""The command that puts two sweeps side by side, or two runs of one."""

from __future__ import annotations

import json
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import DEFAULT_RESULTS, ResultsRoot, open_ledger
from orchestrator.cli.console import make_console, print_raw

if TYPE_CHECKING:
    from orchestrator.compare import Side


class CompareFormat(StrEnum):
    """The forms in which a comparison is printed."""

    TEXT = "text"
    JSON = "json"


_WHAT = "a sweep file, the folder of a sweep's results (a path or a URL) or of a published study, or its name"


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=f"The one sweep: {_WHAT}.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other; differences are B - A.")],
    results: ResultsRoot = DEFAULT_RESULTS,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="The metric; default: A's primary one, if B has it.")
    ] = None,
    format_: Annotated[CompareFormat, typer.Option("--format", help="Form of the comparison.")] = CompareFormat.TEXT,
) -> None:
    """Put the arms of two sweeps, or of two runs of one, side by side: B - A with its interval, and what else differs.

    Arms are matched by their text, and by that of their group where both have several. Where trainings are configured
    alike and have seeds in common, an arm is compared with itself seed by seed; else by Welch's interval. What
    differs is told of configuration, data, code, versions, device and machine.
    """
    from orchestrator.cli.compare_view import comparison_json, render_comparison
    from orchestrator.compare import compare_sweeps

    with ExitStack() as ledgers:
        sides = _read(first, results, ledgers), _read(second, results, ledgers)
        found = compare_sweeps(*sides, metric)
    if format_ is CompareFormat.JSON:
        print_raw(json.dumps(comparison_json(*sides, found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        make_console().print(render_comparison(*sides, found))


def _read(target: str, results: str, ledgers: ExitStack) -> Side:
    """Read a sweep from its ledger, which stays open, or from its files where there is none."""
    from orchestrator.compare import read_side, read_study_side
    from orchestrator.results import find_study

    if (folder := find_study(target, results)) is not None:
        return read_study_side(folder, target)
    return read_side(ledgers.enter_context(open_ledger(target, results)), target)
