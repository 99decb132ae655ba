"""What Optuna's pruners say of an arm's differences to the baseline.

Each verdict has a study of its own, made of the differences that are known at that moment: the same differences, the
same verdict, before a resume and after it. Optuna is imported when there is something to judge.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import ModuleType
from typing import TYPE_CHECKING

from orchestrator.scheduling.paired_differences import Differences
from orchestrator.sweep.pruning_settings import (
    AnyPruner,
    ComparingPruner,
    HyperbandPruning,
    SuccessiveHalvingPruning,
    WilcoxonPruning,
)

if TYPE_CHECKING:
    import optuna

_PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "wilcoxon": "WilcoxonPruner",
}


def num_others(settings: AnyPruner) -> int:
    """Return how many other arms a pruner compares an arm with at least."""
    match settings:
        case ComparingPruner():
            return max(1, settings.n_startup_trials, settings.n_min_trials)
        case SuccessiveHalvingPruning() | HyperbandPruning():
            return settings.reduction_factor - 1
        case _:
            return 1


def is_hopeless(settings: AnyPruner, seen: Differences, *, name: str, num_rungs: int) -> bool:
    """Return whether a pruner gives an arm up.

    Args:
        settings: The pruner and its arguments.
        seen: The arm's differences, and those of the others.
        name: Name of the group, from which Hyperband derives the brackets of its arms.
        num_rungs: Rungs of a whole trial.

    Returns:
        True = give it up.
    """
    with _quiet() as optuna:
        pruner = _make_pruner(settings, num_rungs)
        study = optuna.create_study(study_name=name, direction="maximize", pruner=pruner)
        if isinstance(settings, SuccessiveHalvingPruning | HyperbandPruning):
            return _halve(study, seen)
        if isinstance(settings, WilcoxonPruning):
            # The baseline is the best trial, and what a seed is to us is an instance to the pruner.
            others = [dict.fromkeys(range(len(seen.by_seed)), 0.0)]
            own = dict(enumerate(seen.by_seed))
        else:
            others, own = [dict(values) for values in seen.others.values()], dict(seen.own)
        create = optuna.trial.create_trial
        study.add_trials([create(value=0.0, intermediate_values=values) for values in others])
        study.add_trial(create(state=optuna.trial.TrialState.RUNNING, intermediate_values=own))
        return bool(pruner.prune(study, study.get_trials(deepcopy=False)[-1]))


def _halve(study: optuna.study.Study, seen: Differences) -> bool:
    """Return a verdict of successive halving, which has noted of each arm what it was worth at the rungs before."""
    trials = [study.ask() for _ in range(seen.num_arms)]
    verdict = False
    for number, means in [*seen.others.items(), (seen.number, seen.own)]:
        for rung, mean in means.items():
            trials[number].report(mean, step=rung)
            verdict = trials[number].should_prune()
    return verdict


def _make_pruner(settings: AnyPruner, num_rungs: int) -> optuna.pruners.BasePruner:
    """Return Optuna's pruner, whose arguments have the names of our fields."""
    from optuna import pruners

    from orchestrator.statistics.pocock import pocock_level

    arguments = asdict(settings)
    name, _ = arguments.pop("pruner"), arguments.pop("metric")
    if isinstance(settings, HyperbandPruning):
        rungs = num_rungs if settings.max_resource == "auto" else settings.max_resource
        # The end of the run is one rung more, as in Optuna's own "auto".
        arguments["max_resource"] = max(rungs + 1, settings.min_resource)
    if isinstance(settings, ComparingPruner):
        arguments |= {"n_startup_trials": 0, "n_min_trials": 1}  # there are enough others already, or there are no more
    if isinstance(settings, WilcoxonPruning):
        # Neighbouring rungs say nearly the same; each doubling of the training counts as a look.
        arguments["p_threshold"] = pocock_level(settings.p_threshold, num_rungs.bit_length())
    pruner: optuna.pruners.BasePruner = getattr(pruners, _PRUNERS[name])(**arguments)
    return pruner


@contextmanager
def _quiet() -> Iterator[ModuleType]:
    """Yield Optuna, without its log lines and its warnings of what is experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield optuna
