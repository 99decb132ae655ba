"""The settings of pruning: which of Optuna's pruners judges the arms of a group, and how strictly.

Optuna's words are kept, its unit is ours: one of Optuna's steps is one rung, the first rung is step 1. So a
setting means the same in a sweep of 90 optimizer steps and in one of 100,000. The settings load without
Optuna; ``orchestrator.scheduling.pruning`` makes the pruner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

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
    """What the pruners have that compare an arm's differences to the baseline with the other arms'."""

    n_startup_trials: NonNegativeInt = 5
    """Other arms, the baseline among them, that must have come to a rung with the same seeds before an arm is judged
    there; all other arms of the group where it has fewer."""
    n_warmup_steps: NonNegativeInt = 0
    """The first rung at which a trial can be pruned; 0 and 1 both mean the first."""
    interval_steps: PositiveInt = 1
    """Judge at every so many rungs, counted from ``n_warmup_steps``."""
    n_min_trials: PositiveInt = 1
    """The same by Optuna's other word: the larger of both counts."""


@settings
class MedianPruning(ComparingPruner):
    """Prune an arm whose best difference to the baseline so far is worse than the median of the others at this rung.

    The baseline is one of the others, with a difference of 0. Of arms that are all alike half are pruned at a rung.
    """

    pruner: Literal["median"] = "median"
    """Which pruner this is."""


@settings
class PercentilePruning(ComparingPruner):
    """Prune an arm whose best difference so far is outside the top ``percentile`` of the others' at this rung."""

    pruner: Literal["percentile"] = "percentile"
    """Which pruner this is."""
    percentile: Percentile = 75.0
    """Share of the arms to keep at a rung, in percent: 75 prunes the worst quarter, 50 is the median pruner."""


@settings
class SuccessiveHalvingPruning(Pruner):
    """Keep the best 1 in ``reduction_factor`` at rungs that lie ``reduction_factor`` times further each time.

    Asynchronous (Li et al. 2018, arXiv 1810.05934): an arm is compared with those that came by before it, by their
    differences to the baseline with the same seeds.
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
    """The first so many arms to reach a judged rung are all pruned there, as a sample to judge by (Optuna's
    rule; the baseline is spared, here too)."""


@settings
class HyperbandPruning(Pruner):
    """Deal the arms out to brackets of successive halving that begin to prune at different rungs.

    Li et al. 2018 (JMLR 18-185). An arm's bracket follows from its place in the sweep, so it is the same for all its
    seeds and after a resume.
    """

    pruner: Literal["hyperband"] = "hyperband"
    """Which pruner this is."""
    min_resource: PositiveInt = 1
    """The first rung that the strictest bracket judges."""
    max_resource: Annotated[int, Field(strict=True, gt=0)] | Literal["auto"] = "auto"
    """Rungs of a whole trial; ``auto`` = ``rungs.count``. The end of the run counts as one rung more."""
    reduction_factor: ReductionFactor = 2
    """Keep 1 in so many. 2, not Optuna's 3, since a sweep has few rungs."""
    bootstrap_count: NonNegativeInt = 0
    """The first so many arms of a bracket to reach a judged rung are all pruned there (Optuna's rule)."""

    def __post_init__(self) -> None:
        if self.max_resource != "auto" and self.max_resource < self.min_resource:
            raise ConfigError(
                f"max_resource must be at least min_resource = {self.min_resource}, not {self.max_resource}"
            )


@settings
class WilcoxonPruning(Pruner):
    """Prune an arm that is worse than the baseline, seed by seed. The default pruner: ``pruning: true``.

    The test is a one-sided Wilcoxon signed-rank test on the differences at a rung, a seed each: what Optuna calls
    instances. With n seeds p cannot fall below 1/2^n, so the first two seeds are never pruned with the defaults, the
    third neither where there are more than three rungs; ``p_threshold: 0.1`` takes one seed more.
    """

    pruner: Literal["wilcoxon"] = "wilcoxon"
    """Which pruner this is."""
    p_threshold: Fraction = 0.2
    """How probable it may be that a trial is pruned whose arm is as good as the baseline, over all its rungs: Optuna's
    pruner gets Pocock's level, each doubling of the rungs being a look. Optuna's default, 0.1, takes a seed more."""
    n_startup_steps: NonNegativeInt = 2
    """Seeds by which an arm must have been compared before it is judged; below 2 it counts as 2."""


def _default_pruner(value: object) -> object:
    """Read ``true``, and settings that name no pruner, as those of the default one, and ``false`` as none."""
    if isinstance(value, bool):
        return {"pruner": "wilcoxon" if value else "none"}
    if isinstance(value, Mapping) and "pruner" not in value:
        return {"pruner": "wilcoxon", **value}
    return value


def _allow_default(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a sweep file accept what ``_default_pruner`` reads."""
    schema["oneOf"] = [*schema["oneOf"], {"type": "boolean"}]


AnyPruner = Annotated[
    NoPruning
    | MedianPruning
    | PercentilePruning
    | SuccessiveHalvingPruning
    | HyperbandPruning
    | WilcoxonPruning,
    Field(discriminator="pruner", json_schema_extra=_allow_default),
    BeforeValidator(_default_pruner),
]
"""What the ``pruning`` section of a sweep file may hold: a pruner, or whether there is one."""
