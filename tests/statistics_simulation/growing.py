"""Sweeps that grow: declared looks with and without arms that drop out, and screening with confirmation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.statistics.decisions import Action, decide, follow
from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.looks import LookDesign, Spending, design_looks
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds

from .fixed import as_values
from .settings import Array, Setting

LOOKS = GrowingSeeds().all_looks
_MIDDLE = LOOKS.index(8)
SCREENED = 4
SCREEN_LEVEL = 0.3
_FOUND = [place for place, action in enumerate(Action) if action in (Action.BETTER, Action.WORSE)]
_EQUIVALENT = list(Action).index(Action.EQUIVALENT)


@dataclass(frozen=True)
class GrowingResult:
    """Rates over the sweeps of a setting, in [0, 1].

    Attributes:
        wrong: Some arm is better or worse at some look though none differs.
        wrong_equivalent: Some arm is equivalent at some look though all differ by just the smallest effect.
        trials: Mean share of the trials of the last look that are run where no arm differs, futile arms stopped.
        power_fixed: An arm that differs by what the fixed design with the last look's seeds finds in 80% is found,
            without stopping for futility.
        power: The same with it.
        trials_of_two: Mean share of the trials where two arms differ by 2 standard deviations of a difference.
        wrong_dropping: As ``wrong``, through ``decide``, with arms that get no more seeds once they stop; nan where it
            was not simulated.
    """

    wrong: float
    wrong_equivalent: float
    trials: float
    power_fixed: float
    power: float
    trials_of_two: float
    wrong_dropping: float


def simulate_looks_of(
    setting: Setting, spending: Spending, num_sweeps: int, num_dropping: int, seed: int
) -> GrowingResult:
    """Simulate the default looks, from 4 to 16 seeds."""
    rng = np.random.default_rng(seed)
    design = design_looks(LOOKS, setting.num_arms, spending=spending)
    values = replace(setting, num_seeds=LOOKS[-1]).draw(num_sweeps, rng)
    estimates, variances = at_looks(values)
    sd = math.sqrt(float(variances[-1].mean()))
    ends, stops = follow(design, estimates, variances)
    all_trials = (setting.num_arms + 1) * LOOKS[-1]
    effect = 2.5 * design.critical[_MIDDLE] * sd * math.sqrt(2 / LOOKS[_MIDDLE])
    alike, _ = follow(design, estimates + effect, variances, smallest_effect=effect)
    wanted = _detectable(setting.num_arms, LOOKS[-1], sd)
    powers = []
    for futile_below in (0.0, 0.1):
        moved = estimates.copy()
        moved[:, :, 0] += wanted
        first = follow(design, moved, variances, futile_below=futile_below)[0][:, 0]
        powers.append(float(np.isin(first, _FOUND).mean()))
    moved = estimates.copy()
    moved[:, :, :2] += 2 * math.sqrt(2) * sd
    _, stops_of_two = follow(design, moved, variances)
    return GrowingResult(
        wrong=float(np.isin(ends, _FOUND).any(axis=1).mean()),
        wrong_equivalent=float((alike == _EQUIVALENT).any(axis=1).mean()),
        trials=_trials(stops) / all_trials,
        power_fixed=powers[0],
        power=powers[1],
        trials_of_two=_trials(stops_of_two) / all_trials,
        wrong_dropping=_dropping(setting, design, values[:num_dropping]) if num_dropping else math.nan,
    )


def at_looks(values: Array) -> tuple[Array, Array]:
    """Return ``(J, B, k)`` differences and ``(J, B)`` residual variances at the looks of ``(B, A, n)`` values."""
    estimates, variances = [], []
    for look in LOOKS:
        seen = values[:, :, :look]
        means = seen.mean(axis=2)
        residuals = seen - means[..., None] - seen.mean(axis=1, keepdims=True) + seen.mean(axis=(1, 2), keepdims=True)
        estimates.append(means[:, 1:] - means[:, :1])
        variances.append((residuals**2).sum(axis=(1, 2)) / ((values.shape[1] - 1) * (look - 1)))
    return np.array(estimates), np.array(variances)


def simulate_confirmation(setting: Setting, num_fresh: int, num_sweeps: int, seed: int) -> tuple[float, float]:
    """Screen on 4 seeds, confirm on fresh ones.

    Returns:
        How often an arm is better or worse though none differs, and the mean number of arms that are confirmed.
    """
    rng = np.random.default_rng(seed)
    values = replace(setting, num_seeds=SCREENED + num_fresh).draw(num_sweeps, rng)
    chosen = _screened(values[:, :, :SCREENED])
    fresh = values[:, :, SCREENED:]
    # The model of the chosen arms and the baseline alone: means over seeds of these.
    kept = np.concatenate([np.ones((num_sweeps, 1)), chosen], axis=1)
    means = fresh.mean(axis=2)
    of_seeds = (kept[..., None] * fresh).sum(axis=1) / kept.sum(axis=1)[:, None]
    of_all = of_seeds.mean(axis=1)
    residuals = kept[..., None] * (fresh - means[..., None] - of_seeds[:, None] + of_all[:, None, None])
    counts = chosen.sum(axis=1).astype(int)
    df = np.maximum(counts, 1) * (num_fresh - 1)
    errors = np.sqrt(2 * (residuals**2).sum(axis=(1, 2)) / df / num_fresh)
    by_count = [dunnett_critical(k, k * (num_fresh - 1)) for k in range(1, setting.num_arms + 1)]
    criticals = np.array([0.0, *by_count])  # an arm that is not confirmed has no size
    sizes = np.abs(means[:, 1:] - means[:, :1]) * chosen
    return float((sizes.max(axis=1) > criticals[counts] * errors).mean()), float(counts.mean())


def _screened(values: Array) -> Array:
    from scipy.special import stdtr

    num_seeds, num_arms = values.shape[2], values.shape[1] - 1
    means = values.mean(axis=2)
    residuals = values - means[..., None] - values.mean(axis=1, keepdims=True) + values.mean(axis=(1, 2), keepdims=True)
    df = num_arms * (num_seeds - 1)
    errors = np.sqrt(2 * (residuals**2).sum(axis=(1, 2)) / df / num_seeds)
    return (2 * stdtr(df, -np.abs(means[:, 1:] - means[:, :1]) / errors[:, None]) <= SCREEN_LEVEL).astype(np.float64)


def _detectable(num_arms: int, num_seeds: int, sd: float) -> float:
    from orchestrator.statistics.design import Design

    return Design(num_arms, num_seeds, sd).detectable()


def _trials(stops: np.ndarray) -> float:
    """Return the mean trials: the baseline runs as long as any arm."""
    return float((stops.sum(axis=1) + stops.max(axis=1)).mean())


def _dropping(setting: Setting, design: LookDesign, values: Array) -> float:
    wrong = 0
    for table in values:
        seen = np.zeros(table.shape, dtype=bool)
        open_arms = [str(arm) for arm in range(1, setting.num_arms + 1)]
        for look in LOOKS:
            seen[[0, *map(int, open_arms)], :look] = True
            decisions = decide(design, look, as_values(table, seen), baseline="0", arms=open_arms)
            if any(decision.action in (Action.BETTER, Action.WORSE) for decision in decisions.values()):
                wrong += 1
                break
            open_arms = [arm for arm, decision in decisions.items() if decision.action is Action.CONTINUE]
            if not open_arms:
                break
    return wrong / len(values)
