"""What a run need not compute, since trials of the same trainings are on record.

A trial is a training with its evaluations. Where another trial has trained the same, with other probes, say, its
numbers are taken over as far as they answer the same question, and the rest is evaluated on the weights that were kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.storage.remote_folder import Location
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Finished, Started
from orchestrator.trials.identity import training_id
from orchestrator.trials.stored import KeptTraining, StoredResult, find_kept
from orchestrator.trials.trial import Trial
from specvit.data import DataSource

MOST_KEPT_BYTES = 1 << 30
"""Weights are kept, unless the sweep file says otherwise, where those of all its trials are no more than this."""

_BYTES_A_PARAMETER = 4
_MOST_BACKBONES = 2
"""Backbones that a trial keeps at most: DINOv2's student and teacher."""


@dataclass(frozen=True)
class Division:
    """The pending trials of a run by what is left to do.

    Attributes:
        to_train: Those whose training is not on record.
        to_evaluate: Those with nothing but probes to run, on kept weights or, of floors, on what is built anew.
        complete: Those that are known whole.
        without_weights: Those whose training is on record, but cannot be looked at any more.
        kept: What is known of the second and the third, by their ids.
    """

    to_train: tuple[Trial, ...] = ()
    to_evaluate: tuple[Trial, ...] = ()
    complete: tuple[Trial, ...] = ()
    without_weights: tuple[Trial, ...] = ()
    kept: Mapping[str, KeptTraining] = field(default_factory=dict)


def divide(
    pending: Sequence[Trial],
    results: Sequence[StoredResult],
    *,
    fingerprints: Mapping[DataSource, str] | None = None,
    weights: Location | None = None,
    retrain: bool = False,
) -> Division:
    """Divide pending trials by what is left to do.

    Args:
        pending: Those without a result, in their order.
        results: Those of all trials that are done.
        fingerprints: Of the data, as far as these are loaded; others are taken to be as they were.
        weights: Folder of kept weights; None = there is none. Whether a file is still there is seen in a folder only.
        retrain: Whether what cannot be looked at any more is trained again.
    """
    by_training: defaultdict[str, list[StoredResult]] = defaultdict(list)
    for result in results:
        by_training[training_id(result.config)].append(result)
    to_train, to_evaluate, complete, without = [], [], [], []
    found: dict[str, KeptTraining] = {}
    for trial in pending:
        same = [_without_lost(result, weights) for result in by_training.get(training_id(trial.config), ())]
        kept = find_kept(trial.config, same, fingerprints or {}) if same else None
        if kept is None:
            to_train.append(trial)
        elif kept.missing is None:
            complete.append(trial)
            found[trial.trial_id] = kept
        elif kept.probed is not None or not trial.config.treatment.is_trained:
            to_evaluate.append(trial)
            found[trial.trial_id] = kept
        elif retrain:
            to_train.append(trial)
        else:
            without.append(trial)
    return Division(tuple(to_train), tuple(to_evaluate), tuple(complete), tuple(without), found)


def keeps_weights(sweep: Sweep, trials: Sequence[Trial]) -> bool:
    """Return whether a sweep keeps trained weights: as its file says, or where they are small."""
    if sweep.file.keep_weights is not None:
        return sweep.file.keep_weights
    trained = (trial.num_parameters for trial in trials if trial.config.treatment.is_trained)
    return sum(trained) * _BYTES_A_PARAMETER * _MOST_BACKBONES <= MOST_KEPT_BYTES


def can_keep_weights(trial: Trial) -> bool:
    """Return whether there is a file format for the trial's backbone."""
    comparator = trial.config.treatment.comparator
    return comparator is None or not comparator.changes_model


def events_of(trial: Trial, attempt: int, kept: KeptTraining) -> tuple[Started, Finished]:
    """Return the events of a trial that is known whole; it takes no time."""
    return (
        Started(trial.trial_id, attempt, worker=f"the record of {kept.label}"),
        Finished(
            *(trial.trial_id, attempt, kept.metrics, 0.0, 0.0),
            diagnostics=kept.diagnostics, cost=kept.cost, weights=kept.weights,
        ),
    )


def _without_lost(result: StoredResult, weights: Location | None) -> StoredResult:
    """Return a result without files of weights that are not there any more."""
    is_there = weights is not None and all(
        not isinstance(weights, Path) or (weights / file.path).is_file() for file in result.weights
    )
    return result if is_there else replace(result, weights=())
