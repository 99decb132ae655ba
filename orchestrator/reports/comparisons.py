"""What the arms of a group are found to be: from records to verdicts, metric by metric.

One metric is primary: its verdicts are what a sweep claims. All others are exploratory: they have intervals, and a p
that is adjusted over all of them, but no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.growth import GroupGrowth, follow_group, verdict_of
from orchestrator.statistics import Comparison, Decision, Verdict, benjamini_hochberg, can_be_compared, compare_arms
from orchestrator.sweep.declared.comparison import DEFAULT, ComparisonSettings, read_comparison
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds, read_growth
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role
from specvit.errors import SpecsweepError
from specvit.messages import one_line
from specvit.probes import METRICS, PROBES

_PREFERRED = ("miou",)
"""Primary where nothing is said: a probe that is added to a sweep does not change what it claims."""

BASELINE = ""
"""What a comparison calls the baseline, whatever its text is."""


@dataclass(frozen=True)
class Claims:
    """What a sweep is judged by.

    Attributes:
        primary: Name of the metric whose verdicts are its claims; empty = the first dense one, see ``primary_of``.
        smallest_effects: Name of a metric to the smallest difference of interest, in its unit, above 0.
        growth: How its seeds grow; None if they are fixed.
        comparison: By which model and variance arms are compared.
    """

    primary: str = ""
    smallest_effects: Mapping[str, float] = field(default_factory=dict)
    growth: GrowingSeeds | None = None
    comparison: ComparisonSettings = DEFAULT

    @classmethod
    def of(cls, info: SweepInfo) -> Claims:
        """Return what a sweep's file says, as its ledger keeps it.

        Raises:
            SpecsweepError: If that is nothing which a sweep file can say.
        """
        try:
            growth, comparison = read_growth(info.growth), read_comparison(info.comparison)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(map(str, found["loc"]))
            raise SpecsweepError(
                f"{one_line(info.name)}: what is recorded of its seeds or its comparison is not what a sweep file can "
                f"say: {one_line(place)}: {found['msg']}"
            ) from None
        return cls(info.primary_metric, info.smallest_effects, growth, comparison)

    def primary_of(self, metrics: Sequence[str]) -> str:
        """Return the primary metric among those of a table; empty if it shows none.

        Segmentation's mIoU, since dense prediction is what the paper's gains are of; without it the first dense one;
        else the first.
        """
        if self.primary in metrics:
            return self.primary
        dense = [name for name in (*_PREFERRED, *metrics) if name in metrics and name in _dense_metrics()]
        return next(iter((*dense, *metrics)), "")


def _dense_metrics() -> frozenset[str]:
    """Return the metrics of probes that predict more than one label an image."""
    return frozenset(metric.name for probe in PROBES.values() if probe.needs != "labels" for metric in probe.metrics)


@dataclass(frozen=True)
class Difference:
    """A difference to the baseline.

    Attributes:
        n: Seeds that both have; where seeds are no blocks, those of the one that has fewer.
        mean: Its estimate; None if there is none.
        low: Lower end of the 95% interval, simultaneous over the arms of the group; None if there is none.
        high: Upper end, likewise.
        p_value: p of the hypothesis that there is none, adjusted for the arms of the group; None likewise.
        q_value: Of exploratory cells, p adjusted over all of them after Benjamini and Hochberg; None of others.
        verdict: Of primary cells, what the interval says; None of others.
        more_seeds: How many more seeds would decide an undecided one; None where that is not so, or not known.
    """

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    verdict: Verdict | None = None
    more_seeds: int | None = None


@dataclass(frozen=True)
class GroupComparison:
    """A group's arms against their baseline.

    Attributes:
        primary: Name of the primary metric; empty if there is none.
        smallest_effect: Smallest difference of interest in it; None if none is declared.
        differences: Metric, then arm id, to the difference; of floors without an interval.
        by_metric: Metric to its comparison, where there is one.
        no_ops: Ids of arms that are the baseline to the last bit, in every metric and seed, or by their kept weights.
        judged: What the primary metric's comparison is of: arm id, or ``BASELINE``, to the value at each seed.
        growth: Where the looks of a sweep stand whose seeds grow; None if they are fixed.
        rounding: Metric to the standard deviation, over seeds, of the differences of the control ``repeat``.
    """

    primary: str
    smallest_effect: float | None
    differences: Mapping[str, Mapping[str, Difference]]
    by_metric: Mapping[str, Comparison]
    no_ops: frozenset[str] = frozenset()
    judged: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    growth: GroupGrowth | None = None
    rounding: Mapping[str, float] = field(default_factory=dict)


def compare_group(
    arms: Mapping[str, Sequence[TrialRecord]], metrics: Sequence[str], claims: Claims
) -> GroupComparison:
    """Compare the arms of a group with their baseline.

    Arms of which a trial was pruned are left out: their survivors flatter them. So are arms that change nothing.
    Controls take no part either; what they are is found beside, by ``reports.controls``.

    Args:
        arms: Arm id to its trials, all of one group, the baseline's among them if it has one.
        metrics: Names of the metrics.
        claims: What the sweep is judged by.
    """
    roles = {arm: records[0].trial.role for arm, records in arms.items()}
    baseline = next((arm for arm, role in roles.items() if role is Role.BASELINE), None)
    primary = claims.primary_of(metrics)
    effect = claims.smallest_effects.get(primary)
    if baseline is None:
        return GroupComparison(primary, effect, {}, {})
    values = {name: {arm: values_by_seed(records, name) for arm, records in arms.items()} for name in metrics}
    pruned = {arm for arm, records in arms.items() if any(record.state is State.PRUNED for record in records)}
    trained = [arm for arm, role in roles.items() if role is Role.ARM]
    no_ops = frozenset(
        arm
        for arm in trained
        if _changes_nothing(values, arm, baseline) or _has_same_weights(arms[arm], arms[baseline])
    )
    comparisons, judged = {}, {}
    for name in metrics:
        judged[name] = {BASELINE: values[name][baseline]}
        judged[name] |= {arm: values[name][arm] for arm in trained if arm not in pruned | no_ops}
        if judged[name][BASELINE] and len(judged[name]) > 1:
            comparisons[name] = compare_arms(
                judged[name],
                baseline=BASELINE,
                higher_is_better=METRICS[name].higher_is_better if name in METRICS else True,
                smallest_effect=claims.smallest_effects.get(name),
                blocks=claims.comparison.model == "blocked",
                variances=claims.comparison.variance,
            )
    differences = {
        name: {
            arm: _difference(arm, values[name], baseline, comparisons.get(name), role=role, is_primary=name == primary)
            for arm, role in roles.items()
            if role.is_paired
        }
        for name in metrics
    }
    growth = None
    if claims.growth is not None and primary:
        everything = [record for its in arms.values() for record in its]
        growth = follow_group(everything, claims.growth, primary, effect)
        differences[primary] = {
            arm: _looked_at(difference, growth.decisions.get(arm), role=roles[arm])
            for arm, difference in differences[primary].items()
        }
    return GroupComparison(primary, effect, differences, comparisons, no_ops, judged.get(primary, {}), growth)


def with_q_values(groups: Mapping[str, GroupComparison]) -> dict[str, GroupComparison]:
    """Return the comparisons of all groups with the exploratory cells' p adjusted over all of them."""
    cells = [
        (group, name, arm)
        for group, comparison in groups.items()
        for name, its_arms in comparison.by_metric.items()
        if name != comparison.primary
        for arm in its_arms.arms
    ]
    singles = [groups[group].by_metric[name].arms[arm].p_single for group, name, arm in cells]
    adjusted = dict(zip(cells, benjamini_hochberg(singles), strict=True))
    found = {}
    for group, comparison in groups.items():
        differences = {
            name: {
                arm: _replace_q(difference, adjusted.get((group, name, arm)))
                for arm, difference in its_arms.items()
            }
            for name, its_arms in comparison.differences.items()
        }
        found[group] = replace(comparison, differences=differences)
    return found


