"""A sweep from its file to its tables: what ``specsweep run`` does, without a word of output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.execution.executor import Executor
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.comparisons import Claims
from orchestrator.scheduling.kept_trainings import (
    Division,
    can_keep_weights,
    divide,
    events_of,
    keeps_weights,
)
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.shared_floors import ResultSharing, find_followers
from orchestrator.storage.checkpoint_store import FOLDER_NAME, CheckpointStore
from orchestrator.storage.command_inbox import CommandInbox
from orchestrator.storage.folder_lock import hold_lock
from orchestrator.storage.ownership import check_computation, check_owner
from orchestrator.storage.uncommitted import keep_patch
from orchestrator.sweep.grid import expand, start_order
from orchestrator.sweep.image_checks import check_images
from orchestrator.sweep.pretrained import pin_checkpoints
from orchestrator.sweep.resolved import Sweep
from orchestrator.sweep_run import Datasets, Outcome, SweepRun, stage_now
from orchestrator.trials.records import DECIDED, WITHOUT_WEIGHTS, TrialRecord
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.files.atomic import remove_leftovers
from specvit.files.regular import reject_symlink
from specvit.kept_weights import FOLDER_NAME as WEIGHTS_FOLDER

if TYPE_CHECKING:
    from orchestrator.storage.results_folder import Remote

__all__ = [
    "Datasets",
    "ExecutorFactory",
    "Outcome",
    "Select",
    "SweepRun",
    "describe",
    "load_datasets",
    "prepare_run",
    "run_sweep",
]

ExecutorFactory = Callable[[Datasets, Sequence[ResourceRequest]], Executor]
"""Called with the data and with what each trial that is to run occupies."""
Select = Callable[[TrialRecord], bool]
"""Returns from a trial's record whether to run it."""


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
        pending = start_order(sweep, _pending(trials, ledger, select))
        provenance = collect_provenance(sweep.path, sweep.parts)
        if pending and not accept_mixed:
            beside = {trial.trial_id for trial in trials} - {trial.trial_id for trial in pending}
            check_computation(ledger, provenance.computation(), beside)
        division = Division(to_train=tuple(pending))
        if pending and not datasets:
            datasets = load_data(pending)
            check_images(sweep, datasets)
        if select is None and pending:
            fingerprints = {source: data.fingerprint for source, data in datasets.items()}
            results = ledger.results()
            division = divide(pending, results, fingerprints=fingerprints, weights=weights, retrain=retrain)
        if not accept_mixed:
            check_computation(ledger, provenance.computation(), {kept.source for kept in division.kept.values()})
        info = describe(sweep, trials, datasets)
        if not trains and not info.primary_metric and ledger.provenance():
            before = ledger.sweep()  # what is asked for later does not become what the sweep claims
            info = dataclasses.replace(info, primary_metric=Claims.of(before).primary_of(before.metrics))
        ledger.register(info, trials, provenance)
        if pending:
            keep_patch(folder, provenance)
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
        pending = _needed(sweep, ledger, info, pending) if select is None else pending
        states = CheckpointStore(
            folder / FOLDER_NAME,
            every_s=sweep.file.checkpoint_every_s,
            max_share=sweep.file.checkpoint_max_share,
            shared=remote.states if remote else None,
        )
        keeps = keeps_weights(sweep, trials)
        yield SweepRun(
            sweep, folder, ledger, trials, pending, datasets, info, states,
            weights=weights, keeps_weights=lambda trial: keeps and can_keep_weights(trial), commands=commands,
            is_selection=select is not None, followers=followers, kept=division.kept,
            num_taken=len(division.complete), num_without_weights=len(division.without_weights),
        )


def _needed(sweep: Sweep, ledger: Ledger, info: SweepInfo, pending: Sequence[Trial]) -> list[Trial]:
    """Return the pending trials without those that a sweep whose seeds grow does not need any more."""
    if sweep.growth is None:
        return list(pending)
    stage = stage_now(ledger, info, sweep.growth)
    ledger.skip([trial.trial_id for trial in pending if trial.trial_id in stage.not_needed], DECIDED)
    return [trial for trial in pending if trial.trial_id not in stage.not_needed]


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
        seeds=sweep.seeds,
        primary_metric=sweep.file.primary_metric or sweep.file.pruning.metric or "",
        smallest_effects=dict(sweep.file.smallest_effect),
        growth={} if sweep.growth is None else dataclasses.asdict(sweep.growth),
        comparison={} if sweep.file.comparison.is_default else dataclasses.asdict(sweep.file.comparison),
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
