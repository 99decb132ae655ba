"""The command that shows what trials occupy, and what was learned of it when memory ran out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import DEFAULT_RESULTS, Overrides, ResultsRoot, Target, open_ledger, refuse_url
from orchestrator.cli.console import make_console
from specvit.messages import one_line

_BY_URL = "what was learned is reset on the machine of the run; its folder is not reached through a URL"


def shares(
    target: Target,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget it: the next run gives trials what the file says again.")
    ] = False,
) -> None:
    """Show what trials occupy by the sweep file, and what they get since one of their scale ran out of memory."""
    from orchestrator.control import reset_shares
    from orchestrator.storage.views import folder_of_view

    if reset:
        refuse_url(target, results, why=_BY_URL)
    console = make_console()

    def tell(line: str) -> None:
        console.print(one_line(line), markup=False, soft_wrap=True)

    with open_ledger(target, results, overrides) as ledger:
        folder, floors = folder_of_view(ledger.path.parent), ledger.resource_floors()
    if Path(target).is_file() and Path(target).suffix in (".yaml", ".yml"):
        for scale, share in _by_scale(Path(target), overrides or []).items():
            tell(f"{scale}: {share}, by the file")
    for scale, floor in floors.items():
        tell(f"{scale}: at least {floor}, since memory ran out")
    if not floors:
        tell("no trial has been given more than the file says")
    if reset:
        reset_shares(folder)
        tell(f"{folder}: forgotten; the next run gives trials what the file says")


def _by_scale(path: Path, overrides: list[str]) -> dict[str, str]:
    """Return what trials occupy by the file, human-readable, by scale."""
    from orchestrator.sweep.loading import load_sweep
    from orchestrator.sweep.resource_settings import share_of

    sweep = load_sweep(path, overrides)
    scales = dict.fromkeys(group.model.scale for group in sweep.groups)
    return {scale: str(share_of(sweep.file.resources, scale)) for scale in scales}
