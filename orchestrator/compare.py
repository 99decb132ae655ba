"""What ``compare`` does: the arms of two sweeps side by side, and in what else the two differ.

Arms are the same where their text is, and that of their group where both sweeps have several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.registration import SweepInfo
from orchestrator.reports.ablation_table import measured_metrics
from orchestrator.reports.comparisons import Claims
from orchestrator.reports.environment import environment_of, read_environment
from orchestrator.reports.per_trial.sweep_data import SweepData
from orchestrator.reports.run_differences import RunDifference, find_run_differences
from orchestrator.reports.side_by_side import (
    ComparedArm,
    Place,
    compared_arm,
    values_of,
    with_effects,
    with_intervals,
)
from orchestrator.trials.records import State, TrialRecord
from specvit.errors import SpecsweepError
from specvit.messages import did_you_mean


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
    seeds = [(values_of(one[place], metric).keys(), values_of(other[place], metric).keys()) for place in shared]
    paired = alike and any(own & its for own, its in seeds)
    cells = [compared_arm(place, one[place], other[place], metric, paired=paired) for place in shared]
    compared, detectable = with_intervals(cells, one, other, metric, paired=paired)
    moderates = any(Claims.of(side.info).comparison.variance == "moderated" for side in (first, second))
    compared, seen = with_effects(compared, one, other, metric, paired=paired, moderates=moderates)
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


def _name(place: Place) -> str:
    group, arm = place
    return f"{group}: {arm}" if group else arm
