"""Dunnett's test: several arms against one baseline, with one error rate for all of them together.

Each of k differences, divided by its standard error, is T_i = Z_i / S: the Z are standard normal with correlation
rho between any two of them (1/2 where all arms and the baseline have equally many values), S^2 is chi-squared over
its degrees of freedom, and shared by all.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

NUM_NODES = 160
"""Gauss-Legendre nodes in each of the two integrals: an error below 1e-6 up to a correlation of 0.99."""
_LARGEST_NORMAL = 8.5
"""The standard normal distribution is cut off here: 2e-17 lies beyond."""
_LARGEST_SHOWN = 6.8
"""The same for the trapezoidal rule: 1e-11 lies beyond."""
_LARGEST_DEVIATION = 0.2
"""Standard deviation of log S, beyond which steps are no longer."""
_TAIL = 1e-12
"""Probability that the distribution of S is cut off at, at either end."""
LARGEST_DF = 1e6
"""Beyond it S is taken for 1, the standard deviation for known; the critical value moves by less than 1e-5."""


def dunnett_coverage(critical: float, num_contrasts: int, df: float, *, correlation: float = 0.5) -> float:
    """Compute the probability that all of several t statistics lie within a critical value, where nothing works.

    Given the factor Z_0 that the Z share and S, the statistics are independent, so the probability is that of one of
    them to the power of k, integrated over Z_0 and S.

    Args:
        critical: What max |T_i| is compared with, at least 0.
        num_contrasts: Number of differences to the one baseline, k >= 1.
        df: Degrees of freedom of the common standard deviation, at least 1; infinity = it is known.
        correlation: Of any two of the differences, in [0, 1).

    Returns:
        P(max |T_i| <= critical), in [0, 1].

    Raises:
        ValueError: If a number is out of its range.

    Source:
        Dunnett 1955, A Multiple Comparison Procedure for Comparing Several Treatments with a Control, Journal of the
        American Statistical Association 50; the two-sided integral: Dunnett 1964, New Tables for Multiple Comparisons
        with a Control, Biometrics 20. R's multcomp and emmeans compute the same by other means.
    """
    from scipy.special import ndtr

    _check(num_contrasts, df, correlation)
    if not critical >= 0:
        raise ValueError(f"critical must be at least 0, not {critical}")
    factor, factor_weights = normal_nodes()
    deviation, deviation_weights = deviation_nodes(min(df, LARGEST_DF))
    shared, own = math.sqrt(correlation), math.sqrt(1 - correlation)
    limits = critical * deviation[:, None]
    inside = ndtr((limits - shared * factor) / own) - ndtr((-limits - shared * factor) / own)
    return float(np.clip(deviation_weights @ inside**num_contrasts @ factor_weights, 0.0, 1.0))


@lru_cache(maxsize=4096)
def dunnett_critical(
    num_contrasts: int, df: float, *, correlation: float = 0.5, confidence: float = 0.95
) -> float:
    """Compute the critical value of the largest of several |t| statistics, Dunnett's d.

    Args:
        num_contrasts: Number of differences to the one baseline, k >= 1. With one it is Student's t.
        df: Degrees of freedom of the common standard deviation, at least 1; infinity = it is known.
        correlation: Of any two of the differences, in [0, 1).
        confidence: Probability that no statistic exceeds it where no arm differs, in (0, 1): 1 minus the family-wise
            error.

    Returns:
        The d with P(max |T_i| <= d) = ``confidence``, to 1e-5.

    Raises:
        ValueError: If a number is out of its range.

    Source:
        See ``dunnett_coverage``. Bounds: Student's t for one statistic from below, Bonferroni's from above.
    """
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    _check(num_contrasts, df, correlation)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}")
    finite = min(df, LARGEST_DF)
    low, high = (float(stdtrit(finite, 1 - (1 - confidence) / (2 * count))) for count in (1, num_contrasts))
    if num_contrasts == 1:
        return low

    def excess(critical: float) -> float:
        return dunnett_coverage(critical, num_contrasts, df, correlation=correlation) - confidence

    return cast("float", brentq(excess, 0.99 * low, 1.01 * high, xtol=1e-7))


def residual_df(num_arms: int, num_seeds: int, blocks: bool) -> int:
    """Return the degrees of freedom of a complete group of k arms and a baseline with n seeds."""
    return (num_arms if blocks else num_arms + 1) * (num_seeds - 1)


def critical_near(num_contrasts: int, df: float, confidence: float = 0.95) -> float:
    """Return Dunnett's d of a balanced design to 0.2%, from a few that are computed once: for searches over designs.

    Args:
        num_contrasts: As in ``dunnett_critical``.
        df: At least 1.
        confidence: As in ``dunnett_critical``.
    """
    reciprocals, criticals = _curve(num_contrasts, confidence)
    return float(np.interp(1 / df, reciprocals, criticals))


@lru_cache(maxsize=256)
def _curve(num_contrasts: int, confidence: float) -> tuple[list[float], list[float]]:
    """Return values of 1/df, rising, and the critical values there."""
    dfs = (math.inf, 400, 150, 80, 50, 35, 25, 18, 14, 11, 9, 7, 6, 5, 4, 3, 2, 1)
    return [1 / df for df in dfs], [dunnett_critical(num_contrasts, df, confidence=confidence) for df in dfs]


def _check(num_contrasts: int, df: float, correlation: float) -> None:
    if num_contrasts < 1:
        raise ValueError(f"num_contrasts must be at least 1, not {num_contrasts}")
    if not df >= 1:
        raise ValueError(f"df must be at least 1, not {df}")
    if not 0 <= correlation < 1:
        raise ValueError(f"correlation must be in [0, 1), not {correlation}")


@lru_cache(maxsize=4)
def normal_nodes(num: int = NUM_NODES) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(M,)`` nodes and weights for the mean of a function of a standard normal number."""
    nodes, weights = _legendre(num)
    points = _LARGEST_NORMAL * nodes
    return points, _LARGEST_NORMAL * weights * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)


