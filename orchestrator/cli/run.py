"""The command that runs trials: it loads data, makes the callbacks, and prints what happens."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cache, partial
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
from orchestrator.cli.tracking import make_notifier, told
from orchestrator.cli.where import Address, ExecutorName, ExecutorOption, Slots, Where, check_processes, make_executor
from orchestrator.secrets import hide_argument
from specvit.errors import SpecsweepError

if TYPE_CHECKING:
    from orchestrator.execution.executor import Executor
    from orchestrator.run import Datasets, Outcome, Select, SweepRun
    from orchestrator.scheduling.protocols import SweepCallback
    from orchestrator.storage.results_folder import ResultsFolder
    from orchestrator.trials.resources import ResourceRequest
    from orchestrator.trials.trial import Role, Trial


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
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="Train again what new probes have no weights of to look at; without it these trials are left out.",
        ),
    ] = False,
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
    run_and_print(
        *(sweep_file, with_name(overrides, name), results, where),
        replace=replace, accept_mixed=accept_mixed, retrain=retrain,
    )


def run_and_print(
    sweep_file: Path,
    overrides: Sequence[str],
    results: str,
    where: Where,
    *,
    select: Select | None = None,
    replace: bool = False,
    accept_mixed: bool = False,
    retrain: bool = False,
    trains: bool = True,
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
    check_processes(sweep, where)
    with (
        make_notifier(sweep) as notifier,
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
            retrain=retrain,
            trains=trains,
        ) as prepared,
        told(console, prepared, folder, notifier),
    ):
        if folder.remote is not None:
            text = f"ledger: in {folder.local}, mirrored to {folder} every {MIRROR_EVERY_S:.0f} s"
            console.print(text, markup=False, soft_wrap=True)
        if text := _taken_text(prepared):
            console.print(text, markup=False, soft_wrap=True)
        if prepared.pending:
            warned = log_to_console(console, logging.getLogger("orchestrator"), title="sweep", level=logging.WARNING)
            with closing(make_executor(console, prepared, where, folder.path)) as executor, warned:
                prepared.execute(
                    executor,
                    make_callbacks(console, prepared, executor, redraws=not where.pdb, results=results),
                    should_stop=lambda: has_signal() or folder.is_taken_over(),
                )
        outcome = prepared.finish()
    _print_outcome(console, outcome, folder)
    if not outcome.finished:
        command = shlex.join(["specsweep", *map(hide_argument, sys.argv[1:])])
        console.print(f"Stopped. To go on, run the same command again: {command}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if outcome.is_all_pruned:
        complain("no arm was run to its end: all their trials were pruned, so the tables compare nothing")
    if outcome.num_failed or outcome.is_all_pruned:
        raise typer.Exit(EXIT_FAILED_TRIALS)


def _taken_text(prepared: SweepRun) -> str:
    """Return what trials of the same trainings spare this run, human-readable; empty if nothing."""
    from orchestrator.trials.records import WITHOUT_WEIGHTS

    num_evaluated = sum(trial.trial_id in prepared.kept for trial in prepared.pending)
    texts = [
        f"{count} {noun}{'s' * (count != 1)} {what}"
        for count, noun, what in (
            (prepared.num_taken, "result", "taken over from trials of the same trainings"),
            (num_evaluated, "trial", "to be evaluated only: trained before"),
            (prepared.num_without_weights, "trial", f"left out: {WITHOUT_WEIGHTS}"),
        )
        if count
    ]
    return "; ".join(texts)


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
    console: Console, prepared: SweepRun, executor: Executor, *, redraws: bool = True, results: str | None = None
) -> list[SweepCallback]:
    """Return what follows a run: its progress, what it says so far, its view, and its publisher if it can publish.

    Args:
        console: Where the view is printed.
        prepared: The run.
        executor: Where its trials run.
        redraws: Whether the view may draw over a terminal; not where a debugger shares it.
        results: Folder of sweeps whose noise tells what this one could see; None = that is not told.
    """
    from orchestrator.monitoring.forming_verdicts import FormingVerdicts
    from orchestrator.monitoring.live_view import LiveView
    from orchestrator.monitoring.prometheus import PrometheusExporter
    from orchestrator.monitoring.sweep_progress import SweepProgress
    from orchestrator.scheduling.demand import Demand
    from specvit.arithmetic import rough_seconds

    sweep, allocator = prepared.sweep, prepared.allocator
    of_group = {trial.group_id: trial for trial in prepared.trials}
    of_role = {(trial.group_id, trial.role): trial for trial in prepared.trials}

    def least_s(by_group: Mapping[str, float]) -> float:
        work: defaultdict[ResourceRequest, float] = defaultdict(float)
        for group_id, seconds in by_group.items():
            work[allocator.request_for(of_group[group_id])] += seconds
        return executor.least_s(work)

    @cache
    def guess(group_id: str, role: Role) -> float | None:
        trial = of_role[group_id, role]
        request = allocator.request_for(trial)
        cores = request.cpus * request.processes
        return rough_seconds(trial.config, cores=cores, gpus=request.total_gpus)

    progress = SweepProgress(
        prepared.ledger.records(),
        num_slots=lambda: executor.num_slots,
        shown_metric=sweep.pruning_metric,
        least_s=least_s,
        guess=guess,
    )
    verdicts = FormingVerdicts(
        partial(prepared.ledger.records, with_reports=False),
        prepared.info,
        detectable=lambda group: None if results is None else _detectable(prepared, results, group),
    )
    view = LiveView(console, progress, title=sweep.name, verdicts=verdicts, redraws=redraws)
    callbacks = [progress, verdicts, view]
    if (ask_for := getattr(executor, "ask_for", None)) is not None:
        callbacks.append(Demand(prepared.pending, ask_for, request_for=allocator.request_for))
    if (publish := getattr(executor, "publish", None)) is not None:
        callbacks.append(PrometheusExporter(progress, publish, sweep=sweep.name))
    return callbacks


def _detectable(prepared: SweepRun, results: str, group: str) -> float | None:
    """Return the difference of the primary metric that a group could show, from noise that other sweeps measured."""
    from orchestrator.power import measure_power
    from orchestrator.storage.remote_folder import is_url

    if is_url(results):  # to read other sweeps there takes long
        return None
    try:
        power = measure_power(prepared.sweep, prepared.trials, results_root=results)
    except SpecsweepError:
        return None
    found = {(each.group, metric.metric): metric.detectable for each in power.groups for metric in each.metrics}
    return found.get((group, power.primary))


def _why_nothing(outcome: Outcome) -> str:
    """Return why a run had nothing to do. Where seeds grow, trials of looks that are over are not tried again."""
    whats = {
        "were pruned": outcome.num_pruned,
        "are left out since their arms are decided": outcome.num_left_out,
        "failed at looks that are over": outcome.num_failed,
    }
    parts = [f"{num} {what}" for what, num in whats.items() if num]
    if not parts:
        return "every trial of this sweep has a result"
    first = parts[0].replace(" ", f" of {len(outcome.records)} trials ", 1)
    hint = ""
    if outcome.num_failed:
        hint = "; 'specsweep retry SWEEP.yaml --failed' tries failed ones again"
    elif outcome.num_pruned:
        hint = "; 'specsweep retry SWEEP.yaml --pruned' runs pruned ones to their ends"
    return f"{', '.join([first, *parts[1:]])}, the others have a result{hint}"


def _print_outcome(console: Console, outcome: Outcome, folder: ResultsFolder) -> None:
    """Print the tables of a run, and where they were written."""
    from orchestrator.reports.ablation_table import tables_of
    from orchestrator.reports.rendering.terminal_table import render_rich

    if outcome.num_run == 0 and not outcome.num_taken and not outcome.num_without_weights:
        console.print(f"nothing to run: {_why_nothing(outcome)}", markup=False, soft_wrap=True)
    console.print(render_rich(tables_of(outcome.records, outcome.info), outcome.info))
    names = ["table.md", "table.csv", *(path.relative_to(folder.local) for path in outcome.written)]
    written = Text(f"written: {', '.join(f'{folder}/{name}' for name in names)}", style="dim")
    console.print(written, soft_wrap=True)
