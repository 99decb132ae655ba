"""The commands that hand a sweep over: to other programs, and to other people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    EXIT_FAILED_TRIALS,
    AcceptMixed,
    Overrides,
    ResultsRoot,
    Target,
    open_ledger,
    refuse_url,
)
from orchestrator.cli.console import complain, make_console, print_raw
from specvit.errors import SpecsweepError
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
    from orchestrator.publish import publish as publish_study
    from orchestrator.storage.views import STUDIES

    refuse_url(*([] if to else [results]), why="studies are published to a folder of this machine; give --to DIR")
    with open_ledger(target, results, overrides) as ledger:
        folder = to or Path(results) / STUDIES / _as_file_name(ledger.sweep().name, target, "give --to DIR")
        written = publish_study(ledger, folder, accept_mixed=accept_mixed)
    make_console().print(f"published: {', '.join(map(str, written))}", markup=False, soft_wrap=True)


def bundle(
    target: Target,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The file to write; default: NAME.zip.")
    ] = None,
) -> None:
    """Put a sweep's tables and all that they follow from into one zip, which 'specsweep verify' checks.

    It has the tables, trials.csv, curves.csv, the sweep file and what is resolved of it, the environment with the
    digest of the code, patches of code that no commit had, and a manifest of their SHA-256. The same results make
    the same bytes. The sweep may be unfinished, or a published study.
    """
    from orchestrator.bundle import FILES, files_of_folder, files_of_ledger, write_bundle
    from orchestrator.results import find_study
    from orchestrator.storage.views import location_of_view
    from orchestrator.verify import verify as verify_study

    if (folder := find_study(target, results)) is not None:
        name, files = folder.resolve().name, files_of_folder(folder)
        if differences := verify_study(folder).differences:
            raise SpecsweepError(f"{folder}: not bundled: its tables do not follow from its trials: {differences[0]}")
    else:
        with open_ledger(target, results, overrides) as ledger:
            name = ledger.sweep().name
            files = files_of_ledger(ledger, location_of_view(ledger.path.parent, target, results))
    path = out or Path(f"{_as_file_name(name, target, 'give one by -o')}.zip")
    sha256 = write_bundle(path, files)
    lines = [f"written: {path}, {len(files)} files and their manifest, SHA-256 {sha256}"]
    patches = [each for each in files if each not in FILES]
    if patches:
        lines.append(f"with changes of the code that no commit had, for all who get it to read: {', '.join(patches)}")
    make_console().print("\n".join(lines), markup=False, soft_wrap=True)


def _as_file_name(name: str, target: str, remedy: str) -> str:
    """Return the name of a sweep, which may be a stranger's, if a file may have it.

    Raises:
        SpecsweepError: If it would lead elsewhere.
    """
    from orchestrator.storage.views import is_file_name

    if not is_file_name(name) or not name.isprintable():
        raise SpecsweepError(f"{target}: its sweep is named {name!r}, which is no name of a file; {remedy}")
    return name


def verify(
    bundle_path: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="What 'specsweep bundle' wrote, or a folder of results.")
    ],
) -> None:
    """Check a bundle: every SHA-256, and every number of the tables, computed again from the trials.

    Names each difference by file, row and column, and exits 1 if there is one, 2 if it is no bundle. Nothing is
    extracted. A folder of results, such as a published study, is checked alike, without a manifest.
    """
    from orchestrator.verify import verify as verify_bundle

    found = verify_bundle(bundle_path)
    for difference in found.differences[:MOST_DIFFERENCES]:
        print_raw(str(difference))
    if found.differences:
        more = len(found.differences) - MOST_DIFFERENCES
        if more > 0:
            print_raw(f"and {more} more")
        number = len(found.differences)
        complain(f"{bundle_path}: {number} difference{'s' * (number != 1)}")
        raise typer.Exit(EXIT_FAILED_TRIALS)
    manifest = "every SHA-256 is that of the manifest, and " if found.has_manifest else ""
    counts = f"{len(found.files)} files, {found.num_trials} trials"
    text = f"{bundle_path}: {counts}: {manifest}the tables follow from the trials"
    make_console().print(text, markup=False, soft_wrap=True)


MOST_DIFFERENCES = 100
"""Differences that are printed."""

export = typer.Typer(no_args_is_help=True, help="Write a sweep for other programs.")


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


_TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")


def _tracker_command(name: str) -> Callable[..., None]:
    """Return the command that tells a tracker all of a sweep."""

    def command(
        target: Target,
        overrides: Overrides = None,
        results: ResultsRoot = DEFAULT_RESULTS,
        fields: Annotated[
            list[str] | None,
            typer.Option("--with", metavar="FIELD=VALUE", help="A setting of the tracker, in place of the file's."),
        ] = None,
    ) -> None:
        from orchestrator.monitoring.status import is_running
        from orchestrator.monitoring.tracking import read_tracker, tell_all
        from orchestrator.storage.views import folder_of_view

        tracker = read_tracker(name, target, overrides or (), fields or ())
        tracker.check_installed()
        with open_ledger(target, results, overrides) as ledger:
            view, sweep = ledger.path.parent, ledger.sweep().name
            if is_running(view):
                raise SpecsweepError(f"{folder_of_view(view)}: a run holds these results; export them when it ends")
            folder = tracker.folder_in(folder_of_view(view).absolute())
            tell_all(tracker, ledger=ledger.path, folder=folder)
        place = escape_control_chars(tracker.destination(folder, sweep=sweep))
        make_console().print(f"told {name}: {place}", markup=False, soft_wrap=True)

    command.__doc__ = (
        f"Report a whole sweep to {name}: a run for each trial, each point once.\n\nSettings are those of the sweep "
        "file, if TARGET is one and names this tracker."
    )
    return command


for _name in _TRACKERS:
    export.command(_name)(_tracker_command(_name))