@lru_cache(maxsize=256)
def deviation_nodes(df: float, num: int = NUM_NODES) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(M,)`` nodes and weights for the mean of a function of S, the root of chi-squared over ``df``."""
    from scipy.special import chdtri, gammaln

    if df >= LARGEST_DF:
        return np.ones(1), np.ones(1)
    nodes, weights = _legendre(num)
    low, high = (math.sqrt(float(chdtri(df, upper)) / df) for upper in (1 - _TAIL, _TAIL))
    points, half = (low + high) / 2 + (high - low) / 2 * nodes, (high - low) / 2
    log_density = math.log(2) + df / 2 * math.log(df / 2) - gammaln(df / 2) + (df - 1) * np.log(points)
    return points, half * weights * np.exp(log_density - df * points**2 / 2)


def even_normal_nodes(step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(M,)`` nodes from 0 on and weights for the mean of an even function of a standard normal number.

    The trapezoidal rule, whose error falls faster than any power of the step where a function is as smooth as these.
    """
    points = np.asarray(step * np.arange(math.ceil(_LARGEST_SHOWN / step) + 1), dtype=np.float64)
    weights = 2 * step * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)
    weights[0] /= 2
    return points, weights


@lru_cache(maxsize=256)
def log_deviation_nodes(df: float, step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``(M,)`` nodes and weights as ``deviation_nodes`` does, by the trapezoidal rule over log S.

    Args:
        df: At least 1.
        step: In standard deviations of log S.
    """
    from scipy.special import chdtri, gammaln

    if df >= LARGEST_DF:
        return np.ones(1), np.ones(1)
    low, high = (math.log(float(chdtri(df, upper)) / df) / 2 for upper in (1 - _TAIL, _TAIL))
    num = math.ceil((high - low) / (step * min(1 / math.sqrt(2 * df), _LARGEST_DEVIATION)))
    logs, width = np.linspace(low, high, num + 1), (high - low) / num
    density = math.log(2) + df / 2 * math.log(df / 2) - gammaln(df / 2) + df * logs - df / 2 * np.exp(2 * logs)
    return np.exp(logs), width * np.exp(density)


@lru_cache(maxsize=8)
def _legendre(num: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    nodes, weights = np.polynomial.legendre.leggauss(num)
    return nodes, weights
