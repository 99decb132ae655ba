"""From runs to numbers: how noisy a setting is, what it can find, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.statistics.paired import Difference, mean, paired_difference, sample_sd
from orchestrator.statistics.power import seeds_for_difference
from orchestrator.statistics.spread import VarianceComponents, correlation, sd_interval, variance_components

from .arms import BASELINE, CONTROLS, REAL, TWINS
from .detection import LEAST_SEEDS, MOST_SEEDS, NUM_CONTRASTS, model_rate, resampled_rates
from .records import Run, by_arm

WANTED = 2.0
"""The true difference that a verdict is to find, in points."""
POWER = 0.8
NUM_ARMS = NUM_CONTRASTS + 1

ByArm = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Cost:
    """What a verdict takes.

    Attributes:
        seeds: Seeds, the smallest whole number that suffices; infinite if a million do not.
        core_hours: Of all arms with so many seeds.
        exact_seeds: Seeds, interpolated between whole numbers, so that settings compare smoothly.
        exact_core_hours: Of all arms with these.
    """

    seeds: float
    core_hours: float
    exact_seeds: float
    exact_core_hours: float


@dataclass(frozen=True)
class Effect:
    """An arm's difference to the baseline, and how often the design of a verdict would find it.

    Attributes:
        difference: Over the seeds that both have, with Student's t interval.
        detected: Share of the designs, in [0, 1]; None where it cannot be known.
        is_resampled: Whether the share comes from resampled seeds; else from the normal model.
    """

    difference: Difference
    detected: float | None
    is_resampled: bool


@dataclass(frozen=True)
class MetricNoise:
    """A metric in a setting; a number is None where there are too few seeds for it.

    Attributes:
        metric: Its name.
        num_pairs: Seeds that baseline and real arm both have.
        baseline_mean: Mean of the baseline.
        sd_seeds: Standard deviation over the seeds within an arm, pooled over baseline and real arm.
        sd_difference: That of the real arm's difference to the baseline within a seed.
        sd_low: Lower end of its 95% interval.
        sd_high: Upper end of it.
        seed_correlation: Of baseline and real arm over the seeds.
        twin_rms: Root mean square of twin minus run.
        repeat_correlation: Of the real arm's difference in first runs and in repeats.
        effects: By arm: the A/A arm, the real arm, the controls.
        cost: Of a verdict; and at either end of the interval of ``sd_difference``.
        probes: Noise of the probes: rows are training draws, columns validation blocks.
        sd_probe_seeds: Standard deviation over seeds of the probe.
    """

    metric: str
    num_pairs: int
    baseline_mean: float | None
    sd_seeds: float | None
    sd_difference: float | None
    sd_low: float | None
    sd_high: float | None
    seed_correlation: float | None
    twin_rms: float | None
    repeat_correlation: float | None
    effects: Mapping[str, Effect]
    cost: Cost | None
    cost_low: Cost | None
    cost_high: Cost | None
    probes: VarianceComponents | None
    sd_probe_seeds: float | None


@dataclass(frozen=True)
class SettingNoise:
    """A setting.

    Attributes:
        name: Its name.
        why: Why it is measured.
        num_runs: Runs that are recorded.
        errors: Arm, seed and text of those that failed.
        training_core_s: Mean CPU seconds of the pretraining of baseline, real arm and their repeats.
        probes_core_s: The same of their probes.
        distances: By step, median and largest relative distance of twins.
        metrics: A row a metric.
    """

    name: str
    why: str
    num_runs: int
    errors: Sequence[tuple[str, int, str]]
    training_core_s: float | None
    probes_core_s: float | None
    distances: Mapping[int, tuple[float, float]]
    metrics: Sequence[MetricNoise]


def analyse(name: str, why: str, runs: Sequence[Run], probe_noise: Mapping[str, Any] | None) -> SettingNoise:
    """Analyse the runs of a setting.

    Args:
        name: The setting's name.
        why: Why it is measured.
        runs: Its runs.
        probe_noise: Its record of the probes' noise, if there is one.
    """
    timed = [run for run in runs if run.arm not in CONTROLS and not run.error]
    training, probes = mean([run.training_core_s for run in timed]), mean([run.probes_core_s for run in timed])
    core_s = None if training is None or probes is None else training + probes
    names = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    return SettingNoise(
        name=name,
        why=why,
        num_runs=len(runs),
        errors=[(run.arm, run.seed, run.error) for run in runs if run.error],
        training_core_s=training,
        probes_core_s=probes,
        distances=twin_distances(runs),
        metrics=[_metric(metric, by_arm(runs, metric), core_s, probe_noise or {}) for metric in names],
    )


def twin_distances(runs: Iterable[Run]) -> dict[int, tuple[float, float]]:
    """Return median and largest distance of twins by step, over arms and seeds."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for step, distance in run.distance.items():
            found.setdefault(step, []).append(distance)
    return {step: (float(np.median(values)), max(values)) for step, values in sorted(found.items())}


