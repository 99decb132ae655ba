"""What the commands share: types of their arguments, exit codes, and the way from a target to its ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import complain
from specvit.errors import SpecsweepError

if TYPE_CHECKING:
    from orchestrator.ledger.ledger import Ledger
    from orchestrator.reports.per_trial.sweep_data import SweepData

EXIT_FAILED_TRIALS = 1
EXIT_BAD_INPUT = 2
EXIT_LOCKED = 3
EXIT_STOPPED = 4
EXIT_INTERRUPTED = 130

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
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the sweep and of its results folder. Default: the file's, and what --set makes different.",
    ),
]
ResultsRoot = Annotated[
    str, typer.Option("--results", metavar="DIR", help="Folder that holds one folder per sweep; a path or a URL.")
]
DEFAULT_RESULTS = "results"
AcceptMixed = Annotated[
    bool,
    typer.Option(
        "--accept-mixed",
        help="Let trials stand side by side that different code, versions or devices have computed; tables mark them.",
    ),
]


class NoLedgerError(SpecsweepError):
    """A sweep that has no ledger, or not yet."""


def with_name(overrides: Sequence[str] | None, name: str | None) -> list[str]:
    """Return the overrides, the name that ``--name`` gives among them."""
    return [*(overrides or ()), *([] if name is None else [f"name={json.dumps(name)}"])]


@contextmanager
def open_ledger(target: str, results: str, overrides: Sequence[str] | None = None) -> Iterator[Ledger]:
    """Open the ledger of a sweep file, a results folder, or a name in ``results``, for reading.

    Of results at a URL or on a network file system, the ledger is the mirrored one, as old as the last upload. A sweep
    file need not be valid: its name is all that is asked for. If it says something else than what was run, a line on
    stderr says so.

    Args:
        target: What the user named.
        results: Folder that holds one folder per sweep.
        overrides: ``path=value`` of a run of a sweep file, which may be part of its name.

    Raises:
        NoLedgerError: If there is none.
        SpecsweepError: If the target is no sweep, or its ledger cannot be read.
    """
    from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
    from orchestrator.storage.remote_folder import is_url
    from orchestrator.storage.views import folder_of_view, local_view
    from orchestrator.sweep.naming import find_name, has_other_text

    file: Path | None = None
    if is_url(target) or Path(target).is_dir():
        path = local_view(target) / LEDGER_NAME
    elif Path(target).name == LEDGER_NAME and Path(target).exists():
        path = Path(target)
    elif Path(target).exists():
        file = Path(target)
        if file.suffix not in (".yaml", ".yml"):
            what = "a sweep file (.yaml), the folder of a sweep's results, or its name"
            raise SpecsweepError(f"{target}: must be {what}")
        name = find_name(file, overrides or ())
        path = local_view(results, name=name) / name / LEDGER_NAME
    else:
        path = local_view(results, name=target) / target / LEDGER_NAME
        if not path.exists():
            raise SpecsweepError(f"{target}: no such sweep file or results folder")
    if not path.exists():
        place = f"{target} with --results {results}" if is_url(target) or is_url(results) else path
        raise NoLedgerError(f"{place}: no ledger here; has this sweep been run with this results folder?")
    with Ledger.read(path) as ledger:
        if file is not None and has_other_text(file, overrides or (), ledger.sweep().text):
            folder = folder_of_view(path.parent)
            complain(f"{folder}: was run with another text than {target} has now; this is what was run")
        yield ledger


def read_data(target: str, results: str, overrides: Sequence[str] | None = None) -> SweepData:
    """Read a sweep from its ledger, or from its files: of a folder without a ledger, or where ``trials.csv`` is named.

    Args:
        target: What the user named, as for ``open_ledger``; also a published study, or its ``trials.csv``.
        results: Folder that holds one folder per sweep.
        overrides: ``path=value`` of a run of a sweep file, which may be part of its name.

    Raises:
        NoLedgerError: If there is neither.
        SpecsweepError: If the target is no sweep, or what it holds cannot be read.
    """
    from orchestrator.reports.per_trial.sweep_data import SweepData
    from orchestrator.results import find_study

    if (folder := find_study(target, results)) is not None:
        return SweepData.of_folder(folder)
    with open_ledger(target, results, overrides) as ledger:
        return SweepData.of_ledger(ledger)


TOLD_BY_FOLDER = "a run takes commands through its folder, which a URL does not reach; stop it where it runs, by Ctrl-C"
"""Why commands do not go to a URL."""


def refuse_url(*places: str, why: str = TOLD_BY_FOLDER) -> None:
    """Raise an error if one of the places is a URL, for commands that need the folder itself.

    Raises:
        SpecsweepError: If one is.
    """
    from orchestrator.storage.remote_folder import is_url

    for place in filter(is_url, places):
        raise SpecsweepError(f"{place}: {why}")
