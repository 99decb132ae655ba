"""The commands that a running sweep obeys: ``retry``, ``cancel``, ``prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    Name,
    Overrides,
    ResultsRoot,
    Target,
    open_ledger,
    refuse_url,
    with_name,
)
from orchestrator.cli.console import make_console
from orchestrator.cli.run import Address, ExecutorName, ExecutorOption, Slots, Where, run_and_print
from specvit.errors import SpecsweepError


def retry(
    target: Target,
    failed: Annotated[bool, typer.Option("--failed", help="Try the trials again that have failed.")] = False,
    pruned: Annotated[bool, typer.Option("--pruned", help="Try those again that were pruned.")] = False,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    executor: ExecutorOption = ExecutorName.RAY,
    address: Address = None,
    slots: Slots = None,
    name: Name = None,
) -> None:
    """Try trials again that have failed or were pruned, and those alone; in the run that is going on, if one is."""
    from orchestrator.control import retry_in_run
    from orchestrator.storage.folder_lock import is_held
    from orchestrator.trials.records import State

    states = {state for state, wanted in ((State.FAILED, failed), (State.PRUNED, pruned)) if wanted}
    if not states:
        raise SpecsweepError("retry: say which trials: --failed, --pruned, or both")
    refuse_url(target, results)
    is_file, given = Path(target).is_file(), with_name(overrides, name)
    with open_ledger(target, results, given) as ledger:
        folder, records = ledger.path.parent, ledger.records()
    if is_held(folder):
        count = retry_in_run(folder, records, states)
        make_console().print(f"{count} trials are tried again in the run that is going on", markup=False)
        return
    if not is_file:
        raise SpecsweepError(f"{target}: no run holds these results; give the sweep file, to begin one")
    where = Where(executor, address, slots)
    run_and_print(Path(target), given, results, where, states=states)


def cancel(target: Target, overrides: Overrides = None, results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Stop a running sweep, as Ctrl-C would: running trials save their states, and the next run goes on."""
    from orchestrator.control import cancel as cancel_run

    refuse_url(target, results)
    with open_ledger(target, results, overrides) as ledger:
        folder = ledger.path.parent
    cancel_run(folder)
    make_console().print(f"{folder}: the run has stopped; to go on, run the sweep again", markup=False, soft_wrap=True)


def prune(
    target: Target,
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The arm, as its row is called in the table.")],
    group: Annotated[str | None, typer.Option(help="The group, as its table is called; default: all groups.")] = None,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
) -> None:
    """Give up an arm by hand: its trials without a result count as pruned; also while the sweep runs."""
    from orchestrator.control import prune as prune_arm

    refuse_url(target, results)
    with open_ledger(target, results, overrides) as ledger:
        folder, records, info = ledger.path.parent, ledger.records(), ledger.sweep()
    count = prune_arm(folder, records, info, arm=arm, group=group)
    text = f"{count} trials of {arm} are given up" if count else f"every trial of {arm} has a result; nothing is pruned"
    make_console().print(text, markup=False)
