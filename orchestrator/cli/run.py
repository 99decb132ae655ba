"""The command that runs trials: it loads data, makes the executor and the callbacks, and prints what happens."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from orchestrator.cli.arguments import (
    DEFAULT_RESULTS,
    EXIT_FAILED_TRIALS,
    EXIT_INTERRUPTED,
    AcceptMixed,
    Name,
    Overrides,
    ResultsRoot,
    SweepPath,
    with_name,
)
from orchestrator.cli.console import complain, log_to_console, make_console
from orchestrator.cli.plan import print_plan
from orchestrator.cli.signals import stop_on_signal
from specvit.errors import ConfigError, SpecsweepError

if TYPE_CHECKING:
    from orchestrator.execution.executor import Executor
    from orchestrator.run import Datasets, Outcome, Select, SweepRun
    from orchestrator.scheduling.protocols import SweepCallback
    from orchestrator.storage.results_folder import ResultsFolder
    from orchestrator.sweep.resolved import Sweep
    from orchestrator.trials.resources import ResourceRequest
    from orchestrator.trials.trial import Trial


class ExecutorName(StrEnum):
    """The executors."""

    RAY = "ray"
    LOCAL = "local"


ExecutorOption = Annotated[
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
Slots = Annotated[
    int | None,
    typer.Option("--slots", min=1, help="Trials to run at once, at most; default: as many as there is room for."),
]


@dataclass(frozen=True)
class Where:
    """Where trials run, as the options say.

    Attributes:
        executor: By what.
        address: Of a running Ray cluster; None = a cluster of this machine is started.
        slots: Trials to run at once, at most; None = as many as there is room for.
        pdb: Whether a trial that raises opens the debugger.
    """

    executor: ExecutorName
    address: str | None = None
    slots: int | None = None
    pdb: bool = False


def run(
    sweep_file: SweepPath,
    overrides: Overrides = None,
    results: ResultsRoot = DEFAULT_RESULTS,
    executor: ExecutorOption = ExecutorName.RAY,
    address: Address = None,
    slots: Slots = None,
    name: Name = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another file's sweep in the results folder.")
    ] = False,
    accept_mixed: AcceptMixed = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run nothing; show what 'plan' shows.")] = False,
    pdb: Annotated[
        bool, typer.Option("--pdb", help="With --executor local: debug a trial that raises, where it did.")
    ] = False,
) -> None:
    """Run what is missing of a sweep, then print and write its tables."""
    if pdb and executor is not ExecutorName.LOCAL:
        raise SpecsweepError("--pdb: needs --executor local; workers of a cluster have no terminal")
    if dry_run:
        print_plan(sweep_file, with_name(overrides, name), results, slots=slots)
        return
    where = Where(executor, address, slots, pdb)
    run_and_print(sweep_file, with_name(overrides, name), results, where, replace=replace, accept_mixed=accept_mixed)


def run_and_print(
    sweep_file: Path,
    overrides: Sequence[str],
    results: str,
    where: Where,
    *,
    select: Select | None = None,
    replace: bool = False,
    accept_mixed: bool = False,
) -> None:
    """Run a sweep; only certain of its trials if ``select`` is given. For the arguments see ``prepare_run``.

    Raises:
        typer.Exit: If it was stopped, or trials failed.
        SpecsweepError: If it cannot be run.
    """
    from orchestrator.run import prepare_run
    from orchestrator.storage.ledger_mirror import MIRROR_EVERY_S
    from orchestrator.storage.results_folder import results_folder
    from orchestrator.sweep.loading import load_sweep

    console = make_console(outlives_reader=True)
    sweep = load_sweep(sweep_file, overrides)
    _check_processes(sweep, where)
    with (
        results_folder(results, sweep.name) as folder,
        stop_on_signal() as has_signal,
        prepare_run(
            sweep,
            folder.local,
            load_data=partial(load_data, console),
            remote=folder.remote,
            select=select,
            replace=replace,
            accept_mixed=accept_mixed,
        ) as prepared,
    ):
        if folder.remote is not None:
            text = f"ledger: in {folder.local}, mirrored to {folder} every {MIRROR_EVERY_S:.0f} s"
            console.print(text, markup=False, soft_wrap=True)
        if prepared.pending:
            warned = log_to_console(console, logging.getLogger("orchestrator"), title="sweep", level=logging.WARNING)
            with closing(_make_executor(console, prepared, where, folder.path)) as executor, warned:
                prepared.execute(
                    executor,
                    make_callbacks(console, prepared, executor, redraws=not where.pdb),
                    should_stop=lambda: has_signal() or folder.is_taken_over(),
                )
        outcome = prepared.finish()
    _print_outcome(console, outcome, folder)
    if not outcome.finished:
        command = shlex.join(["specsweep", *sys.argv[1:]])
        console.print(f"Stopped. To go on, run the same command again: {command}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if outcome.is_all_pruned:
        complain("no arm was run to its end: all their trials were pruned, so the tables compare nothing")
    if outcome.num_failed or outcome.is_all_pruned:
        raise typer.Exit(EXIT_FAILED_TRIALS)


def load_data(console: Console, trials: Sequence[Trial]) -> Datasets:
    """Load the data of trials, and print how that goes."""
    from orchestrator.run import load_datasets
    from specvit.data.reading.progress import LOGGER

    started = time.monotonic()
    with log_to_console(console, LOGGER, title="data", level=logging.INFO):
        datasets = load_datasets(trials)
    for source, dataset in datasets.items():
        classes = [
            f"{num} class{'es' * (num != 1)} in {target}, " for target, num in dataset.num_classes.items() if num
        ]
        others = ", ".join(f"{count} {ending}" for ending, count in dataset.passed_over.items())
        console.print(
            f"data: {source.name}, {len(dataset.train)} images to train on, {len(dataset.val)} to report on, "
            f"{''.join(classes)}{source.image_size} px, {f'passed over: {others}, ' if others else ''}"
            f"loaded in {time.monotonic() - started:.1f} s",
            markup=False,
            soft_wrap=True,
        )
    return datasets


def make_callbacks(
    console: Console, prepared: SweepRun, executor: Executor, *, redraws: bool = True
) -> list[SweepCallback]:
    """Return what follows a run: its progress, its view, and its publisher if the executor can publish.

    Args:
        console: Where the view is printed.
        prepared: The run.
        executor: Where its trials run.
        redraws: Whether the view may draw over a terminal; not where a debugger shares it.
    """
    from orchestrator.monitoring.live_view import LiveView
    from orchestrator.monitoring.prometheus import PrometheusExporter
    from orchestrator.monitoring.sweep_progress import SweepProgress
    from orchestrator.scheduling.demand import Demand

    sweep, allocator = prepared.sweep, prepared.allocator
    of_group = {trial.group_id: trial for trial in prepared.trials}

    def least_s(by_group: Mapping[str, float]) -> float:
        work: defaultdict[ResourceRequest, float] = defaultdict(float)
        for group_id, seconds in by_group.items():
            work[allocator.request_for(of_group[group_id])] += seconds
        return executor.least_s(work)

    progress = SweepProgress(
        prepared.ledger.records(),
        num_slots=lambda: executor.num_slots,
        shown_metric=sweep.pruning_metric,
        least_s=least_s,
    )
    callbacks = [progress, LiveView(console, progress, title=sweep.name, redraws=redraws)]
    if (ask_for := getattr(executor, "ask_for", None)) is not None:
        callbacks.append(Demand(prepared.pending, ask_for, request_for=allocator.request_for))
    if (publish := getattr(executor, "publish", None)) is not None:
        callbacks.append(PrometheusExporter(progress, publish, sweep=sweep.name))
    return callbacks


def _requests(sweep: Sweep) -> list[ResourceRequest]:
    """Return what trials occupy, by the file, for each of their scales."""
    from orchestrator.sweep.resource_settings import share_of

    return [share_of(sweep.file.resources, scale) for scale in {group.model.scale for group in sweep.groups}]


def _check_processes(sweep: Sweep, where: Where) -> None:
    """Raise ``ConfigError`` if several processes are to train a trial in this one."""
    processes = max(request.processes for request in _requests(sweep))
    if where.executor is ExecutorName.LOCAL and processes > 1:
        raise ConfigError(f"resources.processes: must be 1 where trials run in this process, not {processes}; use Ray")


def _make_executor(console: Console, prepared: SweepRun, where: Where, common: Path | None) -> Executor:
    """Make the executor, and print where trials will run; nodes are to see ``common``, unless it is None."""
    from orchestrator.trials.resources import visible_gpus

    requests = _requests(prepared.sweep)
    if where.executor is ExecutorName.LOCAL:
        from orchestrator.execution.local import DebugExecutor, LocalExecutor

        console.print(f"{len(prepared.pending)} trials to run, one by one in this process", markup=False)
        _tell_of_gpus(console, visible_gpus(), requests)
        num_threads = max(1, int(max(request.cpus for request in requests)))
        return (DebugExecutor if where.pdb else LocalExecutor)(prepared.datasets, num_threads=num_threads)
    from orchestrator.execution.ray_cluster.executor import RayExecutor
    from orchestrator.execution.ray_cluster.node_check import NodeRequirements
    from orchestrator.storage.folder_lock import LOCK_NAME

    def make(datasets: Datasets, shares: Sequence[ResourceRequest]) -> RayExecutor:
        return RayExecutor(
            datasets,
            shares=shares,
            max_slots=min(len(shares), where.slots or len(shares)),
            address=where.address,
            job_name=prepared.sweep.name,
            wanted=NodeRequirements.of_this_code((common / LOCK_NAME).resolve() if common else None),
        )

    executor = prepared.make_executor(make)
    processes = max(request.processes for request in requests)
    shared = f", by {processes} processes each" if processes > 1 else ""
    console.print(f"{len(prepared.pending)} trials to run, {executor.num_slots} at once{shared}", markup=False)
    if held := executor.held_by_others():
        console.print(held, style="yellow", markup=False, soft_wrap=True)
    _tell_of_gpus(console, executor.num_gpus, requests)
    if executor.dashboard_url:
        console.print(
            f"Ray dashboard: {executor.dashboard_url} (it asks for a token; "
            f"'{Path(sys.executable).with_name('ray')} get-auth-token' prints it)",
            markup=False,
            soft_wrap=True,
        )
    return executor


def _tell_of_gpus(console: Console, gpus: float, requests: Sequence[ResourceRequest]) -> None:
    """Print a line on GPUs that no trial asks for, if there are any."""
    from orchestrator.trials.resources import gpus_in_vain

    if line := gpus_in_vain(gpus, requests):
        console.print(line, style="yellow", markup=False, soft_wrap=True)


def _print_outcome(console: Console, outcome: Outcome, folder: ResultsFolder) -> None:
    """Print the tables of a run, and where they were written."""
    from orchestrator.reports.ablation_table import build_tables
    from orchestrator.reports.terminal_table import render_rich

    if outcome.num_run == 0 and outcome.num_pruned:
        console.print(
            f"nothing to run: {outcome.num_pruned} of {len(outcome.records)} trials were pruned, the others have a "
            "result; 'specsweep retry SWEEP.yaml --pruned' runs pruned ones to their ends",
            markup=False,
            soft_wrap=True,
        )
    elif outcome.num_run == 0:
        console.print("nothing to run: every trial of this sweep has a result", markup=False)
    console.print(render_rich(build_tables(outcome.records, outcome.info.metrics), outcome.info))
    written_in = folder.path or folder.local
    names = [Path("table.md"), Path("table.csv"), *(path.relative_to(folder.local) for path in outcome.written)]
    paths = [written_in / each for each in names]
    written = Text(f"written: {', '.join(map(str, paths))}", style="dim")
    console.print(written, soft_wrap=True)
