"""A run of a sweep that is prepared: what it holds, how it runs its trials, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.execution.capacity import ClusterError
from orchestrator.execution.executor import Executor
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.growth import Stage, stage_of
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.result_files import write_results
from orchestrator.reports.weights_index import write_index
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.jobs import JobMaker
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.scheduling.shared_floors import Followers, ResultSharing
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.storage.command_inbox import CommandInbox
from orchestrator.storage.remote_folder import Location
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import DECIDED, State, TrialRecord
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.stored import KeptTraining
from orchestrator.trials.trial import Role, Trial
from specvit.data import Dataset, DataSource
from specvit.probes import METRICS

E = TypeVar("E", bound=Executor)
Datasets = Mapping[DataSource, Dataset]


def stage_now(ledger: Ledger, info: SweepInfo, growth: GrowingSeeds) -> Stage:
    """Return what a sweep whose seeds grow is to run, as its ledger stands, by its primary metric."""
    claims = Claims.of(info)
    metric = claims.primary_of(info.metrics)
    return stage_of(ledger.records(), growth, metric, claims.smallest_effects.get(metric))


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
    def num_left_out(self) -> int:
        """Return the number of trials that are left out."""
        return sum(record.state is State.SKIPPED for record in self.records)

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
        num_rungs = sweep.file.rungs.count
        judge = Judge(
            sweep.file.pruning, higher_is_better=is_up, records=records, metric=metric, num_rungs=num_rungs
        )
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
            self.finished = all(scheduler.run(batch) for batch in self._batches(callbacks))

    def _batches(self, callbacks: Sequence[SweepCallback]) -> Iterator[Sequence[Trial]]:
        """Yield what is to run, one batch after the other: where seeds grow, what each look asks for."""
        growth = self.sweep.growth
        if growth is None or self.is_selection:
            yield self.pending
            return
        waiting = {trial.trial_id: trial for trial in self.pending}
        while True:
            stage = stage_now(self.ledger, self.info, growth)
            left_out = [waiting.pop(trial_id) for trial_id in stage.not_needed & waiting.keys()]
            if left_out:
                self.ledger.skip([trial.trial_id for trial in left_out], DECIDED)
                for callback in callbacks:
                    callback.on_skip(left_out, DECIDED)
            # Each is begun once: what there was no room for waits for another run.
            batch = [trial for trial_id, trial in waiting.items() if trial_id in stage.now]
            if not batch:
                return
            for trial in batch:
                del waiting[trial.trial_id]
            yield batch

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
        data = SweepData(ledger.sweep(), records, ledger.training_ids())  # with what earlier runs knew of the data
        written = write_results(
            self.folder, data, diagnostics=ledger.diagnostics(), provenance=provenance, usage=ledger.usage()
        )
        written += write_index(self.folder, records)
        return Outcome(
            info=self.info, records=records, num_run=len(self.pending), finished=self.finished, written=written,
            num_taken=self.num_taken, num_without_weights=self.num_without_weights,
        )

    def _requests(self) -> list[ResourceRequest]:
        jobs = JobMaker(self.allocator, kept=self.kept)
        return [jobs.request_for(trial) for trial in self.pending]

    def _make_allocator(self, floors: Mapping[str, ResourceFloor]) -> Allocator:
        return Allocator(self.sweep.file.resources, floors, remember=self.ledger.write_resource_floor)
