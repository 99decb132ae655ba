"""What ``compare`` does: the arms of two sweeps side by side, and in what else the two differ.

Arms are the same where their text is, and that of their group where both sweeps have several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import measured_metrics
from orchestrator.reports.comparisons import BASELINE, Claims
from orchestrator.reports.environment import environment_of, read_environment
from orchestrator.reports.interactions import ERROR, Change, change_of, changes_of_effects
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.run_differences import RunDifference, find_run_differences
from orchestrator.statistics import Variances, differences_of_means, mean, sample_sd
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role
from specvit.errors import SpecsweepError
from specvit.messages import did_you_mean

Place = tuple[str, str]
"""Text of the group, empty where one of the sweeps has a single one, and text of the arm."""


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two sweeps.

    Attributes:
        target: What the user named.
        info: The sweep.
        records: Its trials.
        environment: Of the run that computed the newest ones; empty = not known.
        trainings: Returns by the id of a trial what decided its backbone, see ``training_id``; slow, and asks the
            ledger, if there is one, which must still be open.
    """

    target: str
    info: SweepInfo
    records: tuple[TrialRecord, ...]
    environment: Mapping[str, Any]
    trainings: Callable[[], Mapping[str, str]]


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


@dataclass(frozen=True)
class SweepComparison:
    """Two sweeps side by side.

    Attributes:
        metric: Name of the metric.
        alike: Whether trainings are configured alike, so that a seed means the same in both.
        paired: Whether seeds are compared with themselves: trainings are alike, and some arm has a seed in both.
        arms: What both have, in the order of the first.
        only_first: Texts of arms that the first alone has; of several groups ``group: arm``.
        only_second: Likewise.
        differences: In what else they differ.
        detectable: Change that would have been found with 80% probability, of groups the smallest; None if unknown.
        detectable_effect: The same of a change of an arm's difference to the baseline.
    """

    metric: str
    alike: bool
    paired: bool
    arms: tuple[ComparedArm, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    differences: tuple[RunDifference, ...]
    detectable: float | None
    detectable_effect: float | None


def read_side(ledger: Ledger, target: str) -> Side:
    """Read a sweep from its ledger, open for reading."""
    records, provenance = ledger.records(with_reports=False), ledger.newest_provenance()
    environment = {} if provenance is None else environment_of(provenance)
    return Side(target, ledger.sweep(), records, environment, cache(ledger.training_ids))


def read_study_side(folder: Path, target: str) -> Side:
    """Read a sweep from its files without its ledger, as those of a published study.

    Raises:
        SpecsweepError: If one of them cannot be read; the text names it.
    """
    data = SweepData.of_folder(folder)
    return Side(target, data.info, data.records, read_environment(folder), lambda: data.training_ids)


def compare_sweeps(first: Side, second: Side, metric: str | None = None) -> SweepComparison:
    """Compare two sweeps.

    Args:
        first: The one.
        second: The other, from which the first is subtracted.
        metric: Name of the metric; None = the first's primary one, among those that both have.

    Raises:
        SpecsweepError: If they have no metric, no group or no arm in common, or not the one that is named.
    """
    metric = _find_metric(first, second, metric)
    one, other = _by_place(first, second)
    shared = [place for place in one if place in other]
    if not shared:
        raise SpecsweepError(f"{first.target} and {second.target}: have no arm in common, so nothing can be compared")
    alike = all(_are_alike(first, second, one[place], other[place]) for place in shared)
    paired = alike and any(_values(one[each], metric).keys() & _values(other[each], metric).keys() for each in shared)
    cells = [_arm(place, one[place], other[place], metric, paired=paired) for place in shared]
    compared, detectable = _with_intervals(cells, one, other, metric, paired=paired)
    moderates = any(Claims.of(side.info).comparison.variance == "moderated" for side in (first, second))
    compared, seen = _with_effects(compared, one, other, metric, paired=paired, moderates=moderates)
    lists = [[_name(place) for place in of if place not in but] for of, but in ((one, other), (other, one))]
    records = tuple([record for place in shared for record in of[place]] for of in (one, other))
    differences = find_run_differences(
        (first.info, second.info), (records[0], records[1]), (first.environment, second.environment)
    )
    return SweepComparison(
        metric, alike, paired, tuple(compared), tuple(lists[0]), tuple(lists[1]), differences, detectable, seen
    )


def _find_metric(first: Side, second: Side, metric: str | None) -> str:
    """Return the metric to compare.

    Raises:
        SpecsweepError: If it, or any, is not in both.
    """
    measured = [measured_metrics(side.records) for side in (first, second)]
    common = [name for name in measured[0] if name in measured[1]]
    if not common:
        has = [", ".join(of) or "none" for of in measured]
        raise SpecsweepError(
            f"{first.target} and {second.target}: have no metric in common, so nothing can be compared; the first has "
            f"{has[0]}, the second {has[1]}"
        )
    if metric is None:
        ordered = [name for name in first.info.metrics if name in common] or common
        return Claims(first.info.primary_metric).primary_of(ordered)
    if metric not in common:
        known = ", ".join(common)
        hint = did_you_mean(metric, common)
        raise SpecsweepError(f"--metric: must be one that both sweeps have, {known}, not {metric!r}{hint}")
    return metric


def _by_place(first: Side, second: Side) -> tuple[dict[Place, list[TrialRecord]], dict[Place, list[TrialRecord]]]:
    """Return the trials of both by what they are matched by, in the order of the tables.

    Raises:
        SpecsweepError: If one has several groups and none of them is the other's only one.
    """
    groups = [dict.fromkeys(record.trial.group for record in side.records) for side in (first, second)]
    is_grouped = min(map(len, groups)) > 1
    return _places(first, second, is_grouped), _places(second, first, is_grouped)


def _places(side: Side, other: Side, is_grouped: bool) -> dict[Place, list[TrialRecord]]:
    records: Sequence[TrialRecord] = side.records
    groups = dict.fromkeys(record.trial.group for record in records)
    if len(groups) > 1 and not is_grouped:
        ids = {record.trial.group_id for record in other.records}
        records = [record for record in records if record.trial.group_id in ids]
        if not records:
            raise SpecsweepError(
                f"{side.target}: has the groups {'; '.join(groups)}, and none of them is configured as {other.target}, "
                "which has no groups, so nothing can be compared"
            )
    order = {group: number for number, group in enumerate(groups)}
    found: dict[Place, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda each: (order[each.trial.group], each.trial.role.rank)):
        found.setdefault((record.trial.group if is_grouped else "", record.trial.arm), []).append(record)
    return found


def _are_alike(first: Side, second: Side, one: Sequence[TrialRecord], other: Sequence[TrialRecord]) -> bool:
    """Return whether an arm's trainings are configured alike in both sweeps, seed by seed, on the same data."""
    of_other = {record.trial.seed: record.trial for record in other if record.state is State.DONE}
    for record in one:
        trial = record.trial
        twin = of_other.get(trial.seed)
        if twin is None or record.state is not State.DONE:
            continue
        prints = [_training_data(side, each.group_id) for side, each in ((first, trial), (second, twin))]
        if "" not in prints and prints[0] != prints[1]:
            return False
        if trial.trial_id != twin.trial_id:
            own, its = first.trainings().get(trial.trial_id), second.trainings().get(twin.trial_id)
            if own is None or own != its:
                return False
    return True


def _training_data(side: Side, group_id: str) -> str:
    """Return the fingerprint of what a group trains on, empty if it is not known; those of probes follow it."""
    return side.info.data_fingerprints.get(group_id, "").partition("+")[0]


def _values(records: Sequence[TrialRecord], metric: str) -> dict[int, float]:
    done = [record for record in records if record.state is State.DONE and metric in record.metrics]
    return {record.trial.seed: record.metrics[metric] for record in done}


def _arm(
    place: Place, one: Sequence[TrialRecord], other: Sequence[TrialRecord], metric: str, *, paired: bool
) -> ComparedArm:
    """Return an arm side by side, its change without an interval."""
    first, second = _values(one, metric), _values(other, metric)
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


def _with_intervals(
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
        values = [{arm.arm: _values(of[group, arm.arm], metric) for arm in of_group} for of in (other, one)]
        family = differences_of_means(values[0], values[1], paired=paired, confidence=1 - ERROR / len(judged))
        for arm in of_group:
            if (contrast := family.contrasts.get(arm.arm)) is not None:
                changes[group, arm.arm] = change_of(arm.change.n, contrast, len(judged))
        if family.detectable is not None:
            seen.append(family.detectable)
    return [replace(arm, change=changes.get((arm.group, arm.arm), arm.change)) for arm in arms], min(seen, default=None)


def _with_effects(
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
            {name: _values(of[group, arm.arm], metric) for name, arm in of_group.items()} for of in (one, other)
        )
        variances: Variances = "moderated" if moderates else "pooled"
        found, detectable = changes_of_effects(its, own, paired, variances, num_families=len(judged))
        changes |= {(group, name): change for name, change in found.items() if change.mean is not None}
        if detectable is not None:
            seen.append(detectable)
    return [replace(arm, effect=changes.get((arm.group, arm.arm))) for arm in arms], min(seen, default=None)


def _name(place: Place) -> str:
    group, arm = place
    return f"{group}: {arm}" if group else arm
