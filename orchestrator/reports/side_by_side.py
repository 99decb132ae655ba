"""Arms of two sweeps side by side: what each has on either side, and what differs, with its interval.

Of one metric. In each sweep an arm has one value a seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.reports.comparisons import BASELINE
from orchestrator.reports.interactions import ERROR, Change, change_of, changes_of_effects
from orchestrator.statistics import Variances, differences_of_means, mean, sample_sd
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role

Place = tuple[str, str]
"""Text of the group, empty where one of the sweeps has a single one, and text of the arm."""


@dataclass(frozen=True)
class SideCell:
    """An arm on one side: mean and sample standard deviation over its ``n`` seeds that are done; None if unknown."""

    mean: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class ComparedArm:
    """An arm that both sweeps have.

    Attributes:
        group: Text of its group; empty where one of the sweeps has a single one.
        arm: Its text.
        role: What it is to its group.
        first: It in the first sweep.
        second: In the second.
        change: Second - first; of controls and of what is not trained, or was pruned, without an interval.
        is_pruned: Whether a trial of it was pruned in one of the sweeps: survivors flatter.
        is_same: Whether it has the same values in both, to the last bit, at the seeds that both have.
        effect: How much larger its difference to the baseline is in the second; None of all but arms, and where it was
            pruned.
    """

    group: str
    arm: str
    role: Role
    first: SideCell
    second: SideCell
    change: Change
    is_pruned: bool = False
    is_same: bool = False
    effect: Change | None = None


def values_of(records: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    """Return the values of the trials that are done, by seed."""
    done = [record for record in records if record.state is State.DONE and metric in record.metrics]
    return {record.trial.seed: record.metrics[metric] for record in done}


def compared_arm(
    place: Place, one: Sequence[TrialRecord], other: Sequence[TrialRecord], metric: str, *, paired: bool
) -> ComparedArm:
    """Return an arm side by side, its change without an interval."""
    first, second = values_of(one, metric), values_of(other, metric)
    common = sorted(first.keys() & second.keys())
    cells = [_cell(list(of.values())) for of in (first, second)]
    if paired:
        change = Change(len(common), _finite(mean([second[seed] - first[seed] for seed in common])))
    else:
        means = [cell.mean for cell in cells]
        gap = None if means[0] is None or means[1] is None else means[1] - means[0]
        change = Change(min(len(first), len(second)), gap)
    return ComparedArm(
        *place,
        role=one[0].trial.role,
        first=cells[0],
        second=cells[1],
        change=change,
        is_pruned=any(record.state is State.PRUNED for record in (*one, *other)),
        is_same=paired and bool(common) and all(first[seed] == second[seed] for seed in common),
    )


def _cell(values: Sequence[float]) -> SideCell:
    return SideCell(_finite(mean(values)), _finite(sample_sd(values)), len(values))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def with_intervals(
    arms: Sequence[ComparedArm],
    one: Mapping[Place, Sequence[TrialRecord]],
    other: Mapping[Place, Sequence[TrialRecord]],
    metric: str,
    *,
    paired: bool,
) -> tuple[list[ComparedArm], float | None]:
    """Give baselines and arms their intervals, simultaneous over all; return what could have been seen with it.

    Groups have variances of their own and share the error evenly. Arms that are the same to the last bit take no part,
    nor do pruned ones, whose survivors flatter.
    """
    judged: dict[str, list[ComparedArm]] = {}
    for arm in arms:
        if arm.role.is_ablated and not arm.is_pruned and not arm.is_same:
            judged.setdefault(arm.group, []).append(arm)
    changes: dict[Place, Change] = {}
    seen = []
    for group, of_group in judged.items():
        values = [{arm.arm: values_of(of[group, arm.arm], metric) for arm in of_group} for of in (other, one)]
        family = differences_of_means(values[0], values[1], paired=paired, confidence=1 - ERROR / len(judged))
        for arm in of_group:
            if (contrast := family.contrasts.get(arm.arm)) is not None:
                changes[group, arm.arm] = change_of(arm.change.n, contrast, len(judged))
        if family.detectable is not None:
            seen.append(family.detectable)
    return [replace(arm, change=changes.get((arm.group, arm.arm), arm.change)) for arm in arms], min(seen, default=None)


def with_effects(
    arms: Sequence[ComparedArm],
    one: Mapping[Place, Sequence[TrialRecord]],
    other: Mapping[Place, Sequence[TrialRecord]],
    metric: str,
    *,
    paired: bool,
    moderates: bool,
) -> tuple[list[ComparedArm], float | None]:
    """Give arms the change of their difference to the baseline, as between groups of one sweep; return as above.

    In each sweep seeds are blocks, so that what other seeds alone do to all arms is in no change.
    """
    judged: dict[str, dict[str, ComparedArm]] = {}
    for arm in arms:
        if arm.role.is_ablated and not arm.is_pruned and arm.first.n and arm.second.n:
            judged.setdefault(arm.group, {})[BASELINE if arm.role is Role.BASELINE else arm.arm] = arm
    judged = {
        group: of_group
        for group, of_group in judged.items()
        if BASELINE in of_group and len(of_group) > 1 and not all(arm.is_same for arm in of_group.values())
    }
    changes: dict[Place, Change] = {}
    seen = []
    for group, of_group in judged.items():
        own, its = (
            {name: values_of(of[group, arm.arm], metric) for name, arm in of_group.items()} for of in (one, other)
        )
        variances: Variances = "moderated" if moderates else "pooled"
        found, detectable = changes_of_effects(its, own, paired, variances, num_families=len(judged))
        changes |= {(group, name): change for name, change in found.items() if change.mean is not None}
        if detectable is not None:
            seen.append(detectable)
    return [replace(arm, effect=changes.get((arm.group, arm.arm))) for arm in arms], min(seen, default=None)
