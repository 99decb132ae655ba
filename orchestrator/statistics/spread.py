"""How far values vary from seed to seed, what two arms share of it, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class VarianceComponents:
    """Standard deviations of the parts of a two-way table, in its unit.

    Attributes:
        rows: Of the rows' effects.
        columns: Of the columns' effects.
        residual: Of what neither explains.
    """

    rows: float
    columns: float
    residual: float


def sd_interval(sd: float, df: float, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the interval of a standard deviation of normal values.

    Args:
        sd: The estimate, at least 0.
        df: Its degrees of freedom, above 0: n - 1 for n values.
        confidence: Probability that the interval covers the true one, in (0, 1).

    Returns:
        ``(low, high)``.

    Raises:
        ValueError: If a number is out of its range.

    Source:
        df sd^2 / sigma^2 is chi-squared with df degrees of freedom: Fisher 1925, Statistical Methods for Research
        Workers.
    """
    from scipy.special import chdtri

    if not sd >= 0 or not df > 0 or not 0 < confidence < 1:
        raise ValueError(f"must be sd >= 0, df > 0 and confidence in (0, 1), not {sd}, {df} and {confidence}")
    tail = (1 - confidence) / 2
    low, high = (sd * math.sqrt(df / float(chdtri(df, upper))) for upper in (tail, 1 - tail))
    return low, high


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Compute Pearson's correlation.

    Args:
        first: ``(n,)`` values, e.g. one a seed.
        second: ``(n,)`` values at the same places.

    Returns:
        In [-1, 1]; None if n < 3, a value is not finite, or one of the two does not vary.

    Raises:
        ValueError: If they are not equally many.
    """
    if len(first) != len(second):
        raise ValueError(f"must be equally many values, not {len(first)} and {len(second)}")
    values = np.array([first, second], dtype=np.float64)
    if values.shape[1] < 3 or not np.isfinite(values).all():
        return None
    deviations = values - values.mean(axis=1, keepdims=True)
    lengths = np.sqrt((deviations**2).sum(axis=1))
    # Equal values differ from their mean by rounding.
    if (lengths <= 1e-12 * np.abs(values).max(axis=1)).any():
        return None
    return float(np.clip(deviations[0] @ deviations[1] / lengths.prod(), -1.0, 1.0))


def variance_components(table: ArrayLike) -> VarianceComponents:
    """Estimate where the variance of a complete two-way table comes from, both its sides drawn at random.

    Args:
        table: ``(R, C)`` one value for each row and column, R >= 2 and C >= 2.

    Returns:
        Standard deviations of rows, columns and residual; a variance that is estimated below 0 is 0.

    Raises:
        ValueError: If the table is smaller, or a value is not finite.

    Source:
        Expected mean squares of the random two-way layout: Searle, Casella and McCulloch 1992, Variance Components,
        section 4.4.
    """
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError(f"must be a table of at least 2 x 2 finite values, not of shape {values.shape}")
    num_rows, num_columns = values.shape
    of_rows, of_columns, of_all = values.mean(axis=1), values.mean(axis=0), values.mean()
    left = values - of_rows[:, None] - of_columns + of_all
    mean_square = float((left**2).sum()) / ((num_rows - 1) * (num_columns - 1))
    rows = float(of_rows.var(ddof=1)) - mean_square / num_columns
    columns = float(of_columns.var(ddof=1)) - mean_square / num_rows
    return VarianceComponents(*(math.sqrt(max(0.0, part)) for part in (rows, columns, mean_square)))
