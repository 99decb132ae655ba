"""What a sweep could see before it is run: detectable differences, the seeds of a wanted one, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.noise import Noise, OtherSweeps, find_noise
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.shared_floors import find_followers
from orchestrator.storage.views import sweep_view
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.records import TrialRecord
from orchestrator.trials.trial import Role, Trial
from specvit.errors import SpecsweepError
from specvit.messages import did_you_mean

POWER = 0.8
"""Probability with which a detectable difference is found."""


@dataclass(frozen=True)
class MetricPower:
    """What a group could see in one metric.

    Attributes:
        metric: Its name.
        sd: Residual standard deviation of an arm's value within a seed, in the unit of the metric; where seeds are no
            blocks, within an arm.
        df: Degrees of freedom that it was measured with; None = it was given.
        source: Where it is from, human-readable.
        detectable: True difference of an arm to the baseline that is found with 80% probability, at a level that holds
            for all arms of the group; None with fewer than two seeds. Of the primary metric where seeds grow by looks:
            at a level that holds for all looks too, by simulation, arms that stop as futile among it.
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
        num_seeds: Seeds of an arm; where they grow, the most.
        least_seeds: Seeds from which on tables give verdicts; 0 where nothing is known of the noise.
        groups: Those that have an arm beside the baseline, in the order of the sweep.
        core_hours_per_seed: CPU time of all trials of a seed; None if it is not known.
        grows: Whether seeds grow, so that ``num_seeds`` is the most.
        by_looks: Whether they grow by looks, which the detectable difference of the primary metric takes account of;
            all others are those of the most seeds, run at once.
        num_trials: Trials; where seeds grow, the most.
        expected_trials: Trials that run on average where no arm has an effect; None where seeds do not grow.
    """

    primary: str
    num_seeds: int
    least_seeds: int
    groups: tuple[GroupPower, ...]
    core_hours_per_seed: float | None
    grows: bool = False
    by_looks: bool = False
    num_trials: int = 0
    expected_trials: float | None = None

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
            "by_looks": self.by_looks,
            "expected_trials": self.expected_trials,
            "groups": [asdict(group) for group in self.groups],
            "seeds_to_find": more,
            "core_hours": self.core_hours(self.num_seeds),
            "core_hours_to_find": None if more is None else self.core_hours(more),
        }


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
    recipe, scale and data; of several, the one with the most of the sweep's arms, of equals the one with the most
    degrees of freedom. Sweeps that cannot be read are passed over, with a warning.

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
    noise, timed = find_noise(groups, sweep_view(results_root, sweep.name), others, metrics, sweep.file.comparison)
    for group in groups:
        noise[group] |= {name: Noise(sd, None, "--sd") for name, sd in (sds or {}).items()}
    seeds = len(sweep.seeds) if num_seeds is None else num_seeds
    primary, least_seeds = "", 0
    if any(noise.values()):
        primary, least_seeds = _rules(sweep, metrics)
        metrics.sort(key=lambda name: name != primary)
    wanted = sweep.file.smallest_effect | dict(effects or {})
    growth = sweep.growth if num_seeds is None else None
    by_looks = growth if growth is not None and growth.method == "sequential" else None
    return SweepPower(
        primary=primary,
        num_seeds=seeds,
        least_seeds=least_seeds,
        groups=tuple(
            GroupPower(
                group=of_group[0].group,
                num_arms=arms[group],
                metrics=tuple(
                    _power(
                        name, noise[group][name], (arms[group], seeds), wanted.get(name), least_seeds, sweep,
                        by_looks if name == primary else None,
                    )
                    for name in metrics
                    if name in noise[group]
                ),
            )
            for group, of_group in groups.items()
        ),
        core_hours_per_seed=_core_hours(trials, timed, len(sweep.baseline_seeds) / len(sweep.seeds)),
        grows=growth is not None,
        by_looks=by_looks is not None,
        num_trials=len(trials),
        expected_trials=None if growth is None else expected_trials(sweep, trials),
    )


def expected_trials(sweep: Sweep, trials: Sequence[Trial]) -> float | None:
    """Return how many trials of a sweep whose seeds grow run on average where no arm has an effect; None of others."""
    if sweep.growth is None:
        return None
    from orchestrator.reports import growth  # not at the top: it imports NumPy

    one_an_arm = {trial.arm_id: trial for trial in trials if trial.role is Role.ARM}
    arms = Counter(trial.group_id for trial in one_an_arm.values())
    others = sum(trial.role not in (Role.BASELINE, Role.ARM, Role.CONTROL) for trial in trials)
    first = sweep.seeds[0]
    controls = Counter(trial.group_id for trial in trials if trial.role is Role.CONTROL and trial.seed == first)
    return others + sum(
        growth.expected_trials(num_arms, sweep.growth, num_controls=controls[group]) for group, num_arms in arms.items()
    )


def _rules(sweep: Sweep, metrics: Sequence[str]) -> tuple[str, int]:
    """Return the primary metric, and the seeds from which on there are verdicts. What it imports loads numpy."""
    from orchestrator.reports.comparisons import Claims
    from orchestrator.statistics import LEAST_SEEDS

    return Claims(sweep.file.primary_metric or sweep.file.pruning.metric or "").primary_of(metrics), LEAST_SEEDS


def _power(
    name: str,
    noise: Noise,
    size: tuple[int, int],
    wanted: float | None,
    least_seeds: int,
    sweep: Sweep,
    growth: GrowingSeeds | None,
) -> MetricPower:
    """Return what is seen with so many arms and seeds; the baseline has more of them in the proportion of the file."""
    from orchestrator.statistics import Design, design_looks, detectable_by_looks, seeds_to_find

    num_arms, num_seeds = size
    is_blocked = sweep.file.comparison.model == "blocked"
    least = max(2, num_seeds)
    base = None if is_blocked else round(least * len(sweep.baseline_seeds) / len(sweep.seeds))
    design = Design(num_arms, least, noise.sd, blocks=is_blocked, num_baseline_seeds=base)
    detectable = design.detectable(POWER) if num_seeds >= 2 else None
    if growth is not None:
        looks = design_looks(growth.all_looks, num_arms)
        detectable = detectable_by_looks(looks, sd=noise.sd, power=POWER, seek=growth.seek or "both")
    found = None if wanted is None else seeds_to_find(wanted, design, power=POWER)
    return MetricPower(
        metric=name,
        sd=noise.sd,
        df=noise.df,
        source=noise.source,
        detectable=detectable,
        wanted=wanted,
        seeds_to_find=None if found is None else max(found, least_seeds),
    )


def _core_hours(trials: Sequence[Trial], timed: Sequence[TrialRecord], baseline: float) -> float | None:
    """Return the core-hours of a seed's trials, a baseline counted so often; None if one of them is not known."""
    durations = TrialDurations(replace(record, seconds=record.core_seconds) for record in timed)
    first = [trial for trial in trials if trial.seed == trials[0].seed]
    to_run, _ = find_followers(first, first)
    total = 0.0
    for trial in to_run:
        seconds = durations.estimate(trial.group_id, trial.role, trial.arm_id)
        if seconds is None:
            return None
        total += seconds * (baseline if trial.role is Role.BASELINE else 1.0)
    return total / 3600
