"""Sweeps of a fixed number of seeds: coverage, family-wise error, wrong equivalence, power and sign flips."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.comparison import compare_arms
from orchestrator.statistics.design import Design
from orchestrator.statistics.dunnett import critical_near
from orchestrator.statistics.max_t import max_t
from orchestrator.statistics.model import fit_group
from orchestrator.statistics.sign_flips import max_t_of_flips
from orchestrator.statistics.variances import moderated_variances
from orchestrator.statistics.verdicts import LEAST_SEEDS

from .settings import Array, Setting

NUM_PATTERNS = 8
"""Patterns of missing cells among the sweeps of a setting."""
NUM_CHECKED = 4
"""Sweeps of each pattern that go through ``compare_arms`` as well."""
NUM_FLIPPED = 500


@dataclass(frozen=True)
class FixedResult:
    """Rates over the sweeps of a setting, in [0, 1].

    Attributes:
        coverage: All intervals of a sweep cover their true difference.
        wrong: Some arm is better or worse though none differs; none can be with fewer than 4 seeds.
        wrong_equivalent: Some arm is equivalent though all differ by just the smallest effect, 3 half-widths.
        power: An arm whose true difference is what 80% power is claimed for is found.
        moderated: Coverage with moderated variances; nan where cells are missing.
        own: Coverage with each arm's own variance; likewise.
        moderated_width: Half-widths with moderated variances over pooled ones.
        own_width: The same of own ones.
        flips_wrong: Family-wise error of the sign flips; nan with fewer than 6 seeds or missing cells.
        largest_deviation: Of the interval ends here from those of ``compare_arms``, over the sweeps checked.
    """

    coverage: float
    wrong: float
    wrong_equivalent: float
    power: float
    moderated: float
    own: float
    moderated_width: float
    own_width: float
    flips_wrong: float
    largest_deviation: float


def simulate_fixed(setting: Setting, num_sweeps: int, seed: int) -> FixedResult:
    """Simulate a setting.

    Least squares are linear: of a pattern of cells the estimates are one matrix times the values, so all its sweeps are
    judged at once. Some of them go through ``compare_arms`` too, which must say the same.
    """
    rng = np.random.default_rng(seed)
    num_patterns = NUM_PATTERNS if setting.kind == "missing" else 1
    size = num_sweeps // num_patterns
    parts = [_pattern(setting, size, rng) for _ in range(num_patterns)]
    mean = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
    mean["largest_deviation"] = max(part["largest_deviation"] for part in parts)
    return FixedResult(**mean)


def _pattern(setting: Setting, num_sweeps: int, rng: np.random.Generator) -> dict[str, float]:
    cells, values = setting.draw_cells(rng), setting.draw(num_sweeps, rng)
    counted = (cells & cells[:1]).sum(axis=1)[1:] >= LEAST_SEEDS
    estimates, variances, unscaled, df = least_squares(values, cells)
    scales = np.sqrt(np.diag(unscaled))
    critical = max_t(unscaled / np.outer(scales, scales), df).critical()
    reach = critical * np.sqrt(variances)[:, None] * scales
    found = np.abs(estimates) > reach
    # The smallest effect is what 3 half-widths are on average; an arm that differs by it, on one side.
    effect = 3 * critical * scales * math.sqrt(float(variances.mean()))
    equivalent = (np.abs(estimates + effect) + reach < effect) & counted
    design = Design(setting.num_arms, setting.num_seeds, math.sqrt(float(variances.mean())))
    powered = np.abs(estimates[:, 0] + design.detectable()) > reach[:, 0]
    rates = {
        "coverage": 1 - float(found.any(axis=1).mean()),
        "wrong": float((found & counted).any(axis=1).mean()),
        "wrong_equivalent": float(equivalent.any(axis=1).mean()),
        "power": float(powered.mean()),
        "largest_deviation": _deviation(values[:NUM_CHECKED], cells, estimates, reach),
    }
    if cells.all():
        return rates | _own_variances(values, float(reach.mean())) | {"flips_wrong": _flips(values[:NUM_FLIPPED])}
    return rates | dict.fromkeys(("moderated", "own", "moderated_width", "own_width", "flips_wrong"), math.nan)


def least_squares(values: Array, cells: NDArray[np.bool_]) -> tuple[Array, Array, Array, int]:
    """Fit arm + seed to many sweeps with the same cells, by a matrix of dummies.

    Args:
        values: ``(B, A, n)``.
        cells: ``(A, n)`` which of them are there.

    Returns:
        ``(B, k)`` differences to the first arm, ``(B,)`` residual variances, ``(k, k)`` covariance of the differences
        over the variance, degrees of freedom.
    """
    arms, seeds = np.nonzero(cells)
    dummies = np.concatenate([np.eye(cells.shape[0])[arms][:, 1:], np.eye(cells.shape[1])[seeds]], axis=1)
    dummies = dummies[:, dummies.any(axis=0)]
    inverse = np.linalg.pinv(dummies)
    y = values[:, arms, seeds]
    coefficients = y @ inverse.T
    df = len(arms) - np.linalg.matrix_rank(dummies)
    variances = ((y - coefficients @ dummies.T) ** 2).sum(axis=1) / df
    num = cells.shape[0] - 1
    return coefficients[:, :num], variances, (inverse @ inverse.T)[:num, :num], int(df)


def as_values(table: Array, cells: NDArray[np.bool_]) -> Mapping[str, Mapping[int, float]]:
    """Return a sweep as the functions take it, the baseline named 0."""
    seeds = {arm: np.flatnonzero(cells[arm]).tolist() for arm in range(len(table))}
    return {str(arm): {seed: float(table[arm, seed]) for seed in there} for arm, there in seeds.items()}


def _deviation(values: Array, cells: NDArray[np.bool_], estimates: Array, reach: Array) -> float:
    worst = 0.0
    for sweep, table in enumerate(values):
        found = compare_arms(as_values(table, cells), baseline="0")
        for arm, result in enumerate(found.arms.values()):
            low, high = estimates[sweep, arm] - reach[sweep, arm], estimates[sweep, arm] + reach[sweep, arm]
            assert result.low is not None
            assert result.high is not None
            worst = max(worst, abs(result.low - low), abs(result.high - high))
    return worst


def _own_variances(values: Array, pooled_reach: float) -> dict[str, float]:
    """Return coverage and relative half-widths of ``by_own_variances``, whose formulas these are, for many sweeps."""
    from scipy.special import stdtrit

    differences = values[:, 1:] - values[:, :1]
    num, num_seeds = differences.shape[1:]
    estimates, variances = np.abs(differences.mean(axis=2)), differences.var(axis=2, ddof=1)
    moderated, dfs = moderated_variances(variances, np.full(num, num_seeds - 1.0))
    capped = np.minimum(dfs, num * (num_seeds - 1) / (1 + (num - 1) / 4))
    grid = np.geomspace(1, 1e6, 400)
    criticals = np.interp(np.log(capped), np.log(grid), [critical_near(num, float(df)) for df in grid])
    reach = criticals * np.sqrt(moderated / num_seeds)
    own = float(stdtrit(num_seeds - 1, 1 - (1 - 0.95 ** (1 / num)) / 2)) * np.sqrt(variances / num_seeds)
    return {
        "moderated": float((estimates <= reach).all(axis=1).mean()),
        "own": float((estimates <= own).all(axis=1).mean()),
        "moderated_width": float(reach.mean()) / pooled_reach,
        "own_width": float(own.mean()) / pooled_reach,
    }


def _flips(values: Array) -> float:
    num_seeds = values.shape[2]
    if num_seeds < 6:
        return math.nan
    differences = values[:, 1:] - values[:, :1]
    sizes = np.full(differences.shape[1], num_seeds)
    return float(np.mean([min(max_t_of_flips(table, sizes)) <= 0.05 for table in differences]))


def check_variances(setting: Setting, num_sweeps: int, seed: int) -> float:
    """Return how often the test of unequal variances rejects at 5%."""
    from orchestrator.statistics.variances import unequal_variances

    rng = np.random.default_rng(seed)
    cells = setting.draw_cells(rng)
    tests = [
        unequal_variances(fit_group(as_values(table, cells), baseline="0")) for table in setting.draw(num_sweeps, rng)
    ]
    return float(np.mean([test is not None and test.p_value < 0.05 for test in tests]))
