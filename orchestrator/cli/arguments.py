"""What the commands share: types of their arguments, exit codes, and the way from a target to its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specvit.errors import SpecsweepError

if TYPE_CHECKING:
    from orchestrator.ledger.ledger import Ledger

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
ResultsRoot = Annotated[
    str, typer.Option("--results", metavar="DIR", help="Folder that holds one folder per sweep; a path or a URL.")
]
DEFAULT_RESULTS = "results"


@contextmanager
def open_ledger(target: str, results: str) -> Iterator[Ledger]:
    """Open the ledger of a sweep file, a results folder, or a name in ``results``, for reading.

    Of results at a URL, the ledger is the mirrored one, as old as the last upload.

    Raises:
        SpecsweepError: If there is none.
    """
    from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
    from orchestrator.storage.remote_folder import is_url
    from orchestrator.storage.results_folder import local_view
    from orchestrator.sweep.loading import load_sweep

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
        place = f"{target} with --results {results}" if is_url(target) or is_url(results) else path
        raise SpecsweepError(f"{place}: no ledger here; has this sweep been run with this results folder?")
    with Ledger.read(path) as ledger:
        yield ledger


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
