"""The command that hands a sweep over to other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    Overrides,
    ResultsRoot,
    Target,
    open_ledger,
)
from orchestrator.cli.console import make_console
from specvit.messages import escape_control_chars

export = typer.Typer(no_args_is_help=True, help="Write a sweep for other programs.")


@export.callback()
def _targets() -> None:
    """Keep ``export optuna`` a command below ``export`` while it is the only one."""


@export.command()
def optuna(
    target: Target,
    out: Annotated[Path, typer.Argument(metavar="OUT.db", help="The SQLite file to write.")],
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The studies' value; default: the first metric that the rungs report."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.db, if it is a file of Optuna's.")] = False,
) -> None:
    """Write Optuna studies, one for each group, for optuna.load_study and optuna-dashboard.

    A study has one value, since Optuna keeps intermediate values for such studies only; the other metrics are user
    attributes. A trial that is done, but whose value is not finite, fails there, with the reason as an attribute.
    """
    from orchestrator.reports.optuna_export import check_target, read_studies, write_studies
    from specvit.files.atomic import replacing

    check_target(out, force=force)
    with open_ledger(target, results, overrides) as ledger:
        studies = read_studies(ledger, metric=metric)
    console = make_console()
    num_trials = sum(len(study.trials) for study in studies)
    with replacing(out) as temporary, console.status(f"writing {num_trials} trials"):
        write_studies(temporary, studies)
    head = f"written: {out}, {num_trials} trials in {len(studies)} {'study' if len(studies) == 1 else 'studies'}:"
    text = "\n".join([head, *(f"  {study.name}" for study in studies)])
    console.print(escape_control_chars(text), markup=False, soft_wrap=True)
