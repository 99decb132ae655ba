"""A sweep from its file to its tables: what ``specsweep run`` does, without a word of output."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.executor import Executor
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.curves import write_curves
from orchestrator.reports.diagnostics_csv import write_diagnostics
from orchestrator.reports.provenance_files import write_provenance
from orchestrator.reports.table_files import write_tables
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.protocols import View
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.storage.checkpoint_store import FOLDER_NAME, WEIGHTS_NAME, CheckpointStore
from orchestrator.storage.command_inbox import CommandInbox
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.storage.remote_folder import RemoteFolder
from orchestrator.sweep.checks import check_epochs
from orchestrator.sweep.grid import expand
from orchestrator.sweep.pretrained import pin_checkpoints
from orchestrator.sweep.schema import Sweep
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.config import selected_probes
from specvit.data import Dataset, DataSource
from specvit.files.atomic import remove_leftovers
from specvit.files.regular import reject_symlink
from specvit.probes import METRICS

if TYPE_CHECKING:
    from orchestrator.storage.results_folder import Remote

__all__ = ["LEDGER_NAME", "WEIGHTS_NAME", "Outcome", "describe", "load_datasets", "run_sweep"]

Datasets = Mapping[DataSource, Dataset]
ExecutorFactory = Callable[[Datasets, Sequence[ResourceRequest]], Executor]
"""Called with the data and with what each trial that is to run occupies."""
ViewFactory = Callable[[Sequence[TrialRecord], Executor], AbstractContextManager[View]]


@dataclass(frozen=True)
class Outcome:
    """Hold how a run ended.

    Attributes:
        info: The sweep, as the ledger knows it.
        records: All its trials.
        num_run: Trials that this run was to do.
        finished: Whether they all came to an end; False if it was stopped before.
        written: The files that were written beside the tables.
    """

    info: SweepInfo
    records: tuple[TrialRecord, ...]
    num_run: int
    finished: bool
    written: tuple[Path, ...] = ()

    @property
    def num_failed(self) -> int:
        """Return the number of failed trials."""
        return sum(record.state is State.FAILED for record in self.records)


def run_sweep(
    sweep: Sweep,
    *,
    folder: Path,
    make_executor: ExecutorFactory,
    make_view: ViewFactory,
    load_data: Callable[[Sequence[Trial]], Datasets],
    remote: Remote | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    chosen: Callable[[TrialRecord], bool] | None = None,
) -> Outcome:
    """Run what is missing of a sweep, and write its tables.

    Args:
        sweep: The sweep.
        folder: Where its ledger and tables are, or will be.
        make_executor: Makes the executor; only called if there is something to run.
        make_view: Makes the view.
        load_data: Loads the data of the trials; only called if there is something to run, and before
            anything is written.
        remote: Where workers keep states and weights; None = in ``folder``, which they share.
        should_stop: Asked several times a second.
        chosen: Tells of the record of a trial whether to run it; None = all that have no result.

    Raises:
        SpecsweepError: If the data, a checkpoint, the cluster or the results folder cannot be used, or runs of
            some epochs turn out to have no more steps than rungs.
    """
    trials = expand(pin_checkpoints(sweep))
    ledger_path = folder / LEDGER_NAME
    datasets: Datasets = {}
    if not ledger_path.exists():
        # On a first run, data that cannot be read leave no trace in the results.
        datasets = load_data(trials)
        check_epochs(sweep, datasets)
    folder.mkdir(parents=True, exist_ok=True)
    # Orders of before are dropped at once: from here on whoever gives one finds the folder held.
    with hold_lock(folder), nullcontext(CommandInbox(folder)) as orders, Ledger.open(ledger_path) as ledger:
        remove_leftovers(folder)
        # A failed trial has no result: running the sweep again tries it again.
        pending = _pending(trials, ledger, chosen)
        if pending and not datasets:
            datasets = load_data(pending)
            check_epochs(sweep, datasets)
        info = describe(sweep, trials, datasets)
        provenance = collect_provenance()
        ledger.register(info, trials, provenance)
        ledger.release_running()
        ledger.clear_skipped()
        states = CheckpointStore(
            folder / FOLDER_NAME, every_s=sweep.file.checkpoint_every_s, shared=remote.states if remote else None
        )
        reject_symlink(folder / WEIGHTS_NAME)
        weights = remote.weights if remote else (folder / WEIGHTS_NAME).resolve()
        finished = True
        if pending:
            shares, executor = _make_executor(sweep, pending, datasets, ledger=ledger, make=make_executor)
            try:
                records = ledger.records()
                with make_view(records, executor) as view:
                    scheduler = _scheduler(
                        sweep, trials, ledger=ledger, records=records, executor=executor, view=view, shares=shares,
                        states=states, orders=orders, weights=weights if sweep.file.keep_weights else None,
                        should_stop=should_stop,
                    )
                    if chosen is not None:
                        for trial in pending:
                            scheduler.judge.exempt(trial.trial_id)
                    finished = scheduler.run(pending)
            finally:
                executor.close()
        # What was running when the loop was stopped is waiting again.
        ledger.release_running()
        if finished:
            states.clean(keep={trial.trial_id for trial in trials} - ledger.with_result())
        records, diagnostics = ledger.records(), ledger.diagnostics()
        # If the run before died with all its trials done, they are of that run.
        provenance = ledger.newest_provenance() or provenance
    write_tables(folder, records, info)
    written = (*write_curves(folder, records), *write_diagnostics(folder, records, diagnostics))
    write_provenance(folder, info, provenance)
    return Outcome(
        info=info, records=records, num_run=len(pending), finished=finished, written=written
    )


def describe(sweep: Sweep, trials: Sequence[Trial], datasets: Datasets) -> SweepInfo:
    """Say of a sweep what its ledger is to keep. Without data, their fingerprints are left as they are."""
    probes = selected_probes(sweep.file.probes)
    return SweepInfo(
        name=sweep.name,
        question=sweep.file.question,
        text=sweep.text,
        metrics=tuple(metric.name for probe in probes.values() for metric in probe.metrics),
        seeds=sweep.file.seeds,
        data_fingerprints={
            trial.group_id: "+".join(datasets[source].fingerprint for source in trial.config.sources)
            for trial in trials
            if trial.config.data in datasets
        },
    )


def load_datasets(trials: Sequence[Trial]) -> Datasets:
    """Load every data source of the trials once.

    Raises:
        DataError: If one of them cannot be used.
    """
    sources = dict.fromkeys(source for trial in trials for source in trial.config.sources)
    for source in sources:
        source.check_installed()
    return {source: source.load() for source in sources}


def _pending(
    trials: Sequence[Trial], ledger: Ledger, chosen: Callable[[TrialRecord], bool] | None
) -> list[Trial]:
    """Return the trials to run. A failed one has no result: running the sweep again tries it again."""
    if chosen is None:
        with_result = ledger.with_result()
        return [trial for trial in trials if trial.trial_id not in with_result]
    wanted = {record.trial.trial_id for record in ledger.records() if chosen(record)}
    return [trial for trial in trials if trial.trial_id in wanted]


def _make_executor(
    sweep: Sweep, pending: Sequence[Trial], datasets: Datasets, *, ledger: Ledger, make: ExecutorFactory
) -> tuple[Allocator, Executor]:
    """Make the executor, and say what trials get on it: if there is room, what earlier runs have found them to need."""
    larger = ledger.resource_floors()
    while True:
        shares = Allocator(sweep.file.resources, larger, remember=ledger.write_resource_floor)
        try:
            return shares, make(datasets, [shares.of(trial) for trial in pending])
        except ClusterError:
            if not larger:
                raise
            larger = {}  # they were found on larger machines


def _scheduler(
    sweep: Sweep,
    trials: Sequence[Trial],
    *,
    ledger: Ledger,
    records: Sequence[TrialRecord],
    executor: Executor,
    view: View,
    shares: Allocator,
    states: CheckpointStore,
    orders: CommandInbox,
    weights: Path | RemoteFolder | None,
    should_stop: Callable[[], bool],
) -> Scheduler:
    """Put the loop together."""
    metric = sweep.pruning_metric
    is_up = METRICS[metric].higher_is_better
    return Scheduler(
        ledger=ledger,
        judge=Judge(sweep.file.pruning, higher_is_better=is_up, records=records, metric=metric),
        judged_metric=metric,
        executor=executor,
        view=view,
        states=states,
        shares=shares,
        limits=sweep.limits,
        budget=Budget(sweep.limits, clock=time.monotonic, gpu_hours_used=ledger.gpu_hours()),
        lengths=TrialDurations(records),
        trials_by_id={trial.trial_id: trial for trial in trials},
        orders=orders.take,
        weights=weights,
        should_stop=should_stop,
    )
