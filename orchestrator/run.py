"""A sweep from its file to its tables: what ``specsweep run`` does, without a word of output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.executor import Executor
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.result_files import write_results
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.jobs import JobMaker
from orchestrator.scheduling.kept_trainings import (
    Division,
    can_keep_weights,
    divide,
    events_of,
    keeps_weights,
)
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.scheduling.shared_floors import Followers, ResultSharing, find_followers
from orchestrator.storage.checkpoint_store import FOLDER_NAME, CheckpointStore
from orchestrator.storage.command_inbox import CommandInbox
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.storage.ownership import check_computation, check_owner
from orchestrator.storage.remote_folder import Location
from orchestrator.sweep.grid import expand
from orchestrator.sweep.image_checks import check_images
from orchestrator.sweep.pretrained import pin_checkpoints
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import WITHOUT_WEIGHTS, State, TrialRecord
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.stored import KeptTraining
from orchestrator.trials.trial import Role, Trial
from specvit.data import Dataset, DataSource
from specvit.files.atomic import remove_leftovers
from specvit.files.regular import reject_symlink
from specvit.kept_weights import FOLDER_NAME as WEIGHTS_FOLDER
from specvit.probes import METRICS

if TYPE_CHECKING:
    from orchestrator.storage.results_folder import Remote

E = TypeVar("E", bound=Executor)
Datasets = Mapping[DataSource, Dataset]
ExecutorFactory = Callable[[Datasets, Sequence[ResourceRequest]], Executor]
"""Called with the data and with what each trial that is to run occupies."""
Select = Callable[[TrialRecord], bool]
"""Returns from a trial's record whether to run it."""


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        info: The sweep, as the ledger knows it.
        records: All its trials.
        num_run: Trials that this run was to do.
        finished: Whether they all came to an end; False if it was stopped before.
        written: The files that were written beside the tables.
        num_taken: Trials that have got their results from trials of the same trainings.
        num_without_weights: Trials that were left out, since probes have no weights to look at.
    """

    info: SweepInfo
    records: tuple[TrialRecord, ...]
    num_run: int
    finished: bool
    written: tuple[Path, ...] = ()
    num_taken: int = 0
    num_without_weights: int = 0

    @property
    def num_failed(self) -> int:
        """Return the number of failed trials."""
        return sum(record.state is State.FAILED for record in self.records)

    @property
    def num_pruned(self) -> int:
        """Return the number of pruned trials."""
        return sum(record.state is State.PRUNED for record in self.records)

    @property
    def is_all_pruned(self) -> bool:
        """Return whether there are arms, and every trial of them was pruned: the tables compare nothing then."""
        arms = [record.state for record in self.records if record.trial.role is Role.ARM]
        return bool(arms) and all(state is State.PRUNED for state in arms)


@dataclass
class SweepRun:
    """A run of a sweep that ``prepare_run`` has prepared: its results folder is held, its ledger is open.

    Attributes:
        sweep: The sweep.
        folder: Where its ledger and tables are.
        ledger: Its ledger, in which its trials are registered.
        trials: All its trials.
        pending: Those that are to run.
        kept: What is known of some of them before they run, by their ids (``orchestrator.scheduling.kept_trainings``).
        num_taken: Trials that have got their results from trials of the same trainings.
        num_without_weights: Trials that are left out, since probes have no weights to look at.
        followers: Those that take the results of others, see ``orchestrator.scheduling.shared_floors``.
        datasets: Their data; empty if none are to run.
        info: The sweep, as the ledger knows it.
        states: Where trials keep their states while they run.
        weights: Folder of trained weights.
        keeps_weights: Whether a trial's are kept.
        commands: Where other processes give commands.
        is_selection: Whether somebody asked for these trials, which run to their ends then.
        allocator: What each trial gets to run on.
        finished: Whether all that was to run came to its end.
    """

    sweep: Sweep
    folder: Path
    ledger: Ledger
    trials: Sequence[Trial]
    pending: Sequence[Trial]
    datasets: Datasets
    info: SweepInfo
    states: CheckpointStore
    weights: Location
    keeps_weights: Callable[[Trial], bool]
    commands: CommandInbox
    is_selection: bool
    followers: Followers = field(default_factory=dict)
    kept: Mapping[str, KeptTraining] = field(default_factory=dict)
    num_taken: int = 0
    num_without_weights: int = 0
    allocator: Allocator = field(init=False)
    finished: bool = True

    def __post_init__(self) -> None:
        self.allocator = self._make_allocator(self.ledger.resource_floors())

    def make_executor(self, make: Callable[[Datasets, Sequence[ResourceRequest]], E]) -> E:
        """Make an executor for what is to run: if there is room, with what earlier runs have found trials to need."""
        try:
            return make(self.datasets, self._requests())
        except ClusterError:
            if not self.ledger.resource_floors():
                raise
            self.allocator = self._make_allocator({})  # they were found on larger machines
            return make(self.datasets, self._requests())

    def execute(
        self,
        executor: Executor,
        callbacks: Sequence[SweepCallback] = (),
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run what is pending.

        Args:
            executor: Where trials run; it is not closed here.
            callbacks: Observers, called in their order.
            should_stop: Asked several times a second; a true answer ends the run.
        """
        sweep, records, metric = self.sweep, self.ledger.records(), self.sweep.pruning_metric
        callbacks = [*callbacks, ResultSharing(self.followers, self.ledger, callbacks)]
        is_up = METRICS[metric].higher_is_better
        judge = Judge(sweep.file.pruning, higher_is_better=is_up, records=records, metric=metric)
        if self.is_selection:
            for trial in self.pending:
                judge.exempt(trial.trial_id)
        scheduler = Scheduler(
            ledger=self.ledger,
            executor=executor,
            allocator=self.allocator,
            judge=judge,
            judged_metric=metric,
            callbacks=callbacks,
            states=self.states,
            weights=self.weights,
            keeps_weights=self.keeps_weights,
            kept=self.kept,
            limits=sweep.limits,
            budget=Budget(sweep.limits, clock=time.monotonic, gpu_hours_used=self.ledger.gpu_hours()),
            durations=TrialDurations(records),
            trials_by_id={trial.trial_id: trial for trial in self.trials},
            commands=self.commands.receive,
            should_stop=should_stop,
        )
        with ExitStack() as stack:
            for callback in callbacks:
                stack.enter_context(callback)
            self.finished = scheduler.run(self.pending)

    def finish(self) -> Outcome:
        """Write the tables, once the executor is closed; return how the run ended."""
        ledger = self.ledger
        # What was running when the loop was stopped is waiting again.
        ledger.release_running()
        if self.finished:
            self.states.prune(keep={trial.trial_id for trial in self.trials} - ledger.with_result())
        records = ledger.records()
        # If the run before died with all its trials done, they are of that run.
        provenance = ledger.newest_provenance() or collect_provenance()
        written = write_results(
            self.folder, records, self.info, diagnostics=ledger.diagnostics(), provenance=provenance
        )
        return Outcome(
            info=self.info, records=records, num_run=len(self.pending), finished=self.finished, written=written,
            num_taken=self.num_taken, num_without_weights=self.num_without_weights,
        )

    def _requests(self) -> list[ResourceRequest]:
        jobs = JobMaker(self.allocator, kept=self.kept)
        return [jobs.request_for(trial) for trial in self.pending]

    def _make_allocator(self, floors: Mapping[str, ResourceFloor]) -> Allocator:
        return Allocator(self.sweep.file.resources, floors, remember=self.ledger.write_resource_floor)


