"""What a sweep could see before it is run: detectable differences, the seeds of a wanted one, and what they cost."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.shared_floors import find_followers
from orchestrator.storage.views import folder_names, sweep_view
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import TrialRecord
from orchestrator.trials.trial import Role, Trial
from specvit.errors import SpecsweepError
from specvit.messages import did_you_mean

_LOG = logging.getLogger(__name__)

POWER = 0.8
"""Probability with which a detectable difference is found."""


@dataclass(frozen=True)
class MetricPower:
    """What a group could see in one metric.

    Attributes:
        metric: Its name.
        sd: Residual standard deviation of an arm's value within a seed, in the unit of the metric.
        df: Degrees of freedom that it was measured with; None = it was given.
        source: Where it is from, human-readable.
        detectable: True difference of an arm to the baseline that is found with 80% probability, at a level that holds
            for all arms of the group; None with fewer than two seeds.
        wanted: The difference that is to be found; None = none is named.
        seeds_to_find: Seeds with which it is found with 80% probability, no fewer than a verdict takes; None of no
            wanted difference, or if 10,000 do not suffice.
    """

    metric: str
    sd: float
    df: int | None
    source: str
    detectable: float | None
    wanted: float | None
    seeds_to_find: int | None


@dataclass(frozen=True)
class GroupPower:
    """What a group could see.

    Attributes:
        group: Text of the group.
        num_arms: Arms beside the baseline.
        metrics: Of the metrics whose noise is known, the primary one first.
    """

    group: str
    num_arms: int
    metrics: tuple[MetricPower, ...]


@dataclass(frozen=True)
class SweepPower:
    """What a sweep could see.

    Attributes:
        primary: The primary metric; empty where nothing is known of the noise.
        num_seeds: Seeds of an arm; where they grow, the most, taken to be run at once.
        least_seeds: Seeds from which on tables give verdicts; 0 where nothing is known of the noise.
        groups: Those that have an arm beside the baseline, in the order of the sweep.
        core_hours_per_seed: CPU time of all trials of a seed; None if it is not known.
        grows: Whether seeds grow by looks, which cost some power and spare trials.
    """

    primary: str
    num_seeds: int
    least_seeds: int
    groups: tuple[GroupPower, ...]
    core_hours_per_seed: float | None
    grows: bool = False

    @property
    def is_known(self) -> bool:
        """Return whether the noise of some group is known."""
        return any(group.metrics for group in self.groups)

    @property
    def seeds_to_find(self) -> int | None:
        """Return the seeds with which every wanted difference is found; None if there is none, or too many."""
        counts = [each.seeds_to_find for group in self.groups for each in group.metrics if each.wanted is not None]
        return None if not counts or None in counts else max(count for count in counts if count is not None)

    def core_hours(self, num_seeds: int) -> float | None:
        """Return the CPU time of all trials with some seeds."""
        return None if self.core_hours_per_seed is None else self.core_hours_per_seed * num_seeds

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        more = self.seeds_to_find
        return {
            "power": POWER,
            "primary": self.primary or None,
            "seeds": self.num_seeds,
            "seeds_grow": self.grows,
            "groups": [asdict(group) for group in self.groups],
            "seeds_to_find": more,
            "core_hours": self.core_hours(self.num_seeds),
            "core_hours_to_find": None if more is None else self.core_hours(more),
        }


@dataclass(frozen=True)
class _Noise:
    """The noise of a metric, as in ``MetricPower``."""

    sd: float
    df: int | None
    source: str


@dataclass(frozen=True)
class OtherSweep:
    """A sweep under the same results folder.

    Attributes:
        name: Of its folder.
        by_group: The records of its trials, by id of the group.
        configs: Of each of these groups the configuration of a trial, as it is stored.
    """

    name: str
    by_group: Mapping[str, Sequence[TrialRecord]]
    configs: Mapping[str, Mapping[str, Any]]


class OtherSweeps:
    """The other sweeps under a results folder, which are read once, and only if they are asked for."""

    def __init__(self, results_root: str | Path, name: str) -> None:
        """Take the folder and the name of the sweep that is not asked for."""
        self._results_root = results_root
        self._name = name

    @cached_property
    def found(self) -> tuple[OtherSweep, ...]:
        """Return those that can be read, by name; of each other one a warning tells."""
        return tuple(self._read())

    def _read(self) -> Iterator[OtherSweep]:
        for name in folder_names(self._results_root):
            try:
                view = None if name == self._name else sweep_view(self._results_root, name)
                if view is not None:
                    yield OtherSweep(name, *_read(view))
            except (SpecsweepError, OSError) as error:
                _LOG.warning("%s: times and noise of its trials are not used, for it cannot be read: %s", name, error)


def measure_power(
    sweep: Sweep,
    trials: Sequence[Trial],
    *,
    results_root: str | Path,
    num_seeds: int | None = None,
    effects: Mapping[str, float] | None = None,
    sds: Mapping[str, float] | None = None,
    others: OtherSweeps | None = None,
) -> SweepPower:
    """Return what a sweep could see, from noise that was measured.

    A group's noise is what was given, or else measured in the sweep's own ledger (two seeds of the baseline and an arm
    suffice), or else in another sweep under the same results folder: in the same group, or else in one of the same
    recipe, scale and data; of several, the one with the most degrees of freedom. Sweeps that cannot be read are passed
    over, with a warning.

    Args:
        sweep: The sweep.
        trials: Its trials.
        results_root: Folder that holds one folder per sweep, a path or a URL.
        num_seeds: Seeds of an arm; None = as the file says.
        effects: Differences that are to be found, by metric; for others the smallest effects that the file declares.
        sds: Residual standard deviations, by metric, in place of measured ones.
        others: The other sweeps under that folder; None = they are read here.

    Raises:
        SpecsweepError: If the sweep has no such metric, or its ledger cannot be read.
    """
    metrics = [metric.name for probe in sweep.file.probes for metric in probe.metrics]
    named = [("--effect", name) for name in effects or {}] + [("--sd", name) for name in sds or {}]
    for option, name in named:
        if name not in metrics:
            known = f"a metric of the sweep's probes ({', '.join(metrics)})"
            raise SpecsweepError(f"{option}: must name {known}, not {name!r}{did_you_mean(name, metrics)}")
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.group_id, []).append(trial)
    arms = {group: len({t.arm_id for t in of_group if t.role is Role.ARM}) for group, of_group in groups.items()}
    groups = {group: of_group for group, of_group in groups.items() if arms[group]}
    others = OtherSweeps(results_root, sweep.name) if others is None else others
    noise, timed = _find_noise(groups, sweep_view(results_root, sweep.name), others, metrics)
    for group in groups:
        noise[group] |= {name: _Noise(sd, None, "--sd") for name, sd in (sds or {}).items()}
    seeds = len(sweep.seeds) if num_seeds is None else num_seeds
    primary, least_seeds = "", 0
    if any(noise.values()):
        primary, least_seeds = _rules(sweep, metrics)
        metrics.sort(key=lambda name: name != primary)
    wanted = sweep.file.smallest_effect | dict(effects or {})
    return SweepPower(
        primary=primary,
        num_seeds=seeds,
        least_seeds=least_seeds,
        groups=tuple(
            GroupPower(
                group=of_group[0].group,
                num_arms=arms[group],
                metrics=tuple(
                    _power(name, noise[group][name], arms[group], seeds, wanted.get(name), least_seeds)
                    for name in metrics
                    if name in noise[group]
                ),
            )
            for group, of_group in groups.items()
        ),
        core_hours_per_seed=_core_hours(trials, timed),
        grows=sweep.growth is not None and num_seeds is None,
    )


def _rules(sweep: Sweep, metrics: Sequence[str]) -> tuple[str, int]:
    """Return the primary metric, and the seeds from which on there are verdicts. What it imports loads numpy."""
    from orchestrator.reports.comparisons import Claims
    from orchestrator.statistics import LEAST_SEEDS

    return Claims(sweep.file.primary_metric or sweep.file.pruning.metric or "").primary_of(metrics), LEAST_SEEDS


def _power(
    name: str, noise: _Noise, num_arms: int, num_seeds: int, wanted: float | None, least_seeds: int
) -> MetricPower:
    from orchestrator.statistics import Design, seeds_to_find

    design = Design(num_arms, max(2, num_seeds), noise.sd)
    found = None if wanted is None else seeds_to_find(wanted, design, power=POWER)
    return MetricPower(
        metric=name,
        sd=noise.sd,
        df=noise.df,
        source=noise.source,
        detectable=design.detectable(POWER) if num_seeds >= 2 else None,
        wanted=wanted,
        seeds_to_find=None if found is None else max(found, least_seeds),
    )


def _find_noise(
    groups: Mapping[str, Sequence[Trial]], own: Path | None, others: OtherSweeps, metrics: Sequence[str]
) -> tuple[dict[str, dict[str, _Noise]], list[TrialRecord]]:
    """Return the noise that was measured, by group and metric, and the records that tell how long trials take."""
    noise: dict[str, dict[str, _Noise]] = {group: {} for group in groups}
    timed: list[TrialRecord] = []
    if own is not None:
        mine = _read(own)[0]
        timed = [record for of_group in mine.values() for record in of_group]
        noise |= {group: _measure(mine.get(group, ()), metrics, "this sweep") for group in groups}
    unknown = [group for group in groups if not noise[group]]
    alike: dict[str, dict[str, _Noise]] = defaultdict(dict)
    timed_alike: list[TrialRecord] = []
    wanted = {group: json.loads(to_json(groups[group][0].config)) for group in unknown}
    for sweep in others.found if unknown else ():
        by_group = sweep.by_group
        for group in unknown:
            if group in by_group:
                timed += by_group[group]
                _add(noise[group], _measure(by_group[group], metrics, f"sweep {sweep.name}, the same group"))
            for other, config in sweep.configs.items():
                if other != group and _is_alike(wanted[group], config, groups[group][0].config.data.path_fields):
                    timed_alike += by_group[other]
                    what = f"sweep {sweep.name}, the same recipe, scale and data"
                    _add(alike[group], _measure(by_group[other], metrics, what))
    for group in unknown:
        noise[group] = noise[group] or alike[group]
    return noise, timed or timed_alike


def _add(known: dict[str, _Noise], found: Mapping[str, _Noise]) -> None:
    """Keep of each metric the noise with the most degrees of freedom, of equals the first."""
    for name, each in found.items():
        if name not in known or (each.df or 0) > (known[name].df or 0):
            known[name] = each


def _read(view: Path) -> tuple[dict[str, list[TrialRecord]], dict[str, Mapping[str, Any]]]:
    """Return the records of a ledger by group, and of each such group the configuration of a trial, as it is stored."""
    by_group: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    with Ledger.read(view / LEDGER_NAME) as ledger:
        for record in ledger.records(with_reports=False):
            by_group[record.trial.group_id].append(record)
        configs = ledger.group_configs()
    return dict(by_group), {group: config for group, config in configs.items() if group in by_group}


def _measure(records: Iterable[TrialRecord], metrics: Sequence[str], source: str) -> dict[str, _Noise]:
    """Return the noise of a group's records, by metric; nothing without two seeds of the baseline and an arm."""
    by_arm: dict[str, list[TrialRecord]] = {}
    for record in records:
        by_arm.setdefault(record.trial.arm_id, []).append(record)
    if not any(record.metrics for of_arm in by_arm.values() for record in of_arm):
        return {}
    from orchestrator.reports.comparisons import Claims, compare_group

    found = compare_group(by_arm, metrics, Claims()).by_metric
    return {
        name: _Noise(comparison.sd, comparison.model.df, source)
        for name, comparison in found.items()
        if comparison.sd  # a metric that never varies says nothing of one that will
    }


def _is_alike(wanted: Mapping[str, Any], stored: Mapping[str, Any], paths: Collection[str]) -> bool:
    """Return whether two configurations have one recipe, scale and data; these may lie elsewhere, by ``paths``."""
    try:
        named = (("objective", "recipe"), ("model", "scale"))
        data: Mapping[str, Any] = stored["data"]
        return all(wanted[part][name] == stored[part][name] for part, name in named) and all(
            wanted["data"].get(name) == value for name, value in data.items() if name not in paths
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _core_hours(trials: Sequence[Trial], timed: Sequence[TrialRecord]) -> float | None:
    """Return the core-hours of a seed's trials; None if one of them is not known."""
    durations = TrialDurations(replace(record, seconds=record.core_seconds) for record in timed)
    first = [trial for trial in trials if trial.seed == trials[0].seed]
    to_run, _ = find_followers(first, first)
    seconds = [durations.estimate(trial.group_id, trial.role, trial.arm_id) for trial in to_run]
    known = [each for each in seconds if each is not None]
    return sum(known) / 3600 if len(known) == len(seconds) else None
