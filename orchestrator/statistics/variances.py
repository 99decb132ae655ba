"""Where arms do not vary alike: a test of it, and intervals by each arm's own variance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.statistics.dunnett import LARGEST_DF, dunnett_coverage, dunnett_critical
from orchestrator.statistics.model import GroupModel, Values, can_be_compared
from orchestrator.statistics.simultaneous import Contrast, Family

Variances = Literal["pooled", "moderated", "own"]
Array = NDArray[np.float64]

LEAST_SEEDS_OF_TEST = 4


@dataclass(frozen=True)
class VarianceTest:
    """Whether the arms of a group have the same variance.

    Attributes:
        statistic: F of the absolute deviations.
        p_value: Of the hypothesis that they have.
        largest_ratio: Largest residual standard deviation of an arm over the pooled one.
        arm: The arm that has it.
    """

    statistic: float
    p_value: float
    largest_ratio: float
    arm: str


def unequal_variances(model: GroupModel) -> VarianceTest | None:
    """Test whether arms have the same residual variance, by the absolute deviations of residuals from their median.

    With few seeds it finds gross differences alone: of ten arms one at three times the standard deviation in 29% at 4
    seeds, 42% at 6, 76% at 10. Where all are equal it rejects in 2 to 6% (``make simulate``).

    Args:
        model: The fit of the group.

    Returns:
        The test, or None where it cannot tell: fewer than two arms with 4 seeds, or with blocks fewer than three, for
        the residuals of two are each other's mirror image.

    Source:
        Brown and Forsythe 1974, Journal of the American Statistical Association 69. Of an odd number of deviations one
        is 0 by construction and is left out: Hines and O'Hara Hines 2000, Biometrics 56. Deviation: residuals of the
        two-way layout, each over the root of 1 - its leverage, serve as values.
    """
    from scipy.special import fdtrc

    if not model.variance > 0:
        return None
    deviations, spreads = [], {}
    for arm in model.arms:
        free = np.array([max(0.0, 1 - leverage) for leverage in model.leverages[arm].values()])
        residuals = np.array(list(model.residuals[arm].values()))[free > 1e-9]
        free = free[free > 1e-9]
        if len(free) < LEAST_SEEDS_OF_TEST:
            continue
        scaled = residuals / np.sqrt(free)
        sizes = np.sort(np.abs(scaled - np.median(scaled)))
        deviations.append(sizes[len(sizes) % 2 :])
        spreads[arm] = math.sqrt(float((residuals**2).sum() / free.sum()) / model.variance)
    num = len(deviations)
    if num < (3 if model.blocks else 2):
        return None
    within = sum(float(((sizes - sizes.mean()) ** 2).sum()) for sizes in deviations)
    together = np.concatenate(deviations)
    between = sum(len(sizes) * (float(sizes.mean()) - float(together.mean())) ** 2 for sizes in deviations)
    statistic = between / (num - 1) / (within / (len(together) - num)) if within > 0 else math.inf
    arm = max(spreads, key=lambda name: spreads[name])
    return VarianceTest(statistic, float(fdtrc(num - 1, len(together) - num, statistic)), spreads[arm], arm)


def moderated_variances(variances: ArrayLike, dfs: ArrayLike) -> tuple[Array, Array]:
    """Pull the variances of several arms towards what they have in common, the more the fewer values they rest on.

    Args:
        variances: ``(.., k)`` estimates above 0; each row is a group of its own.
        dfs: ``(k,)`` their degrees of freedom, above 0.

    Returns:
        ``(.., k)`` moderated variances, and ``(.., k)`` their degrees of freedom, at most ``LARGEST_DF``. With fewer
        than three variances they are the pooled one, for how far they vary cannot be told.

    Source:
        Smyth 2004, Linear Models and Empirical Bayes Methods, Statistical Applications in Genetics and Molecular
        Biology 3(1), section 6.2: the prior is fitted to the moments of the log variances. R: ``limma::squeezeVar``.
    """
    from scipy.special import digamma, polygamma

    observed, df = np.asarray(variances, dtype=np.float64), np.asarray(dfs, dtype=np.float64)
    pooled = (observed * df).sum(axis=-1, keepdims=True) / df.sum()
    if observed.shape[-1] < 3:
        return np.broadcast_to(pooled, observed.shape), np.full_like(observed, df.sum())
    logs = np.log(observed) - digamma(df / 2) + np.log(df / 2)
    excess = logs.var(axis=-1, ddof=1, keepdims=True) - polygamma(1, df / 2).mean()
    prior_df = np.full_like(excess, LARGEST_DF)
    varies = excess > 2 / LARGEST_DF
    prior_df[varies] = 2 * _inverse_trigamma(excess[varies])
    prior = np.exp(logs.mean(axis=-1, keepdims=True) + digamma(prior_df / 2) - np.log(prior_df / 2))
    # Where they vary no more than chance they are one variance, of which the pooled one is the best estimate.
    prior = np.where(varies, prior, pooled)
    return (prior_df * prior + df * observed) / (prior_df + df), np.minimum(prior_df + df, LARGEST_DF)


def by_own_variances(
    values: Values, *, baseline: str, moderate: bool = True, confidence: float = 0.95
) -> Family:
    """Compare every arm with the baseline by the variance of its own differences within a seed.

    For groups whose arms vary differently, the baseline among them: the common variance of ``fit_group`` is then too
    small for some intervals. With a baseline of twice the standard deviation of ten arms the pooled intervals cover 82%
    together, moderated ones 94%, own ones 96%. Where all variances are equal, moderated intervals are 1.13 times as
    wide at 4 seeds and 1.07 times at 6, own ones 2.4 and 1.6 times (``make simulate``).

    Args:
        values: By arm, its value at each seed.
        baseline: The arm that the others are compared with.
        moderate: Whether the variances are pulled towards each other. The interval of a single arm that varies far more
            than the others is then too narrow: with one of ten at three times the standard deviation coverage is 89%.
        confidence: 1 minus the family-wise error, in (0, 1).

    Returns:
        A contrast for each arm that shares two seeds with the baseline, all values finite; its critical value is the
        largest of those used.

    Source:
        Per-arm variances and degrees of freedom: Hasler and Hothorn 2008, Biometrical Journal 50; moderated: Smyth
        2004. Deviations: the degrees of freedom of moderated variances are no more than those of k variances with a
        correlation of 1/4, k g / (1 + (k - 1) / 4), as differences to one baseline have; without moderation the
        statistics are taken for independent, which is Sidak's bound.
    """
    own = values[baseline]
    pairs = {
        arm: [of_arm[seed] - own[seed] for seed in of_arm.keys() & own.keys()]
        for arm, of_arm in values.items()
        if arm != baseline
    }
    usable = {arm: np.array(p) for arm, p in pairs.items() if len(p) >= 2 and can_be_compared(p) and np.ptp(p) > 0}
    if not usable:
        return Family({}, None, confidence)
    num = len(usable)
    variances, dfs = [float(p.var(ddof=1)) for p in usable.values()], [len(p) - 1.0 for p in usable.values()]
    if moderate:
        moderated, moderated_dfs = moderated_variances(variances, dfs)
        variances, dfs = moderated.tolist(), np.minimum(moderated_dfs, sum(dfs) / (1 + (num - 1) / 4)).tolist()
    estimates = {
        arm: (float(differences.mean()), math.sqrt(variance / len(differences)), df)
        for (arm, differences), variance, df in zip(usable.items(), variances, dfs, strict=True)
    }
    return family_of(estimates, moderate=moderate, confidence=confidence)


def family_of(
    estimates: Mapping[str, tuple[float, float, float]], *, moderate: bool, confidence: float = 0.95
) -> Family:
    """Make a family of contrasts with one baseline that each have an error of their own.

    Args:
        estimates: By arm, its estimate, the standard error, above 0, and that one's degrees of freedom.
        moderate: Whether the statistics are taken to correlate as differences to one baseline do; else for independent.
        confidence: 1 minus the family-wise error, in (0, 1).
    """
    from scipy.special import stdtr, stdtrit

    contrasts, largest, num = {}, 0.0, len(estimates)
    for arm, (estimate, error, df) in estimates.items():
        t = abs(estimate) / error
        single = 2 * float(stdtr(df, -t))
        if moderate:
            critical = dunnett_critical(num, df, confidence=confidence)
            adjusted = 1 - dunnett_coverage(t, num, df)
        else:
            critical = float(stdtrit(df, 1 - (1 - confidence ** (1 / num)) / 2))
            adjusted = -math.expm1(num * math.log1p(-single)) if single < 1 else 1.0
        largest = max(largest, critical)
        contrasts[arm] = Contrast(
            estimate, error, df, estimate - critical * error, estimate + critical * error, max(adjusted, single), single
        )
    return Family(contrasts, largest if contrasts else None, confidence)


def _inverse_trigamma(values: Array) -> Array:
    """Return the x at which the trigamma function is each of some values above 0, by Newton's method."""
    from scipy.special import polygamma

    x = 0.5 + 1 / values
    for _ in range(60):
        there = polygamma(1, x)
        step = there * (1 - there / values) / polygamma(2, x)
        x = x + step
        if (np.abs(step) <= 1e-9 * x).all():
            break
    return np.asarray(x)
