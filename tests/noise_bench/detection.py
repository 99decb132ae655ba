"""How often a design of n seeds would find what the bench has measured: by resampling seeds, or by the normal model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.power import contrast_power, two_way_df

NUM_CONTRASTS = 10
"""Arms beside the baseline in the design that is judged."""
NUM_DRAWS = 4000
"""Resampled designs: the standard error of a rate is at most 0.8 points."""
LEAST_SEEDS = 8
"""Seeds from which on they are resampled; with fewer the normal model serves."""
MOST_SEEDS = 500
"""Seeds of a design up to which it is resampled; a mean over more is normal."""


def resampled_rates(
    baseline: NDArray[np.float64],
    judged: Mapping[str, NDArray[np.float64]],
    pooled: Sequence[NDArray[np.float64]],
    *,
    num_seeds: int,
    seed: int = 0,
) -> dict[str, float]:
    """Compute how often each arm's difference to the baseline is found, in designs of seeds drawn with replacement.

    A difference is found where |T| exceeds Dunnett's critical value for ten contrasts; T is the mean difference over
    its standard error in the two-way model arm + seed, on the degrees of freedom of the arms that there are. Designs
    of one seed alone, whose residuals are 0, are drawn again.

    Args:
        baseline: ``(M,)`` the baseline's values over M seeds.
        judged: ``(M,)`` values over the same seeds, by arm.
        pooled: ``(M,)`` values of the arms whose residuals are pooled, beside the baseline's; one at least.
        num_seeds: n >= 2, seeds of a design.
        seed: Seed of the draws.

    Returns:
        Share of the designs, in [0, 1], by arm.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(baseline), size=(NUM_DRAWS, num_seeds))
    while (alike := (drawn == drawn[:, :1]).all(axis=1)).any():
        drawn[alike] = rng.integers(len(baseline), size=(int(alike.sum()), num_seeds))
    values = np.stack([baseline, *pooled])[:, drawn].swapaxes(0, 1)  # (draws, arms, seeds)
    residuals = values - values.mean(axis=2, keepdims=True) - values.mean(axis=1, keepdims=True)
    residuals += values.mean(axis=(1, 2), keepdims=True)
    df = two_way_df(len(pooled), num_seeds)
    errors = np.sqrt(2 * (residuals**2).sum(axis=(1, 2)) / df / num_seeds)
    critical = dunnett_critical(NUM_CONTRASTS, df)
    return {
        arm: float((np.abs((of_arm - baseline)[drawn].mean(axis=1)) > critical * errors).mean())
        for arm, of_arm in judged.items()
    }


def model_rate(difference: float, *, sd_difference: float, num_seeds: int) -> float:
    """Compute how often a difference would be found if values were normal and it were the true one.

    Args:
        difference: The measured mean difference.
        sd_difference: Standard deviation of the difference within a seed, at least 0.
        num_seeds: n >= 2, seeds of a design.

    Returns:
        In [0, 1]; NaN where there is neither a difference nor noise.
    """
    if sd_difference == 0:
        return 1.0 if difference else math.nan
    return contrast_power(
        difference, sd_difference=sd_difference, num_seeds=num_seeds, num_contrasts=NUM_CONTRASTS
    )
