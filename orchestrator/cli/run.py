"""The commands that run trials, and those that a running sweep obeys: ``run``, ``retry``, ``cancel``, ``prune``."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    EXIT_FAILED_TRIALS,
    EXIT_INTERRUPTED,
    Overrides,
    ResultsRoot,
    SweepPath,
    Target,
    make_console,
    open_ledger,
    refuse_url,
)
from specvit.errors import SpecsweepError

if TYPE_CHECKING:
    from types import FrameType

    from orchestrator.trials.records import State, TrialRecord


class ExecutorName(StrEnum):
    """Name the executors."""

    RAY = "ray"
    LOCAL = "local"


Executor = Annotated[
    ExecutorName,
    typer.Option("--executor", help="ray: a cluster, this machine being the smallest. local: one by one."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Address of a running Ray cluster; 'auto' finds one on this machine. Default: RAY_ADDRESS, which Ray sets "
        "in its jobs, or else a cluster of this machine is started.",
    ),
]
SlotPool = Annotated[
    int | None,
    typer.Option("--slots", min=1, help="Trials to run at once, at most; default: as many as there is room for."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for command in (run, retry, cancel, prune):
        app.command()(command)


def run(
    sweep_file: SweepPath,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    executor: Executor = ExecutorName.RAY,
    address: Address = None,
    slots: SlotPool = None,
) -> None:
    """Run what is missing of a sweep, then print and write its tables."""
    _run(sweep_file, overrides or (), results, executor=executor, address=address, slots=slots)


def retry(
    target: Target,
    failed: Annotated[bool, typer.Option("--failed", help="Try the trials again that have failed.")] = False,
    pruned: Annotated[bool, typer.Option("--pruned", help="Try those again that were pruned.")] = False,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    executor: Executor = ExecutorName.RAY,
    address: Address = None,
    slots: SlotPool = None,
) -> None:
    """Try trials again that have failed or were pruned, and those alone; in the run that is going on, if one is."""
    from orchestrator.control import retry_in_run
    from orchestrator.storage.folder_lock import is_held
    from orchestrator.sweep.loading import load_sweep
    from orchestrator.trials.records import State

    states = {state for state, wanted in ((State.FAILED, failed), (State.PRUNED, pruned)) if wanted}
    if not states:
        raise SpecsweepError("retry: say which trials: --failed, --pruned, or both")
    refuse_url(target, results)
    is_file = Path(target).is_file()
    name = load_sweep(target, overrides or ()).name if is_file else target
    with open_ledger(name, results) as ledger:
        folder, records = ledger.path.parent, ledger.records()
    if is_held(folder):
        count = retry_in_run(folder, records, states)
        make_console().print(f"{count} trials are tried again in the run that is going on", markup=False)
        return
    if not is_file:
        raise SpecsweepError(f"{target}: no run holds these results; give the sweep file, to begin one")
    _run(Path(target), overrides or (), results, executor=executor, address=address, slots=slots, states=states)


def cancel(target: Target, results: ResultsRoot = DEFAULT_RESULTS) -> None:
    """Stop a running sweep, as Ctrl-C would: running trials save their states, and the next run goes on."""
    from orchestrator.control import cancel as cancel_run

    refuse_url(target, results)
    with open_ledger(target, results) as ledger:
        folder = ledger.path.parent
    cancel_run(folder)
    make_console().print(f"{folder}: the run has stopped; to go on, run the sweep again", markup=False, soft_wrap=True)


def prune(
    target: Target,
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The arm, as its row is called in the table.")],
    group: Annotated[str | None, typer.Option(help="The group, as its table is called; default: all groups.")] = None,
    results: ResultsRoot = DEFAULT_RESULTS,
) -> None:
    """Give up an arm by hand: its trials without a result count as pruned; also while the sweep runs."""
    from orchestrator.control import prune as prune_arm

    refuse_url(target, results)
    with open_ledger(target, results) as ledger:
        folder, records, info = ledger.path.parent, ledger.records(), ledger.sweep()
    count = prune_arm(folder, records, info, arm=arm, group=group)
    text = f"{count} trials of {arm} are given up" if count else f"every trial of {arm} has a result; nothing is pruned"
    make_console().print(text, markup=False)


def _run(
    sweep_file: Path,
    overrides: Sequence[str],
    results: str,
    *,
    executor: ExecutorName,
    address: str | None,
    slots: int | None,
    states: Collection[State] | None = None,
) -> None:
    """Run a sweep; only its trials in certain states if they are given."""
    from orchestrator.cli.wiring import data_loader, executor_factory, print_outcome, view_factory
    from orchestrator.run import run_sweep
    from orchestrator.storage.results_folder import results_folder
    from orchestrator.sweep.loading import load_sweep

    def is_chosen(record: TrialRecord) -> bool:
        return states is not None and record.state in states

    console = make_console()
    sweep = load_sweep(sweep_file, overrides)
    is_local = executor is ExecutorName.LOCAL
    with results_folder(results, sweep.name) as folder, _stop_on_signal() as should_stop:
        outcome = run_sweep(
            sweep,
            folder=folder.local,
            remote=folder.remote,
            make_executor=executor_factory(
                console, sweep, local=is_local, address=address, slots=slots, folder=folder.local
            ),
            make_view=view_factory(console, sweep),
            load_data=data_loader(console),
            should_stop=lambda: should_stop() or folder.is_taken_over(),
            chosen=None if states is None else is_chosen,
        )
    print_outcome(console, outcome, folder.local)
    if not outcome.finished:
        command = shlex.join(["specsweep", *sys.argv[1:]])
        console.print(f"Stopped. To go on, run the same command again: {command}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if outcome.num_failed:
        raise typer.Exit(EXIT_FAILED_TRIALS)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; a second one interrupts at once."""
    wishes: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        wishes.append(number)
        if len(wishes) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(wishes)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