def _replace_q(difference: Difference, q_value: float | None) -> Difference:
    return difference if q_value is None else replace(difference, q_value=q_value)


def _difference(
    arm: str,
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    comparison: Comparison | None,
    *,
    role: Role,
    is_primary: bool,
) -> Difference:
    gaps = gaps_of(values[arm], values[baseline])
    result = None if comparison is None else comparison.arms.get(arm)
    if result is None:
        return Difference(len(gaps), finite_mean(gaps) if role is not Role.ARM or _is_exact(gaps) else None)
    return Difference(
        len(gaps) if comparison is None or comparison.model.blocks else result.num_seeds,
        result.estimate,
        result.low,
        result.high,
        result.p_value,
        verdict=result.verdict if is_primary else None,
        more_seeds=result.more_seeds if is_primary else None,
    )


def _looked_at(difference: Difference, decision: Decision | None, *, role: Role) -> Difference:
    """Return a difference of the primary metric as the looks found it: its interval holds for all of them together."""
    if role is not Role.ARM:
        return difference
    if decision is None:
        return replace(difference, low=None, high=None, p_value=None, verdict=Verdict.UNDECIDED, more_seeds=None)
    return replace(
        difference,
        n=decision.num_seeds,
        mean=difference.mean if decision.estimate is None else decision.estimate,
        low=decision.low,
        high=decision.high,
        p_value=None,
        verdict=verdict_of(decision),
        more_seeds=None,
    )


def gaps_of(own: Mapping[int, float], baseline: Mapping[int, float]) -> list[float]:
    """Return the differences at the seeds that both have."""
    return [own[seed] - baseline[seed] for seed in sorted(own.keys() & baseline.keys())]


def finite_mean(gaps: Sequence[float]) -> float | None:
    """Return the mean of some numbers; None of none, or where one is none that can be compared."""
    return math.fsum(gaps) / len(gaps) if gaps and can_be_compared(gaps) else None


def _is_exact(gaps: Sequence[float]) -> bool:
    """Return whether an arm that was not compared is known to differ by nothing."""
    return bool(gaps) and not any(gaps)


def _changes_nothing(values: Mapping[str, Mapping[str, Mapping[int, float]]], arm: str, baseline: str) -> bool:
    """Return whether an arm has the baseline's values to the last bit, in every metric of every seed that both have.

    Of two seeds at least: few images may give two models the same score once.
    """
    pairs = [
        (seed, its[arm][seed] == its[baseline][seed])
        for its in values.values()
        for seed in its[arm].keys() & its[baseline].keys()
    ]
    return len({seed for seed, _ in pairs}) > 1 and all(is_equal for _, is_equal in pairs)


def _has_same_weights(records: Sequence[TrialRecord], baseline: Sequence[TrialRecord]) -> bool:
    """Return whether the kept weights of an arm are the baseline's, by their checksums, in every seed that both have.

    Files of different models never are: they say what model they are of.
    """
    own, its = (
        {
            record.trial.seed: [file.sha256 for file in record.weights if file.is_probed]
            for record in of
            if record.state is State.DONE and record.weights
        }
        for of in (records, baseline)
    )
    common = own.keys() & its.keys()
    return bool(common) and all(own[seed] == its[seed] for seed in common)


def values_by_seed(records: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    """Return the values of an arm's trials that are done."""
    return {
        record.trial.seed: record.metrics[metric]
        for record in records
        if record.state is State.DONE and metric in record.metrics
    }
