"""The command that shows what a sweep would do; ``run --dry-run`` is the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import DEFAULT_RESULTS, Name, Overrides, ResultsRoot, SweepPath, with_name
from orchestrator.cli.console import make_console, print_raw


def plan(
    sweep_file: SweepPath,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Slots to forecast for; default: what this machine has room for.")
    ] = None,
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the groups, arms and trials of a sweep, and forecast its time, without running anything."""
    print_plan(sweep_file, with_name(overrides, name), results, slots=slots, as_json=as_json)


def print_plan(
    sweep_file: Path, overrides: Sequence[str], results: str, *, slots: int | None = None, as_json: bool = False
) -> None:
    """Print the plan of a sweep; for the arguments see ``plan``."""
    from orchestrator.cli.plan_view import render_plan
    from orchestrator.plan import make_plan
    from orchestrator.sweep.loading import load_sweep

    made = make_plan(load_sweep(sweep_file, overrides), results_root=results, num_slots=slots)
    if as_json:
        print_raw(json.dumps(made.to_json(), indent=2))
    else:
        make_console().print(render_plan(made))
