"""From an interval to a verdict, and from many p-values to those that may be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np

LEAST_SEEDS = 4
"""Seeds that an arm has in common with its baseline from which on a verdict is given."""


class Verdict(StrEnum):
    """What an interval says of an arm."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


def judge(
    low: float | None,
    high: float | None,
    *,
    num_seeds: int,
    higher_is_better: bool = True,
    smallest_effect: float | None = None,
) -> Verdict:
    """Return the verdict on an arm by the simultaneous interval of its difference to the baseline.

    An interval within the smallest effect to either side is ``equivalent``, also where it excludes 0: a difference that
    is known to be too small to matter is not ``better``.

    Args:
        low: Lower end of the interval, or None if there is none.
        high: Upper end of it.
        num_seeds: Seeds that arm and baseline have in common; with fewer than 4 all is undecided.
        higher_is_better: The direction of the metric.
        smallest_effect: Smallest difference of interest, in the unit of the interval, above 0; None: none is declared
            and nothing is equivalent.

    Raises:
        ValueError: If the smallest effect is not above 0.

    Source:
        Equivalence by the interval: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, who needs one
        of 90% only; this one, of 95% over all arms, is the same as the one that is shown. Smallest effect of interest:
        Lakens, Scheel and Isager 2018, Advances in Methods and Practices in Psychological Science 1.
    """
    if smallest_effect is not None and not smallest_effect > 0:
        raise ValueError(f"smallest_effect must be above 0, not {smallest_effect}")
    if low is None or high is None or num_seeds < LEAST_SEEDS or not (math.isfinite(low) and math.isfinite(high)):
        return Verdict.UNDECIDED
    if smallest_effect is not None and -smallest_effect < low and high < smallest_effect:
        return Verdict.EQUIVALENT
    if low > 0 or high < 0:
        return Verdict.BETTER if (low > 0) == higher_is_better else Verdict.WORSE
    return Verdict.UNDECIDED


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values so that, of those up to some level, at most that share is expected to be false.

    Args:
        p_values: ``(m,)`` p-values of exploratory comparisons, not adjusted; None or nan where there is none.

    Returns:
        The adjusted p-values at the same places, None where there was none.

    Source:
        Benjamini and Hochberg 1995, Journal of the Royal Statistical Society B 57. It holds for the positive dependence
        of contrasts with one baseline: Benjamini and Yekutieli 2001, Annals of Statistics 29.
        ``scipy.stats.false_discovery_control`` computes the same.
    """
    places = [place for place, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    values = np.array([p_values[place] for place in places], dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * len(values) / np.arange(1, len(values) + 1)
    adjusted: list[float | None] = [None] * len(p_values)
    for rank, p in zip(order, np.minimum.accumulate(steps[::-1])[::-1], strict=True):
        adjusted[places[rank]] = min(1.0, float(p))
    return adjusted
