"""The command that puts two sweeps side by side, or two runs of one."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.cli.arguments import DEFAULT_RESULTS, ResultsRoot, open_ledger
from orchestrator.cli.console import make_console, print_raw


class CompareFormat(StrEnum):
    """The forms in which a comparison is printed."""

    TEXT = "text"
    JSON = "json"


_WHAT = "a sweep file, the folder of a sweep's results (a path or a URL), or its name"


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
    alike, an arm is compared with itself seed by seed; else by Welch's interval. What differs is told of configuration,
    data, code, versions, device and machine.
    """
    from orchestrator.cli.compare_view import comparison_json, render_comparison
    from orchestrator.compare import compare_sweeps, read_side

    with open_ledger(first, results) as one, open_ledger(second, results) as other:
        sides = read_side(one, first), read_side(other, second)
        found = compare_sweeps(*sides, metric)
    if format_ is CompareFormat.JSON:
        print_raw(json.dumps(comparison_json(*sides, found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        make_console().print(render_comparison(*sides, found))