def run_sweep(
    sweep: Sweep,
    *,
    folder: Path,
    make_executor: ExecutorFactory,
    callbacks: Sequence[SweepCallback] = (),
    load_data: Callable[[Sequence[Trial]], Datasets] | None = None,
    remote: Remote | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run what is missing of a sweep, and write its tables.

    Args:
        sweep: The sweep.
        folder: Where its ledger and tables are, or will be.
        make_executor: Makes the executor; only called if there is something to run.
        callbacks: Observers, called in their order.
        load_data: See ``prepare_run``.
        remote: See ``prepare_run``.
        should_stop: Asked several times a second; a true answer ends the run.

    Raises:
        SpecsweepError: If the data, a checkpoint, the cluster or the results folder cannot be used, or the images
            turn out not to fit the sweep, see ``check_images``.
    """
    with prepare_run(sweep, folder, load_data=load_data, remote=remote) as run:
        if run.pending:
            with closing(run.make_executor(make_executor)) as executor:
                run.execute(executor, callbacks, should_stop=should_stop)
        return run.finish()


@contextmanager
def prepare_run(
    sweep: Sweep,
    folder: Path,
    *,
    load_data: Callable[[Sequence[Trial]], Datasets] | None = None,
    remote: Remote | None = None,
    select: Select | None = None,
    replace: bool = False,
    accept_mixed: bool = False,
    retrain: bool = False,
    trains: bool = True,
) -> Iterator[SweepRun]:
    """Lock a sweep's results folder and open its ledger, find what is missing and load its data.

    Args:
        sweep: The sweep.
        folder: Where its ledger and tables are, or will be.
        load_data: Loads the data of trials; only called if there is something to run, and before anything is
            written. None = ``load_datasets``.
        remote: Where workers keep states and weights; None = in ``folder``, which they share.
        select: Returns which trials to run, done ones to be done again; None = all that have no result.
        replace: Whether the sweep may take the place of another file's in the folder.
        accept_mixed: Whether trials may be run beside those that other code or other libraries have computed.
        retrain: Whether trials are trained again whose trainings are on record, but not their weights.
        trains: Whether anything is trained at all; else what is not trained yet goes on waiting.

    Raises:
        SpecsweepError: As ``run_sweep``; or if the folder holds another file's sweep, or trials that other code
            or other libraries have computed.
    """
    load_data = load_data or load_datasets
    trials = expand(pin_checkpoints(sweep))
    datasets: Datasets = {}
    if not (folder / LEDGER_NAME).exists():
        # On a first run, data that cannot be read leave no trace in the results.
        datasets = load_data(trials)
        check_images(sweep, datasets)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(hold_lock(folder))
        # Commands of before are dropped at once: from here on whoever gives one finds the folder held.
        commands = CommandInbox(remote.path if remote and remote.path else folder)
        ledger = stack.enter_context(Ledger.open(folder / LEDGER_NAME))
        if not replace:
            check_owner(ledger, sweep, trials)
        remove_leftovers(folder)
        reject_symlink(folder / WEIGHTS_FOLDER)
        weights = remote.weights if remote else (folder / WEIGHTS_FOLDER).resolve()
        pending = _pending(trials, ledger, select)
        division = Division(to_train=tuple(pending))
        if pending and not datasets:
            datasets = load_data(pending)
            check_images(sweep, datasets)
        if select is None and pending:
            fingerprints = {source: data.fingerprint for source, data in datasets.items()}
            results = ledger.results()
            division = divide(pending, results, fingerprints=fingerprints, weights=weights, retrain=retrain)
        provenance = collect_provenance(sweep.path, sweep.parts)
        if pending and not accept_mixed:
            pending_ids = {trial.trial_id for trial in pending}
            beside = {trial.trial_id for trial in trials} - pending_ids
            beside |= {kept.source for kept in division.kept.values()}
            check_computation(ledger, provenance.computation(), beside)
        info = describe(sweep, trials, datasets)
        ledger.register(info, trials, provenance)
        ledger.release_running()
        if select is not None:
            ledger.supersede(trial.trial_id for trial in pending)
        ledger.clear_skipped()
        ledger.skip([trial.trial_id for trial in division.without_weights], WITHOUT_WEIGHTS)
        _take_over(ledger, division)
        done = ledger.computations().keys() if select is None else ()
        to_do = {trial.trial_id for trial in (*(division.to_train if trains else ()), *division.to_evaluate)}
        pending, followers = find_followers(trials, [trial for trial in pending if trial.trial_id in to_do], done)
        for trial_id in followers.keys() & done:
            ResultSharing(followers, ledger).copy(trial_id)
        states = CheckpointStore(
            folder / FOLDER_NAME, every_s=sweep.file.checkpoint_every_s, shared=remote.states if remote else None
        )
        keeps = keeps_weights(sweep, trials)
        yield SweepRun(
            sweep, folder, ledger, trials, pending, datasets, info, states,
            weights=weights, keeps_weights=lambda trial: keeps and can_keep_weights(trial), commands=commands,
            is_selection=select is not None, followers=followers, kept=division.kept,
            num_taken=len(division.complete), num_without_weights=len(division.without_weights),
        )


def _take_over(ledger: Ledger, division: Division) -> None:
    """Record the results of trials that are known whole."""
    for trial in division.complete:
        kept = division.kept[trial.trial_id]
        attempt = ledger.begin_attempt(trial.trial_id, trained_by=kept.source)
        ledger.record_all(events_of(trial, attempt, kept))


def describe(sweep: Sweep, trials: Sequence[Trial], datasets: Datasets) -> SweepInfo:
    """Return what the ledger is to keep of a sweep. Without data, their fingerprints are left as they are."""
    return SweepInfo(
        name=sweep.name,
        question=sweep.file.question,
        text=sweep.text,
        metrics=tuple(metric.name for probe in sweep.file.probes for metric in probe.metrics),
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


def _pending(trials: Sequence[Trial], ledger: Ledger, select: Select | None) -> list[Trial]:
    """Return the trials to run. A failed one has no result: running the sweep again tries it again."""
    if select is None:
        with_result = ledger.with_result()
        return [trial for trial in trials if trial.trial_id not in with_result]
    wanted = {record.trial.trial_id for record in ledger.records() if select(record)}
    return [trial for trial in trials if trial.trial_id in wanted]
