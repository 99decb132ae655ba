"""What a design can find: the power of arms against one baseline over common seeds, and the seeds a difference takes.

The design is the two-way layout arm + seed without interaction: k arms and the baseline, n seeds, the residual
variance pooled over all arms. A difference of two arms has the variance 2 sigma^2 / n, where 2 sigma^2 is the variance
of the difference within a seed, whatever share of the spread over seeds two arms have in common.
"""

from __future__ import annotations

import math
from typing import cast

from orchestrator.statistics.dunnett import dunnett_critical

LARGEST_NUM_SEEDS = 1e6
"""Seeds up to which a design is sought."""


def two_way_df(num_contrasts: int, num_seeds: float) -> float:
    """Return the degrees of freedom of the pooled residual variance, (A - 1)(n - 1) with A arms and n seeds.

    Args:
        num_contrasts: Number of arms beside the baseline, A - 1 >= 1.
        num_seeds: n, at least 1; it need not be whole.
    """
    return num_contrasts * (num_seeds - 1)


def contrast_power(
    difference: float,
    *,
    sd_difference: float,
    num_seeds: float,
    num_contrasts: int = 10,
    confidence: float = 0.95,
) -> float:
    """Compute the probability that the difference of one arm to the baseline is found, on either side.

    T = difference / (sd_difference / sqrt n) has a noncentral t distribution; it is found where |T| exceeds Dunnett's
    critical value for all arms together.

    Args:
        difference: True difference, in any unit.
        sd_difference: Standard deviation of the difference within a seed, in the same unit, above 0: the root of 2
            times the residual standard deviation.
        num_seeds: n >= 1 + 1 / num_contrasts, so that there is a degree of freedom. A number that is not whole is an
            interpolation.
        num_contrasts: Number of arms beside the baseline, k >= 1.
        confidence: 1 minus the family-wise error, in (0, 1).

    Returns:
        Power in [0, 1]; with a difference of 0 the error rate of one arm.

    Raises:
        ValueError: If a number is out of its range.

    Source:
        Noncentral t: Johnson and Welch 1940, Biometrika 31. Power of one comparison at Dunnett's level ("per-pair
        power"): Hayter and Liu 1992, Communications in Statistics, Simulation and Computation 21.
    """
    if not sd_difference > 0:
        raise ValueError(f"sd_difference must be above 0, not {sd_difference}")
    df = two_way_df(num_contrasts, num_seeds)
    critical = dunnett_critical(num_contrasts, df, confidence=confidence)
    return noncentral_t_power(abs(difference) / sd_difference * math.sqrt(num_seeds), df, critical)


def noncentral_t_power(noncentrality: float, df: float, critical: float) -> float:
    """Return the probability that |T| exceeds a critical value, T with a noncentral t distribution.

    Args:
        noncentrality: True difference over its standard error, at least 0.
        df: Degrees of freedom, at least 1.
        critical: At least 0.

    Source:
        Johnson and Welch 1940, Biometrika 31.
    """
    from scipy.special import nctdtr

    if noncentrality > 10 * critical + 40:  # where the library's series would no longer converge
        return 1.0
    above = 1 - float(nctdtr(df, noncentrality, critical))
    # Rounding leaves the far side, which is next to nothing where the near side is not, without a number.
    below = float(nctdtr(df, noncentrality, -critical))
    return min(1.0, above + (below if math.isfinite(below) else 0.0))


def detectable_shift(df: float, critical: float, power: float = 0.8) -> float:
    """Return the true difference, in standard errors, that is found with a probability.

    Args:
        df: Degrees of freedom, at least 1.
        critical: What intervals reach to either side, in standard errors.
        power: Above the error rate of one contrast and below 1.

    Raises:
        ValueError: If it is not.
    """
    from scipy.optimize import brentq

    lowest = noncentral_t_power(0.0, df, critical)
    if not lowest < power < 1:
        raise ValueError(f"power must be above {lowest:.3g} and below 1, not {power}")
    high = 2 * critical + 2
    while noncentral_t_power(high, df, critical) < power:
        high *= 2
    return cast("float", brentq(lambda shift: noncentral_t_power(shift, df, critical) - power, 0.0, high, xtol=1e-6))


def seeds_for_difference(
    difference: float,
    *,
    sd_difference: float,
    num_contrasts: int = 10,
    confidence: float = 0.95,
    power: float = 0.8,
) -> float:
    """Compute how many seeds it takes to find a difference of one arm to the baseline.

    Args:
        difference: True difference, in any unit, not 0.
        sd_difference: Standard deviation of the difference within a seed, in the same unit, at least 0.
        num_contrasts: Number of arms beside the baseline, k >= 1.
        confidence: 1 minus the family-wise error, in (0, 1).
        power: Wanted probability that the difference is found, above ``1 - confidence`` and below 1.

    Returns:
        The n at which the power is reached, interpolated between whole numbers: a design takes ``max(2, ceil(n))``.
        It is at least 1 + 1 / k, where there is one degree of freedom, and infinite beyond a million.

    Raises:
        ValueError: If a number is out of its range.

    Source:
        As ``contrast_power``, solved for n.
    """
    from scipy.optimize import brentq

    if difference == 0 or not math.isfinite(difference):
        raise ValueError(f"difference must be a finite number other than 0, not {difference}")
    if not sd_difference >= 0:
        raise ValueError(f"sd_difference must be at least 0, not {sd_difference}")
    if num_contrasts < 1:
        raise ValueError(f"num_contrasts must be at least 1, not {num_contrasts}")
    if not 1 - confidence < power < 1:
        raise ValueError(f"power must be above {1 - confidence:g} and below 1, not {power}")
    fewest = 1 + 1 / num_contrasts
    if sd_difference == 0:
        return fewest

    def excess(num_seeds: float) -> float:
        reached = contrast_power(
            difference,
            sd_difference=sd_difference,
            num_seeds=num_seeds,
            num_contrasts=num_contrasts,
            confidence=confidence,
        )
        return reached - power

    most = fewest
    while excess(most) < 0:
        most *= 2
        if most > LARGEST_NUM_SEEDS:
            return math.inf
    if most == fewest:
        return fewest
    return cast("float", brentq(excess, most / 2, most, xtol=1e-4))
