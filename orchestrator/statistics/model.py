"""One model per group and metric: value ~ arm + seed, or value ~ arm, by ordinary least squares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Values = Mapping[str, Mapping[int, float]]
"""Arm to seed to value, of one metric in one group."""

LARGEST_VALUE = 1e60
"""Of what is compared; beyond it is no measurement."""
_ROUNDING = 1e-11
"""Eigenvalue over the largest one below which it is 0 but for rounding. Of 1,000 seeds in a chain of arms that have two
each, the least that is not 0 is 2e-6."""


@dataclass(frozen=True, eq=False)
class GroupModel:
    """Least-squares fit of a group of arms, with one residual variance for all.

    Attributes:
        arms: The A arms that have an estimate: the baseline, then the others in the order given. Empty where the
            baseline itself has none.
        blocks: Whether seeds are blocks: value ~ arm + seed; else value ~ arm.
        estimates: ``(A,)`` differences arm - baseline, in the unit of the values; the first is 0.
        unscaled: ``(A, A)`` covariance of the estimates in units of the residual variance.
        variance: Residual variance; nan without a degree of freedom.
        df: Degrees of freedom of the variance, at least 0.
        num_seeds: By arm, the seeds that it has in common with the baseline; without blocks the fewer of the two.
        residuals: By arm, its residuals by seed.
        leverages: By arm, what part of a cell's variance the fit takes from its residual, by seed, in (0, 1].
    """

    arms: tuple[str, ...]
    blocks: bool
    estimates: Array
    unscaled: Array
    variance: float
    df: int
    num_seeds: Mapping[str, int]
    residuals: Mapping[str, Mapping[int, float]]
    leverages: Mapping[str, Mapping[int, float]]


def can_be_compared(values: Iterable[float]) -> bool:
    """Return whether values are finite, and of a size whose fourth power, which comparisons take, is finite too."""
    return all(abs(value) <= LARGEST_VALUE for value in values)


def fit_group(values: Values, *, baseline: str, blocks: bool = True) -> GroupModel:
    """Fit a group of arms by ordinary least squares. Cells may be missing, arms may have other seeds.

    An arm has no estimate if one of its values cannot be compared, or if no path of common seeds joins it to the
    baseline (with blocks: it needs a seed of the baseline, or one of an arm that has one). Floors, whose variance is
    another, pruned arms, whose survivors flatter, and arms whose values are the baseline's to the last bit are for the
    caller to leave out.

    Args:
        values: By arm, its value at each seed.
        baseline: The arm that the others are compared with.
        blocks: Whether seeds are blocks. A seed that only one arm has then tells nothing.

    Returns:
        The fit. Of one arm and the baseline with the same n seeds it is Student's paired or unpaired t test.

    Raises:
        ValueError: If the baseline is not among the arms.

    Source:
        Two-way layout without interaction, unbalanced: Searle 1971, Linear Models, section 7.1; the normal equations
        with the arms eliminated ("absorbed"): section 7.1c. R: ``lm(value ~ arm + factor(seed))``.
    """
    if baseline not in values:
        raise ValueError(f"baseline must be an arm among {', '.join(values)}, not {baseline!r}")
    usable = {arm: of_arm for arm, of_arm in values.items() if of_arm and can_be_compared(of_arm.values())}
    arms = _joined(usable, baseline, blocks)
    seeds = sorted({seed for arm in arms for seed in usable[arm]})
    column = {seed: place for place, seed in enumerate(seeds)}
    present = np.zeros((len(arms), len(seeds)))
    table = np.zeros((len(arms), len(seeds)))
    for row, arm in enumerate(arms):
        for seed, value in usable[arm].items():
            present[row, column[seed]] = 1.0
            table[row, column[seed]] = value
    own = usable.get(baseline, {}).keys()
    num_seeds = {
        arm: len(usable[arm].keys() & own) if blocks else min(len(usable[arm]), len(own)) for arm in arms
    }
    fitted, covariance, leverage = _solve(table, present, blocks)
    residual = np.where(present > 0, table - fitted, 0.0)
    df = int(present.sum()) - len(arms) - (len(seeds) - 1 if blocks and seeds else 0)
    squares = float((residual**2).sum())
    rounding = 1e-12 * float(np.abs(table).max(initial=0.0))
    if squares <= rounding**2 * table.size:
        squares, residual = 0.0, np.zeros_like(residual)
    estimates = fitted[:, 0] - fitted[:1, 0] if seeds else np.zeros(0)
    estimates[np.abs(estimates) <= rounding] = 0.0
    return GroupModel(
        arms=tuple(arms),
        blocks=blocks,
        estimates=estimates,
        unscaled=covariance - covariance[:1] - covariance[:, :1] + covariance[:1, :1],
        variance=squares / df if df > 0 else float("nan"),
        df=max(df, 0),
        num_seeds=num_seeds,
        residuals=_by_seed(arms, seeds, present, residual),
        leverages=_by_seed(arms, seeds, present, leverage),
    )


def _joined(values: Values, baseline: str, blocks: bool) -> list[str]:
    """Return the arms that can be compared with the baseline, and it first; none if it has no values."""
    if baseline not in values:
        return []
    others = [arm for arm in values if arm != baseline]
    if not blocks:
        return [baseline, *others]
    reached, seeds, is_growing = {baseline}, set(values[baseline]), True
    while is_growing:
        new = {arm for arm in others if arm not in reached and not seeds.isdisjoint(values[arm])}
        reached |= new
        seeds.update(*(values[arm] for arm in new))
        is_growing = bool(new)
    return [baseline, *(arm for arm in others if arm in reached)]


def _solve(table: Array, present: Array, blocks: bool) -> tuple[Array, Array, Array]:
    """Solve the normal equations.

    Args:
        table: ``(A, n)`` values, 0 where there is none.
        present: ``(A, n)`` of 0 and 1.
        blocks: Whether columns have effects of their own.

    Returns:
        ``(A, n)`` fitted values, also of missing cells; ``(A, A)`` covariance of the arms' levels over the variance, up
        to what cancels in their differences; ``(A, n)`` leverages of the cells.
    """
    sizes = present.sum(axis=1)
    weights = present / sizes[:, None]
    of_arms = (weights * table).sum(axis=1)
    if not blocks or not table.size:
        return np.repeat(of_arms[:, None], table.shape[1], axis=1), np.diag(1 / sizes), np.repeat(
            1 / sizes[:, None], table.shape[1], axis=1
        )
    of_cells = (present * (table - of_arms[:, None])).sum(axis=0)
    # Rank n - 1, for the arms are joined: a shift of all seeds is one of all arms.
    inverse = np.linalg.pinv(np.diag(present.sum(axis=0)) - present.T @ weights, rcond=_ROUNDING, hermitian=True)
    of_seeds = inverse @ of_cells
    spread = weights @ inverse
    covariance = np.diag(1 / sizes) + spread @ weights.T
    levels = of_arms - weights @ of_seeds
    leverage = np.diag(covariance)[:, None] + np.diag(inverse)[None, :] - 2 * spread
    return levels[:, None] + of_seeds[None, :], covariance, leverage


def _by_seed(arms: list[str], seeds: list[int], present: Array, table: Array) -> dict[str, dict[int, float]]:
    return {
        arm: {seed: float(table[row, place]) for place, seed in enumerate(seeds) if present[row, place]}
        for row, arm in enumerate(arms)
    }