def verdict_cost(sd_difference: float, core_s: float) -> Cost:
    """Compute what it takes to find 2 points among ten arms, with 80% power at 5% family-wise error.

    Args:
        sd_difference: Standard deviation of a difference within a seed, in points.
        core_s: CPU seconds of a trial.
    """
    exact = seeds_for_difference(WANTED, sd_difference=sd_difference, num_contrasts=NUM_CONTRASTS, power=POWER)
    whole = max(2.0, math.ceil(exact - 1e-3)) if math.isfinite(exact) else exact
    hours_a_seed = NUM_ARMS * core_s / 3600
    return Cost(whole, whole * hours_a_seed, exact, exact * hours_a_seed)


def twin_rms(values: ByArm) -> float | None:
    """Return the root mean square of twin minus run, over the twins and seeds that have both; None without any."""
    squares = [
        (values[twin][seed] - values[run][seed]) ** 2
        for twin, run in TWINS.items()
        for seed in values.get(twin, {}).keys() & values.get(run, {}).keys()
    ]
    return math.sqrt(sum(squares) / len(squares)) if squares else None


def repeat_correlation(values: ByArm) -> float | None:
    """Correlate the differences to the baseline in first runs with those in the repeats, over arms and seeds."""
    repeat_of = {run: twin for twin, run in TWINS.items()}
    first, again = [], []
    for arm, twin in repeat_of.items():
        four = [values.get(name, {}) for name in (arm, BASELINE, twin, repeat_of[BASELINE])]
        if arm == BASELINE:
            continue
        for seed in sorted(set.intersection(*(set(of_arm) for of_arm in four))):
            arm_value, baseline, arm_again, baseline_again = (of_arm[seed] for of_arm in four)
            first.append(arm_value - baseline)
            again.append(arm_again - baseline_again)
    return correlation(first, again)


def _metric(metric: str, values: ByArm, core_s: float | None, probe_noise: Mapping[str, Any]) -> MetricNoise:
    baseline, real = values.get(BASELINE, {}), values.get(REAL, {})
    seeds = sorted(baseline.keys() & real.keys())
    pairs = [[of_arm[seed] for seed in seeds] for of_arm in (baseline, real)]
    sds = [sd for of_arm in (baseline, real) if (sd := sample_sd(list(of_arm.values()))) is not None]
    sd_difference = sample_sd([b - a for a, b in zip(*pairs, strict=True)])
    low = high = None
    costs: list[Cost | None] = [None] * 3
    if sd_difference is not None:
        low, high = sd_interval(sd_difference, len(seeds) - 1)
        if core_s is not None:
            costs = [verdict_cost(sd, core_s) for sd in (sd_difference, low, high)]
    table, by_probe_seed = (probe_noise.get(part, {}).get(metric) for part in ("tables", "by_probe_seed"))
    return MetricNoise(
        metric=metric,
        num_pairs=len(seeds),
        baseline_mean=mean(list(baseline.values())),
        sd_seeds=math.sqrt(sum(sd**2 for sd in sds) / len(sds)) if sds else None,
        sd_difference=sd_difference,
        sd_low=low,
        sd_high=high,
        seed_correlation=correlation(*pairs),
        twin_rms=twin_rms(values),
        repeat_correlation=repeat_correlation(values),
        effects=_effects(values, sd_difference, costs[0]),
        cost=costs[0],
        cost_low=costs[1],
        cost_high=costs[2],
        probes=None if table is None else variance_components(table),
        sd_probe_seeds=None if by_probe_seed is None else sample_sd(by_probe_seed),
    )


def _effects(values: ByArm, sd_difference: float | None, cost: Cost | None) -> dict[str, Effect]:
    baseline = values.get(BASELINE, {})
    judged = {arm: values[arm] for arm in ("repeat", REAL, *CONTROLS) if arm in values}
    # Repeats stay out of the pool: in a smooth recipe they are the run again, and no measure of an arm's noise.
    pooled = [arm for arm in (REAL, *CONTROLS) if arm in values]
    common = sorted(set(baseline).intersection(*judged.values())) if judged else []
    num_seeds = None if cost is None or not math.isfinite(cost.seeds) else int(cost.seeds)
    resampled: dict[str, float] = {}
    if num_seeds is not None and num_seeds <= MOST_SEEDS and len(common) >= LEAST_SEEDS:
        arrays = {arm: np.array([of_arm[seed] for seed in common]) for arm, of_arm in judged.items()}
        resampled = resampled_rates(
            np.array([baseline[seed] for seed in common]),
            arrays,
            [arrays[arm] for arm in pooled],
            num_seeds=num_seeds,
        )
    effects = {}
    for arm, of_arm in judged.items():
        difference, detected = paired_difference(of_arm, baseline), resampled.get(arm)
        if arm not in resampled and num_seeds is not None and sd_difference is not None and difference.mean is not None:
            rate = model_rate(difference.mean, sd_difference=sd_difference, num_seeds=num_seeds)
            detected = rate if math.isfinite(rate) else None
        effects[arm] = Effect(difference, detected, arm in resampled)
    return effects
