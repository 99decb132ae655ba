"""The settings of pruning: which of Optuna's pruners judges the trials of a group, and how strictly.

Optuna's words are kept, its unit is ours: one of Optuna's steps is one rung, the first rung is step 1. So a
setting means the same in a sweep of 90 optimizer steps and in one of 100,000. The settings load without
Optuna; ``orchestrator.scheduling.pruning`` makes the pruner.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specvit.errors import ConfigError
from specvit.settings import Fraction, NonNegativeInt, PositiveInt, settings

Percentile = Annotated[float, Field(strict=True, ge=0, le=100)]
ReductionFactor = Annotated[int, Field(strict=True, ge=2)]


@settings
class Pruner:
    """What every pruner has."""

    metric: str | None = None
    """Rung metric to judge by, e.g. ``knn_top1``; none given = the first metric of the first rung probe."""


@settings
class NoPruning(Pruner):
    """Let every trial run to its end. Rungs are still recorded, as curves."""

    pruner: Literal["none"] = "none"
    """Which pruner this is."""


@settings
class ComparingPruner(Pruner):
    """What the pruners have that compare a trial with those that have finished."""

    n_startup_trials: NonNegativeInt = 5
    """Trials of the group, the baseline's among them, that must have finished before any is pruned."""
    n_warmup_steps: NonNegativeInt = 0
    """The first rung at which a trial can be pruned; 0 and 1 both mean the first."""
    interval_steps: PositiveInt = 1
    """Judge at every so many rungs, counted from ``n_warmup_steps``."""
    n_min_trials: PositiveInt = 1
    """Finished trials that must have a value at a rung before it is judged."""


@settings
class MedianPruning(ComparingPruner):
    """Prune a trial whose best rung so far is worse than the median of the finished trials at this rung."""

    pruner: Literal["median"] = "median"
    """Which pruner this is."""


@settings
class PercentilePruning(ComparingPruner):
    """Prune a trial whose best rung so far is outside the top ``percentile`` of the finished ones there."""

    pruner: Literal["percentile"] = "percentile"
    """Which pruner this is."""
    percentile: Percentile = 75.0
    """Share of the trials to keep, in percent: 75 prunes the worst quarter, 50 is the median pruner."""


@settings
class SuccessiveHalvingPruning(Pruner):
    """Keep the best 1 in ``reduction_factor`` at rungs that lie ``reduction_factor`` times further each time.

    Asynchronous (Li et al. 2018, arXiv 1810.05934): a trial is compared with those that came by before it.
    """

    pruner: Literal["successive_halving"] = "successive_halving"
    """Which pruner this is."""
    min_resource: PositiveInt = 1
    """The first rung that is judged."""
    reduction_factor: ReductionFactor = 2
    """Keep 1 in so many. 2, not Optuna's 4, since a sweep has few rungs: 1, 2, 4, ... are judged."""
    min_early_stopping_rate: NonNegativeInt = 0
    """Leave out so many of the first judgements; 1 = begin at rung ``min_resource * reduction_factor``."""
    bootstrap_count: NonNegativeInt = 0
    """The first so many trials to reach a judged rung are all pruned there, as a sample to judge by (Optuna's
    rule; the baseline is spared, here too)."""


@settings
class HyperbandPruning(Pruner):
    """Deal the trials out to brackets of successive halving that begin to prune at different rungs.

    Li et al. 2018 (JMLR 18-185). A trial's bracket follows from its place in the sweep, so it is the same
    after a resume. Nothing is pruned before ``max_resource`` is known.
    """

    pruner: Literal["hyperband"] = "hyperband"
    """Which pruner this is."""
    min_resource: PositiveInt = 1
    """The first rung that the strictest bracket judges."""
    max_resource: Annotated[int, Field(strict=True, gt=0)] | Literal["auto"] = "auto"
    """Rungs of a whole trial; ``auto`` takes them from the first trial of the group that finishes. The end of
    the run counts as one rung more."""
    reduction_factor: ReductionFactor = 2
    """Keep 1 in so many. 2, not Optuna's 3, since a sweep has few rungs."""
    bootstrap_count: NonNegativeInt = 0
    """The first so many trials of a bracket to reach a judged rung are all pruned there (Optuna's rule)."""

    def __post_init__(self) -> None:
        if self.max_resource != "auto" and self.max_resource < self.min_resource:
            raise ConfigError(
                f"max_resource must be at least min_resource = {self.min_resource}, not {self.max_resource}"
            )


@settings
class WilcoxonPruning(Pruner):
    """Prune a trial that is worse than the group's best finished trial, rung by rung.

    The best is the one with the best mean over its rungs. The test is a one-sided Wilcoxon signed-rank test
    on the differences at equal rungs. Rungs of one run are not independent, so ``p_threshold`` is a dial and
    not an error rate. With n rungs p cannot fall below 1/2^n: the default needs three rungs, 0.1 needs four.
    """

    pruner: Literal["wilcoxon"] = "wilcoxon"
    """Which pruner this is."""
    p_threshold: Fraction = 0.2
    """Prune when p is below it. Optuna's 0.1 could never be reached with three rungs."""
    n_startup_steps: NonNegativeInt = 2
    """Rungs that a trial must have reported before it is judged; below 2 it counts as 2."""


AnyPruner = Annotated[
    NoPruning
    | MedianPruning
    | PercentilePruning
    | SuccessiveHalvingPruning
    | HyperbandPruning
    | WilcoxonPruning,
    Field(discriminator="pruner"),
]
"""What the ``pruning`` section of a sweep file may hold."""
