"""All that a table says of a group of arms in one metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.statistics.design import Design, fewest
from orchestrator.statistics.dunnett import critical_near, residual_df
from orchestrator.statistics.model import GroupModel, Values, fit_group
from orchestrator.statistics.pairing import Pairing, pairing
from orchestrator.statistics.simultaneous import Contrast, Family, against_baseline
from orchestrator.statistics.variances import Variances, VarianceTest, by_own_variances, unequal_variances
from orchestrator.statistics.verdicts import LEAST_SEEDS, Verdict, judge

MOST_MORE_SEEDS = 1000
"""Seeds beyond which "how many more" is not said."""


@dataclass(frozen=True)
class ArmResult:
    """An arm against its baseline; None where there is no estimate, or no degree of freedom for an interval.

    Attributes:
        estimate: Difference arm - baseline, in the unit of the metric.
        contrast: It with its standard error, degrees of freedom, simultaneous interval and p-values.
        num_seeds: Seeds that it has in common with the baseline.
        verdict: By the simultaneous interval.
        more_seeds: Of an undecided arm, how many more seeds for every arm would decide it, if estimate and noise stayed
            as they are; None for other arms, or beyond 1,000.
    """

    estimate: float | None
    contrast: Contrast | None
    num_seeds: int
    verdict: Verdict
    more_seeds: int | None

    @property
    def low(self) -> float | None:
        """Return the lower end of the simultaneous interval."""
        return None if self.contrast is None else self.contrast.low

    @property
    def high(self) -> float | None:
        """Return the upper end of the simultaneous interval."""
        return None if self.contrast is None else self.contrast.high

    @property
    def p_value(self) -> float | None:
        """Return the p that is adjusted for all arms."""
        return None if self.contrast is None else self.contrast.p_value

    @property
    def p_single(self) -> float | None:
        """Return the p of this arm alone, for ``benjamini_hochberg`` over many tables."""
        return None if self.contrast is None else self.contrast.p_single


@dataclass(frozen=True, eq=False)
class Comparison:
    """The arms of a group against their baseline in one metric.

    Attributes:
        arms: By name, every arm but the baseline, in the order given.
        model: The fit, whose residual variance is ``sd`` squared.
        family: The contrasts and their critical value.
        sd: Residual standard deviation of a value within a seed (without blocks: within an arm); None without a degree
            of freedom.
        detectable: True difference that would have been found with 80% probability: differences under it could not have
            been seen. Of a design with the median number of seeds; None without a degree of freedom.
        pairing: What pairing by seed is worth; None where it cannot be told.
        variances: Whether arms vary alike; None where it cannot be told.
        missing: Why no arm can have a verdict, in plain words; None if one can.
    """

    arms: Mapping[str, ArmResult]
    model: GroupModel
    family: Family
    sd: float | None
    detectable: float | None
    pairing: Pairing | None
    variances: VarianceTest | None
    missing: str | None


def compare_arms(
    values: Values,
    *,
    baseline: str,
    higher_is_better: bool = True,
    smallest_effect: float | None = None,
    blocks: bool = True,
    variances: Variances = "pooled",
    confidence: float = 0.95,
) -> Comparison:
    """Compare the arms of a group with their baseline.

    Args:
        values: By arm, its value at each seed: of trained arms alone, without floors, pruned arms, and arms that are
            the baseline to the last bit.
        baseline: The arm that the others are compared with.
        higher_is_better: The direction of the metric.
        smallest_effect: Smallest difference of interest, above 0; None: none is declared.
        blocks: Whether seeds are blocks, value ~ arm + seed.
        variances: ``pooled``: one residual variance for all arms; ``own``: each arm's own, of its differences to the
            baseline within a seed; ``moderated``: these, pulled towards each other.
        confidence: Of the simultaneous intervals, in (0, 1).

    Returns:
        All that a table says of them.

    Raises:
        ValueError: If the baseline is no arm, a number is out of its range, or variances are not pooled without blocks.

    Source:
        See ``fit_group``, ``against_baseline``, ``by_own_variances``, ``judge``, ``Design``, ``pairing`` and
        ``unequal_variances``.
    """
    if variances != "pooled" and not blocks:
        raise ValueError(f"variances must be 'pooled' where seeds are no blocks, not {variances!r}")
    model = fit_group(values, baseline=baseline, blocks=blocks)
    if variances == "pooled":
        family = against_baseline(model, confidence=confidence)
    else:
        family = by_own_variances(values, baseline=baseline, moderate=variances == "moderated", confidence=confidence)
    place = {arm: row for row, arm in enumerate(model.arms)}
    arms = {}
    for arm in values:
        if arm == baseline:
            continue
        contrast = family.contrasts.get(arm)
        num_seeds = model.num_seeds.get(arm, 0)
        low, high = (None, None) if contrast is None else (contrast.low, contrast.high)
        verdict = judge(
            low,
            high,
            num_seeds=num_seeds,
            higher_is_better=higher_is_better,
            smallest_effect=smallest_effect,
        )
        more = None
        if contrast is not None and verdict is Verdict.UNDECIDED:
            more = more_seeds(
                contrast, num_seeds, num_arms=len(family.contrasts), blocks=blocks, smallest_effect=smallest_effect,
                confidence=confidence,
            )
        estimate = float(model.estimates[place[arm]]) if arm in place else None
        arms[arm] = ArmResult(estimate, contrast, num_seeds, verdict, more)
    return Comparison(
        arms=arms,
        model=model,
        family=family,
        sd=math.sqrt(model.variance) if math.isfinite(model.variance) else None,
        detectable=_detectable(model, family, confidence, baseline=len(values[baseline])),
        pairing=pairing(values, baseline=baseline),
        variances=unequal_variances(model),
        missing=_missing(values, model, family, baseline),
    )


def more_seeds(
    contrast: Contrast,
    num_seeds: int,
    *,
    num_arms: int,
    blocks: bool = True,
    smallest_effect: float | None = None,
    confidence: float = 0.95,
) -> int | None:
    """Return how many more seeds for every arm would decide one, if its estimate and the noise stayed as they are.

    They would not stay: the arm is then decided in about half of the cases. For a probability see ``seeds_to_find``.

    Args:
        contrast: The arm's difference to the baseline.
        num_seeds: Seeds that it rests on, at least 1.
        num_arms: Arms beside the baseline.
        blocks: Whether seeds are blocks.
        smallest_effect: Smallest difference of interest; None: none is declared.
        confidence: Of the simultaneous intervals.

    Returns:
        At least 1, or None beyond 1,000.

    Source:
        The half-width of the interval of a complete design with n seeds, c(n) s sqrt(2 / n), solved for n.
    """
    sd_difference = contrast.standard_error * math.sqrt(num_seeds)
    if not sd_difference > 0 or not math.isfinite(contrast.estimate):
        return max(1, LEAST_SEEDS - num_seeds) if contrast.estimate else None
    size = abs(contrast.estimate)

    def decides(total: int) -> bool:
        critical = critical_near(num_arms, residual_df(num_arms, total, blocks), confidence)
        half = critical * sd_difference / math.sqrt(total)
        return half < size or (smallest_effect is not None and size + half < smallest_effect)

    total = fewest(decides, max(LEAST_SEEDS, num_seeds + 1), num_seeds + MOST_MORE_SEEDS)
    return None if total is None else total - num_seeds


def _detectable(model: GroupModel, family: Family, confidence: float, *, baseline: int) -> float | None:
    counts = sorted(model.num_seeds[arm] for arm in model.arms[1:])
    num_seeds = counts[len(counts) // 2] if counts else 0
    errors = sorted(contrast.standard_error for contrast in family.contrasts.values())
    if num_seeds < 2 or not errors or not errors[len(errors) // 2] > 0:
        return None
    base = num_seeds if model.blocks else baseline
    sd = errors[len(errors) // 2] / math.sqrt(1 / num_seeds + 1 / base)
    design = Design(
        len(errors), num_seeds, sd, blocks=model.blocks, num_baseline_seeds=base, confidence=confidence
    )
    return design.detectable()


def _missing(values: Values, model: GroupModel, family: Family, baseline: str) -> str | None:
    """Return why no arm can have a verdict."""
    if len(values) < 2:
        return "there is no arm beside the baseline"
    if not model.arms:
        return f"the baseline {baseline} has no values, or one that is not finite"
    most = max((model.num_seeds[arm] for arm in model.arms[1:]), default=0)
    if most < LEAST_SEEDS:
        have = "none" if most == 0 else f"at most {most}"
        return f"a verdict takes {LEAST_SEEDS} seeds that an arm has in common with the baseline; there are {have}"
    return None if family.contrasts else "there is no degree of freedom for the noise"
