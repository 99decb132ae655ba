"""What controls are found to be: judged by the arms' variance and critical value, and part of neither.

A repeat in a smooth recipe differs from the baseline by next to nothing. In the pool of the residual variance it would
make the arms' intervals too narrow; in their family it would make them wider, and cost them power. So controls stand
beside the comparison, and what they show is whether its intervals can be believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.reports.comparisons import (
    Claims,
    Difference,
    GroupComparison,
    finite_mean,
    gaps_of,
    values_by_seed,
)
from orchestrator.reports.growth import GroupGrowth, critical_of
from orchestrator.statistics import Comparison, Verdict, beside_family, judge, sample_sd
from orchestrator.trials.records import TrialRecord
from orchestrator.trials.trial import REPEAT, Role
from specvit.probes import METRICS


def with_controls(
    compared: GroupComparison, arms: Mapping[str, Sequence[TrialRecord]], claims: Claims
) -> GroupComparison:
    """Return the comparison of a group with its controls judged.

    Args:
        compared: The comparison of the same trials.
        arms: Arm id to its trials, those of the baseline and of controls among them.
        claims: What the sweep is judged by.
    """
    roles = {arm: records[0].trial.role for arm, records in arms.items()}
    baseline = next((arm for arm, role in roles.items() if role is Role.BASELINE), None)
    controls = [arm for arm, role in roles.items() if role is Role.CONTROL]
    if baseline is None or not controls:
        return compared
    num_arms = sum(role is Role.ARM for role in roles.values())
    differences = {name: dict(of_arms) for name, of_arms in compared.differences.items()}
    rounding = {}
    for name, comparison in compared.by_metric.items():
        of_baseline = values_by_seed(arms[baseline], name)
        for arm in controls:
            own = values_by_seed(arms[arm], name)
            if compared.growth is not None and name == compared.primary:
                differences[name][arm] = _at_look(own, of_baseline, comparison, name, claims, compared.growth, num_arms)
            else:
                found = _judged(own, of_baseline, comparison, name, claims)
                differences[name][arm] = found if name == compared.primary else replace(found, verdict=None)
            if arms[arm][0].trial.arm == REPEAT and (sd := sample_sd(gaps_of(own, of_baseline))) is not None:
                rounding[name] = sd
    return replace(compared, differences=differences, rounding=rounding)


def _at_look(
    own: Mapping[int, float],
    baseline: Mapping[int, float],
    comparison: Comparison,
    name: str,
    claims: Claims,
    stands: GroupGrowth,
    num_arms: int,
) -> Difference:
    """Judge a control where seeds grow, by the seeds and the boundary of the look that its group has come to.

    There is no interval before the first look, nor before a confirmation.
    """
    is_open = stands.look == 0
    critical = None
    if claims.growth is not None:
        critical = critical_of(stands, claims.growth, num_arms, comparison.model.df)
        is_open |= claims.growth.method == "confirm" and stands.next_look is not None
        own = {seed: value for seed, value in own.items() if is_open or seed < claims.growth.first + stands.look}
    if is_open:
        gaps = gaps_of(own, baseline)
        return Difference(len(gaps), finite_mean(gaps), verdict=Verdict.UNDECIDED)
    return replace(_judged(own, baseline, comparison, name, claims, critical), p_value=None)


def _judged(
    own: Mapping[int, float],
    baseline: Mapping[int, float],
    comparison: Comparison,
    name: str,
    claims: Claims,
    critical: float | None = None,
) -> Difference:
    gaps = gaps_of(own, baseline)
    num_seeds = len(gaps) if comparison.model.blocks else min(len(own), len(baseline))
    found = beside_family(
        own,
        baseline,
        model=comparison.model,
        family=comparison.family,
        pooled=claims.comparison.variance == "pooled",
        critical=critical,
    )
    if found is None:
        return Difference(num_seeds, finite_mean(gaps))
    verdict = judge(
        found.low,
        found.high,
        num_seeds=num_seeds,
        higher_is_better=METRICS[name].higher_is_better if name in METRICS else True,
        smallest_effect=claims.smallest_effects.get(name),
    )
    return Difference(num_seeds, found.estimate, found.low, found.high, found.p_value, verdict=verdict)
