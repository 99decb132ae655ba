"""One level for several looks at the same thing, by integration."""

from __future__ import annotations

import math
from functools import cache

import numpy as np


@cache
def pocock_level(alpha: float, num_looks: int) -> float:
    """Return the one-sided level of each of several looks at a growing sum, so that the error of all is ``alpha``.

    Looks whose results depend on each other more than those of a sum by equal parts err less often in all.

    Args:
        alpha: Probability that a look finds something where nothing is, 0 to 1.
        num_looks: Number of looks, at least 1.

    Returns:
        The level, by numerical integration after Armitage, McPherson and Rowe.

    Source:
        Pocock 1977, Biometrika 64; Armitage, McPherson and Rowe 1969, JRSS A 132.
    """
    if num_looks <= 1 or not 0.0 < alpha < 1.0:
        return alpha

    from scipy.optimize import brentq
    from scipy.special import ndtr, ndtri

    def error(critical: float) -> float:
        step, cells = 0.05, math.ceil(140 * math.sqrt(num_looks))
        sums = step * np.arange(-cells, cells + 1)
        kernel = np.exp(-0.5 * (step * np.arange(-120, 121)) ** 2)
        density = np.zeros_like(sums)
        density[cells] = 1.0
        for look in range(1, num_looks + 1):
            density = np.convolve(density, kernel / kernel.sum(), mode="same")
            bound = critical * math.sqrt(look)
            # A cell of the grid that the bound cuts through stays by its part.
            density *= np.clip((bound - sums) / step + 0.5, 0.0, 1.0)
        return 1.0 - float(density.sum())

    critical = brentq(lambda c: error(c) - alpha, -ndtri(alpha) - 0.01, 8.0, xtol=1e-6)
    return float(ndtr(-critical))
