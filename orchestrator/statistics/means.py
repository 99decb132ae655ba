"""Means of two sets of arms, arm by arm: of two groups, or of the same arms computed twice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.statistics.model import Values, can_be_compared
from orchestrator.statistics.simultaneous import Family, from_covariance


def differences_of_means(first: Values, second: Values, *, paired: bool, confidence: float = 0.95) -> Family:
    """Estimate how much larger the mean of each arm is in one set of values than in another.

    Args:
        first: By arm, its value at each seed, in the one set.
        second: The same in the other.
        paired: Whether a seed means the same in both: the differences within seeds of an arm are then the values. Else
            the sets are independent, and each has its own variance.
        confidence: 1 minus the family-wise error over the arms, in (0, 1).

    Returns:
        By arm of both sets, mean of the first - mean of the second; none where no variance can be told. An arm with a
        value that cannot be compared, or, if paired, without a common seed, is left out.

    Source:
        Of one arm: Student's paired t interval, or that of Welch 1947, Biometrika 34, with Satterthwaite's degrees of
        freedom. Of several arms the variance (each set's variance) is pooled over them, as it is in a group, and the
        intervals hold together (see ``from_covariance``) as if arms were independent, which is cautious where they
        are not.
    """
    usable = [arm for arm in first if arm in second and _are_comparable(first[arm]) and _are_comparable(second[arm])]
    if paired:
        common = {arm: sorted(first[arm].keys() & second[arm].keys()) for arm in usable}
        gaps = {arm: [first[arm][seed] - second[arm][seed] for seed in seeds] for arm, seeds in common.items() if seeds}
        samples = [gaps]
    else:
        samples = [{arm: list(values[arm].values()) for arm in usable} for values in (first, second)]
    arms = tuple(samples[0])
    if not arms:
        return Family({}, None, confidence)
    estimates, covariance, noise, total = np.zeros(len(arms)), np.zeros(len(arms)), 0.0, 0.0
    for sign, sample in zip((1, -1), samples, strict=False):
        df = sum(len(sample[arm]) - 1 for arm in arms)
        if df < 1:
            return Family({}, None, confidence)
        variance = sum(_squares(sample[arm]) for arm in arms) / df
        part = np.array([variance / len(sample[arm]) for arm in arms])
        estimates += sign * np.array([math.fsum(sample[arm]) / len(sample[arm]) for arm in arms])
        covariance += part
        noise += float(part.sum()) ** 2 / df
        total += df
    df_of_sum = float(covariance.sum()) ** 2 / noise if noise > 0 else total
    return from_covariance(arms, estimates, np.diag(covariance), df_of_sum, confidence=confidence)


def _are_comparable(values: Mapping[int, float]) -> bool:
    return bool(values) and can_be_compared(values.values())


def _squares(values: Sequence[float]) -> float:
    """Return the sum of squared distances to the mean."""
    center = math.fsum(values) / len(values)
    return math.fsum((value - center) ** 2 for value in values)
