"""The commands that a running sweep obeys, ``retry``, ``cancel``, ``prune``; and ``redo``, which begins a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    AcceptMixed,
    Name,
    Overrides,
    ResultsRoot,
    SweepPath,
    Target,
    open_ledger,
    refuse_url,
    with_name,
)
from orchestrator.cli.console import make_console
from orchestrator.cli.run import run_and_print
from orchestrator.cli.where import Address, ExecutorName, ExecutorOption, Slots, Where
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
    accept_mixed: AcceptMixed = False,
) -> None:
    """Try trials again that have failed or were pruned, and those alone; in the run that is going on, if one is."""
    from orchestrator.control import retry_in_run
    from orchestrator.storage.driver import is_in_use
    from orchestrator.storage.views import folder_of_view
    from orchestrator.trials.records import State

    states = {state for state, wanted in ((State.FAILED, failed), (State.PRUNED, pruned)) if wanted}
    if not states:
        raise SpecsweepError("retry: say which trials: --failed, --pruned, or both")
    refuse_url(target, results)
    is_file, given = Path(target).is_file(), with_name(overrides, name)
    with open_ledger(target, results, given) as ledger:
        folder, records = folder_of_view(ledger.path.parent), ledger.records()
    if is_in_use(folder):
        count = retry_in_run(folder, records, states)
        make_console().print(f"{count} trials are tried again in the run that is going on", markup=False)
        return
    if not is_file:
        raise SpecsweepError(f"{target}: no run holds these results; give the sweep file, to begin one")
    where = Where(executor, address, slots)
    run_and_print(
        Path(target), given, results, where, select=lambda record: record.state in states, accept_mixed=accept_mixed
    )


def redo(
    sweep_file: SweepPath,
    trials: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TRIAL]..", help="Trials, named as for logs; default: all that are done."),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option("--arm", metavar="ARM", help="An arm, as its row is called; repeatable.")
    ] = None,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    executor: ExecutorOption = ExecutorName.RAY,
    address: Address = None,
    slots: Slots = None,
    name: Name = None,
    accept_mixed: AcceptMixed = False,
) -> None:
    """Do trials again that are done, and those alone; the ledger keeps what they ended with before.

    Once begun, whatever of it is interrupted is done by the next run.
    """
    from orchestrator.control import find_done
    from orchestrator.storage.driver import is_in_use
    from orchestrator.storage.folder_lock import LockedError
    from orchestrator.storage.views import folder_of_view

    refuse_url(results)
    given = with_name(overrides, name)
    with open_ledger(str(sweep_file), results, given) as ledger:
        if is_in_use(folder := folder_of_view(ledger.path.parent)):
            raise LockedError(f"{folder}: a run holds these results; cancel it first, or wait for its end")
        chosen = find_done(ledger, trials or (), arm or ())
    run_and_print(
        sweep_file,
        given,
        results,
        Where(executor, address, slots),
        select=lambda record: record.trial.trial_id in chosen,
        accept_mixed=accept_mixed,
    )


def cancel(target: Target, overrides: Overrides = None, results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Stop a running sweep, as Ctrl-C would: running trials save their states, and the next run goes on."""
    from orchestrator.control import cancel as cancel_run
    from orchestrator.storage.views import folder_of_view

    refuse_url(target, results)
    with open_ledger(target, results, overrides) as ledger:
        folder = folder_of_view(ledger.path.parent)
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
    from orchestrator.storage.views import folder_of_view

    refuse_url(target, results)
    with open_ledger(target, results, overrides) as ledger:
        folder, records, info = folder_of_view(ledger.path.parent), ledger.records(), ledger.sweep()
    count = prune_arm(folder, records, info, arm=arm, group=group)
    text = f"{count} trials of {arm} are given up" if count else f"every trial of {arm} has a result; nothing is pruned"
    make_console().print(text, markup=False)
