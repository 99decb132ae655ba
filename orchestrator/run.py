"""A sweep from its file to its tables: what ``specsweep run`` does, without a word of output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checkpoints import pin_checkpoints
from orchestrator.curves import write_curves
from orchestrator.diagnostics_table import write_diagnostics
from orchestrator.executor import Executor
from orchestrator.grid import expand
from orchestrator.ledger import Ledger
from orchestrator.lock import hold_lock
from orchestrator.origin import write_origin
from orchestrator.provenance import collect_provenance
from orchestrator.pruning import Judge
from orchestrator.records import State, TrialRecord
from orchestrator.registration import SweepInfo
from orchestrator.remote_folder import RemoteFolder
from orchestrator.rendering import write_tables
from orchestrator.scheduler import View, schedule
from orchestrator.sweep_checks import check_epochs
from orchestrator.sweep_schema import Sweep
from orchestrator.training_states import FOLDER_NAME, TrainingStates
from orchestrator.trials import Trial
from specvit.config import selected_probes
from specvit.data import Dataset, DataSource
from specvit.probes import METRICS

if TYPE_CHECKING:
    from orchestrator.remote_results import Remote

LEDGER_NAME = "ledger.sqlite"
WEIGHTS_NAME = "weights"
"""Folder of kept weights, in the folder of a sweep's results."""

Datasets = Mapping[DataSource, Dataset]
ExecutorFactory = Callable[[Datasets, int], Executor]
"""Called with the data and the number of trials to run."""
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
    with hold_lock(folder), Ledger.open(ledger_path) as ledger:
        # A failed trial has no result: running the sweep again tries it again.
        with_result = ledger.with_result()
        pending = [trial for trial in trials if trial.trial_id not in with_result]
        if pending and not datasets:
            datasets = load_data(pending)
            check_epochs(sweep, datasets)
        info = describe(sweep, trials, datasets)
        provenance = collect_provenance()
        ledger.register(info, trials, provenance)
        ledger.release_running()
        states = TrainingStates(
            folder / FOLDER_NAME, every_s=sweep.checkpoint_every_s, shared=remote.states if remote else None
        )
        weights = remote.weights if remote else (folder / WEIGHTS_NAME).resolve()
        finished = True
        if pending:
            finished = _run_trials(
                pending,
                sweep,
                ledger=ledger,
                executor=make_executor(datasets, len(pending)),
                make_view=make_view,
                states=states,
                weights=weights if sweep.keep_weights else None,
                should_stop=should_stop,
            )
        # What was running when the loop was stopped is waiting again.
        ledger.release_running()
        if finished:
            states.clean(keep={trial.trial_id for trial in trials} - ledger.with_result())
        records, diagnostics = ledger.records(), ledger.diagnostics()
    write_tables(folder, records, info)
    written = (*write_curves(folder, records), *write_diagnostics(folder, records, diagnostics))
    if pending:
        write_origin(folder, info, provenance)
    return Outcome(
        info=info, records=records, num_run=len(pending), finished=finished, written=written
    )


def describe(sweep: Sweep, trials: Sequence[Trial], datasets: Datasets) -> SweepInfo:
    """Say of a sweep what its ledger is to keep. Without data, their fingerprints are left as they are."""
    probes = selected_probes(sweep.probes)
    return SweepInfo(
        name=sweep.name,
        question=sweep.question,
        text=sweep.text,
        metrics=tuple(metric.name for probe in probes.values() for metric in probe.metrics),
        seeds=sweep.seeds,
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


def _run_trials(
    pending: Sequence[Trial],
    sweep: Sweep,
    *,
    ledger: Ledger,
    executor: Executor,
    make_view: ViewFactory,
    states: TrainingStates,
    weights: Path | RemoteFolder | None,
    should_stop: Callable[[], bool],
) -> bool:
    try:
        records = ledger.records()
        metric = sweep.pruning_metric
        judge = Judge(
            sweep.pruning,
            higher_is_better=METRICS[metric].higher_is_better,
            records=records,
            metric=metric,
        )
        with make_view(records, executor) as view:
            return schedule(
                pending,
                ledger=ledger,
                judge=judge,
                judged_metric=metric,
                executor=executor,
                view=view,
                states=states,
                weights=weights,
                should_stop=should_stop,
            )
    finally:
        executor.close()
