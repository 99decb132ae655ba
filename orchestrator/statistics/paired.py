"""What a table says of its numbers: means, spreads, and differences paired by seed. Numbers in, numbers out.

Arms that share a seed saw the same images in the same order from the same initial weights, so the difference within a
seed is what tells two arms apart. What seeds cause in both cancels; how much that is, ``pairing`` measures: in a recipe
that amplifies the smallest difference it is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
EXACT_UP_TO = 12
"""Pairs up to which all 2^n sign flips are counted."""
NUM_DRAWS = 20_000
"""Random sign flips beyond that; the standard error of p is at most 0.0036."""


@dataclass(frozen=True)
class Difference:
    """How far an arm lies above its baseline, over the seeds that both have.

    Attributes:
        n: Number of common seeds.
        mean: Mean of the differences arm - baseline, or None without a common seed.
        low: Lower end of the 95% interval, or None with fewer than two common seeds.
        high: Upper end of it.
        p_value: Two-sided p of the sign-flip test, or None without a common seed.
    """

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


def mean(values: Sequence[float]) -> float | None:
    """Return the mean of ``(n,)`` values, or None if n = 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean(values)) if len(values) else None


def sample_sd(values: Sequence[float]) -> float | None:
    """Return the standard deviation of ``(n,)`` values, with n - 1 in the denominator; None if n < 2."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.std(values, ddof=1)) if len(values) >= 2 else None


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Compute Student's t interval for the mean.

    Args:
        values: ``(n,)`` independent values.
        confidence: Probability that the interval covers the mean of normal values, in (0, 1).

    Returns:
        ``(low, high)``, or None if n < 2 or a value is not finite.

    Source:
        Student 1908, The probable error of a mean, Biometrika 6(1).
    """
    # Part of scipy that loads fast; scipy.stats takes most of a second.
    from scipy.special import stdtrit

    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return None
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / math.sqrt(n))
    center = float(np.mean(values))
    return center - half, center + half


def sign_flip_p(differences: Sequence[float], *, seed: int = 0) -> float | None:
    """Test whether paired differences are symmetric about 0, by flipping their signs.

    p is the share of the sign patterns whose mean lies at least as far from 0 as the one observed: over all
    2^n patterns up to n = 12, so that p cannot be below 2/2^n; over 20,000 random ones beyond, with the
    observed pattern counted in.

    Args:
        differences: ``(n,)`` differences, one per pair.
        seed: Seed of the random patterns.

    Returns:
        Two-sided p in (0, 1], or None if n = 0 or a difference is not finite.

    Source:
        Fisher 1935, The Design of Experiments, section 21; the +1 after Phipson and Smyth 2010, Statistical
        Applications in Genetics and Molecular Biology 9(1).
    """
    values = np.asarray(differences, dtype=np.float64)
    n = len(values)
    if n == 0 or not np.isfinite(values).all():
        return None
    exact = n <= EXACT_UP_TO
    signs = sign_patterns(n, seed)
    # Sums that are equal on paper differ in the last bits.
    tolerance = 1e-12 * float(np.abs(values).sum())
    num_extreme = int((np.abs(signs @ values) >= abs(float(values.sum())) - tolerance).sum())
    return num_extreme / len(signs) if exact else (num_extreme + 1) / (len(signs) + 1)


def sign_patterns(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Return ``(P, n)`` patterns of -1 and 1: all 2^n up to n = 12, else 20,000 random ones."""
    return _all_signs(n) if n <= EXACT_UP_TO else _random_signs(n, seed)


def _all_signs(n: int) -> NDArray[np.float64]:
    """Return ``(2^n, n)`` patterns of -1 and 1."""
    bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    return 2 * bits.astype(np.float64) - 1


@lru_cache(maxsize=1)  # all arms of a sweep have about as many seeds
def _random_signs(n: int, seed: int) -> NDArray[np.float64]:
    """Return ``(20000, n)`` patterns of -1 and 1."""
    bits = np.random.default_rng(seed).integers(2, size=(NUM_DRAWS, n))
    return 2 * bits.astype(np.float64) - 1


def paired_difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Compare an arm with its baseline over the seeds that both have.

    Args:
        arm: Seed to the arm's value.
        baseline: Seed to the baseline's value.

    Returns:
        The mean difference with a 95% Student t interval and the p of the sign-flip test. A value that is
        not finite makes the mean so, and leaves interval and p out.
    """
    seeds = sorted(arm.keys() & baseline.keys())
    differences = [arm[seed] - baseline[seed] for seed in seeds]
    low, high = t_interval(differences) or (None, None)
    return Difference(
        n=len(seeds), mean=mean(differences), low=low, high=high, p_value=sign_flip_p(differences)
    )
