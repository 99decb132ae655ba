"""Across groups: whether an arm does in one group what it does in another, and what it does on the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.model import Values, fit_group
from orchestrator.statistics.simultaneous import Family, against_baseline, from_covariance
from orchestrator.statistics.variances import Variances, by_own_variances, family_of


@dataclass(frozen=True)
class CombinedEffect:
    """An effect over groups, of which those that were run are a sample.

    Attributes:
        estimate: Mean over groups, in the unit of the effects.
        standard_error: Of it.
        low: Lower end of its interval.
        high: Upper end of it.
        p_value: Two-sided, of a mean of 0.
        tau: Standard deviation of the true effects over groups.
        i_squared: Share of the spread of the estimates that is not their own noise, in [0, 1).
        heterogeneity_p: Of the hypothesis that all groups have the same effect (Cochran's Q).
        num_groups: Groups that it rests on.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    p_value: float
    tau: float
    i_squared: float
    heterogeneity_p: float
    num_groups: int


def difference_of_differences(
    first: Values,
    second: Values,
    *,
    baseline: str,
    same_seeds: bool | None = None,
    variances: Variances = "pooled",
    confidence: float = 0.95,
) -> Family:
    """Estimate how much more each arm differs from the baseline in one group than in another: an interaction.

    With the same seeds in both, the two groups' difference at each seed is the value, and seeds are its blocks:
    whatever the groups share at a seed cancels, and nothing is assumed of what they do not. Else the groups are
    independent, each has its own residual variance, and the degrees of freedom are Satterthwaite's.

    Args:
        first: By arm, its value at each seed, in the one group.
        second: The same in the other.
        baseline: The baseline of both.
        same_seeds: Whether a seed means the same in both; None: if the baselines have the same seeds.
        variances: ``pooled``: one residual variance for all arms; ``own``: each arm's own; ``moderated``: these, pulled
            towards each other.
        confidence: 1 minus the family-wise error over the arms, in (0, 1).

    Returns:
        By arm of both groups, (arm - baseline in the first) - (arm - baseline in the second).

    Raises:
        ValueError: If the baseline is not in both.

    Source:
        The interaction contrast of a split plot with seeds as blocks: Cochran and Cox 1957, Experimental Designs,
        chapter 7. Satterthwaite 1946, Biometrics Bulletin 2. Variances that are not pooled: ``by_own_variances``.
    """
    for values in (first, second):
        if baseline not in values:
            raise ValueError(f"baseline must be an arm among {', '.join(values)}, not {baseline!r}")
    if same_seeds is None:
        same_seeds = first[baseline].keys() == second[baseline].keys()
    shared = [arm for arm in first if arm in second]
    if same_seeds:
        table = {
            arm: {seed: first[arm][seed] - second[arm][seed] for seed in first[arm].keys() & second[arm].keys()}
            for arm in shared
        }
        if variances != "pooled":
            moderate = variances == "moderated"
            return by_own_variances(table, baseline=baseline, moderate=moderate, confidence=confidence)
        return against_baseline(fit_group(table, baseline=baseline), confidence=confidence)
    if variances != "pooled":
        return _independent(first, second, shared, baseline, variances == "moderated", confidence)
    one, other = (fit_group({arm: values[arm] for arm in shared}, baseline=baseline) for values in (first, second))
    arms = tuple(arm for arm in one.arms[1:] if arm in other.arms)
    if not arms or one.df < 1 or other.df < 1:
        return Family({}, None, confidence)
    estimates, parts, sizes = [], [], []
    for model in (one, other):
        rows = [model.arms.index(arm) for arm in arms]
        estimates.append(model.estimates[rows])
        parts.append(model.unscaled[np.ix_(rows, rows)] * model.variance)
        sizes.append(float(np.trace(parts[-1])))
    noise = sizes[0] ** 2 / one.df + sizes[1] ** 2 / other.df
    df = sum(sizes) ** 2 / noise if noise > 0 else float(one.df + other.df)
    return from_covariance(arms, estimates[0] - estimates[1], parts[0] + parts[1], df, confidence=confidence)


def _independent(
    first: Values, second: Values, shared: Sequence[str], baseline: str, moderate: bool, confidence: float
) -> Family:
    """Return the differences of differences of groups that share no seed, by the arms' own variances."""
    one, other = (
        by_own_variances({arm: values[arm] for arm in shared}, baseline=baseline, moderate=moderate).contrasts
        for values in (first, second)
    )
    estimates = {}
    for arm in one.keys() & other.keys():
        squares = [contrast.standard_error**2 for contrast in (one[arm], other[arm])]
        noise = squares[0] ** 2 / one[arm].df + squares[1] ** 2 / other[arm].df
        estimate = one[arm].estimate - other[arm].estimate
        estimates[arm] = (estimate, math.sqrt(sum(squares)), sum(squares) ** 2 / noise)
    in_order = {arm: estimates[arm] for arm in shared if arm in estimates}
    return family_of(in_order, moderate=moderate, confidence=confidence)


def combine_effects(
    estimates: Sequence[float],
    standard_errors: Sequence[float],
    *,
    method: Literal["paule_mandel", "dersimonian_laird"] = "paule_mandel",
    confidence: float = 0.95,
) -> CombinedEffect | None:
    """Combine the effects of several groups, which may differ from group to group.

    The interval is Hartung and Knapp's, on Student's t with G - 1 degrees of freedom: with two or three groups it is
    wide, and rightly so. Groups that share seeds are not independent; where pairing is worth nothing they are nearly
    so.

    Args:
        estimates: ``(G,)`` an effect for each group.
        standard_errors: ``(G,)`` theirs, above 0.
        method: How the variance over groups is estimated.
        confidence: Of the interval, in (0, 1).

    Returns:
        The combined effect, or None with fewer than two groups.

    Raises:
        ValueError: If a number is not finite or a standard error is not above 0.

    Source:
        DerSimonian and Laird 1986, Controlled Clinical Trials 7; Paule and Mandel 1982, Journal of Research of the
        National Bureau of Standards 87; interval: Hartung and Knapp 2001, Statistics in Medicine 20, not narrower than
        with a scale of 1: Roever, Knapp and Friede 2015, BMC Medical Research Methodology 15. R: ``metafor::rma(test =
        "adhoc")``.
    """
    from scipy.special import chdtrc, stdtr, stdtrit

    effects, errors = (np.asarray(numbers, dtype=np.float64) for numbers in (estimates, standard_errors))
    if len(effects) != len(errors) or not np.isfinite([effects, errors]).all() or not (errors > 0).all():
        raise ValueError("must be as many finite effects as standard errors above 0")
    num = len(effects)
    if num < 2:
        return None
    precision = errors**-2
    fixed = float(precision @ effects / precision.sum())
    q = float(precision @ (effects - fixed) ** 2)
    surplus = precision.sum() - (precision**2).sum() / precision.sum()
    tau_squared = max(0.0, (q - (num - 1)) / float(surplus))
    if method == "paule_mandel":
        tau_squared = _paule_mandel(effects, errors, tau_squared) if q > num - 1 else 0.0
    weights = 1 / (errors**2 + tau_squared)
    mean = float(weights @ effects / weights.sum())
    scale = max(1.0, float(weights @ (effects - mean) ** 2) / (num - 1))
    error = math.sqrt(scale / float(weights.sum()))
    reach = float(stdtrit(num - 1, (1 + confidence) / 2)) * error
    return CombinedEffect(
        estimate=mean,
        standard_error=error,
        low=mean - reach,
        high=mean + reach,
        p_value=2 * float(stdtr(num - 1, -abs(mean) / error)),
        tau=math.sqrt(tau_squared),
        i_squared=max(0.0, 1 - (num - 1) / q) if q > 0 else 0.0,
        heterogeneity_p=float(chdtrc(num - 1, q)),
        num_groups=num,
    )


def _paule_mandel(effects: NDArray[np.float64], errors: NDArray[np.float64], start: float) -> float:
    """Return the variance over groups at which the weighted squares are what they should be, G - 1."""
    from scipy.optimize import brentq

    def excess(variance: float) -> float:
        weights = 1 / (errors**2 + variance)
        mean = weights @ effects / weights.sum()
        return float(weights @ (effects - mean) ** 2) - (len(effects) - 1)

    high = max(start, float(errors.max()) ** 2)
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-12 * high, rtol=1e-12))
