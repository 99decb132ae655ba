"""The commands that hand a sweep over: to other programs, and to other people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    AcceptMixed,
    Overrides,
    ResultsRoot,
    Target,
    open_ledger,
    refuse_url,
)
from orchestrator.cli.console import make_console
from specvit.messages import escape_control_chars


def publish(
    target: Target,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Folder to write to; default: RESULTS/studies/NAME.")
    ] = None,
    accept_mixed: AcceptMixed = False,
) -> None:
    """Put the tables of a finished sweep, its curves, file and environment into a folder to be kept and shared."""
    from orchestrator.publish import STUDIES
    from orchestrator.publish import publish as publish_study

    refuse_url(*([] if to else [results]), why="studies are published to a folder of this machine; give --to DIR")
    with open_ledger(target, results, overrides) as ledger:
        folder = to or Path(results) / STUDIES / ledger.sweep().name
        written = publish_study(ledger, folder, accept_mixed=accept_mixed)
    make_console().print(f"published: {', '.join(map(str, written))}", markup=False, soft_wrap=True)


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

    The value of a trial is the mean of the metric over all seeds of its arm, so that the best trial is one of the best
    arm; an arm of which a seed failed, was pruned or has not ended has none, and no_value_because says why. There is a
    parameter for each ablated axis. The trial's own metrics, its arm, seed and role are user attributes. Floors are no
    trials: they are user attributes of the study, as floor:ARM and external:ARM; so are controls, as control:ARM.
    """
    from orchestrator.reports.optuna_export.studies import check_target, read_studies, write_studies
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
