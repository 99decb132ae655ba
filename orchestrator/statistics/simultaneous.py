"""Intervals and p-values for several contrasts of a group together, with one error rate for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.statistics.max_t import max_t
from orchestrator.statistics.model import GroupModel, can_be_compared
from orchestrator.statistics.power import detectable_shift

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """A difference, or another contrast of arms, in the unit of the values.

    Attributes:
        estimate: Its least-squares estimate.
        standard_error: Of it.
        df: Degrees of freedom of the standard error.
        low: Lower end of its simultaneous interval.
        high: Upper end of it.
        p_value: Two-sided, adjusted for all contrasts of the family.
        p_single: The same of this contrast alone.
    """

    estimate: float
    standard_error: float
    df: float
    low: float
    high: float
    p_value: float
    p_single: float


@dataclass(frozen=True)
class Family:
    """Contrasts whose intervals hold together.

    Attributes:
        contrasts: By name; none where the residual variance has no degree of freedom.
        critical: What intervals reach to either side, in standard errors; None without a contrast.
        confidence: Probability that all intervals cover what they estimate.
    """

    contrasts: Mapping[str, Contrast]
    critical: float | None
    confidence: float

    @property
    def detectable(self) -> float | None:
        """Return what a contrast must truly be to be found with 80% probability; None where that cannot be told.

        Of the contrast whose standard error is the median one.
        """
        contrasts = sorted(self.contrasts.values(), key=lambda contrast: contrast.standard_error)
        if self.critical is None or not contrasts:
            return None
        middle = contrasts[len(contrasts) // 2]
        if not middle.standard_error > 0:
            return None
        critical = (middle.high - middle.low) / (2 * middle.standard_error)  # where each has its own, not the largest
        if math.isclose(critical, self.critical, rel_tol=1e-9):  # rounding aside, it is that of all
            critical = self.critical
        return detectable_shift(middle.df, critical) * middle.standard_error


def against_baseline(model: GroupModel, *, confidence: float = 0.95) -> Family:
    """Compare every arm with the baseline: Dunnett's test with the estimates' true correlation.

    Args:
        model: The fit of the group.
        confidence: 1 minus the family-wise error, in (0, 1).

    Returns:
        A contrast for each arm but the baseline.

    Source:
        Dunnett 1955 and 1964; of a general linear model: Hothorn, Bretz and Westfall 2008, Simultaneous Inference in
        General Parametric Models, Biometrical Journal 50, and R's ``multcomp::glht(fit, mcp(arm = "Dunnett"))``.
    """
    return from_covariance(
        model.arms[1:], model.estimates[1:], model.unscaled[1:, 1:] * model.variance, model.df, confidence=confidence
    )


def beside_family(
    values: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    model: GroupModel,
    family: Family,
    pooled: bool = True,
    critical: float | None = None,
) -> Contrast | None:
    """Compare a control with the baseline by the yardstick of the arms: their residual variance and critical value.

    A control is no member of the group: it takes no part in the variance, where a repeat that differs by rounding alone
    would make all intervals too narrow, nor in the family, since it must not cost the arms any power. So its interval
    does not hold together with theirs: of a control that truly does nothing and varies as the arms do, it misses 0 with
    the probability with which one given arm's does, 5% beside a single arm, less beside several.

    Args:
        values: Of the control, by seed.
        baseline: Of the baseline, by seed.
        model: The fit of the arms and the baseline, of which the variance is taken. With blocks the control is compared
            within the seeds that both have, else by the means of all.
        family: The arms' contrasts with the baseline, of which the critical value is taken.
        pooled: Whether the family is of the pooled variance. Else each arm has a variance of its own, and the control's
            is the mean of them, with the fewest degrees of freedom that one of them has.
        critical: Another critical value, e.g. of a look; None: that of the family.

    Returns:
        The contrast; None without a seed in common, values that can be compared, or a yardstick.

    Source:
        A future mean of the same model: its difference to the baseline within n seeds has the variance 2 sigma^2 / n
        (without blocks sigma^2 / n + sigma^2 / m), and the arms' estimate of sigma is independent of it.
    """
    from scipy.special import stdtr

    common = sorted(values.keys() & baseline.keys())
    if not common or not family.contrasts or not math.isfinite(model.variance):
        return None
    if not can_be_compared((*values.values(), *baseline.values())):
        return None
    if model.blocks:
        estimate = math.fsum(values[seed] - baseline[seed] for seed in common) / len(common)
        scale = 2 / len(common)
    else:
        estimate = math.fsum(values.values()) / len(values) - math.fsum(baseline.values()) / len(baseline)
        scale = 1 / len(values) + 1 / len(baseline)
    error, df = math.sqrt(model.variance * scale), float(model.df)
    if not pooled:
        spreads = [found.standard_error**2 * model.num_seeds[arm] for arm, found in family.contrasts.items()]
        error = math.sqrt(math.fsum(spreads) / len(spreads) / len(common))
        df = min(found.df for found in family.contrasts.values())
    if error == 0:
        return Contrast(estimate, 0.0, df, estimate, estimate, float(estimate == 0), float(estimate == 0))
    reach = (family.critical or 0.0 if critical is None else critical) * error
    single = 2 * float(stdtr(df, -abs(estimate) / error))
    covariance = model.unscaled[1:, 1:]
    errors = np.sqrt(np.diag(covariance))
    (adjusted,) = max_t(covariance / np.outer(errors, errors), df).p_values([estimate / error])
    return Contrast(estimate, error, df, estimate - reach, estimate + reach, float(max(adjusted, single)), single)


def simultaneous(
    model: GroupModel, weights: Mapping[str, Mapping[str, float]], *, confidence: float = 0.95
) -> Family:
    """Estimate any contrasts of the arms together.

    Args:
        model: The fit of the group.
        weights: By name of a contrast, the weights of its arms, which sum to 0.
        confidence: 1 minus the family-wise error, in (0, 1).

    Returns:
        The contrasts by name.

    Raises:
        ValueError: If weights do not sum to 0 or are all 0, or an arm has no estimate.

    Source:
        See ``against_baseline``.
    """
    place = {arm: row for row, arm in enumerate(model.arms)}
    matrix = np.zeros((len(weights), len(model.arms)))
    for row, (name, of_arms) in enumerate(weights.items()):
        if unknown := [arm for arm in of_arms if arm not in place]:
            raise ValueError(f"{name}: no estimate of {', '.join(unknown)}")
        if abs(sum(of_arms.values())) > 1e-9 or not any(of_arms.values()):
            raise ValueError(f"{name}: weights must sum to 0 and not all be 0, not {dict(of_arms)}")
        matrix[row, [place[arm] for arm in of_arms]] = list(of_arms.values())
    covariance = matrix @ model.unscaled @ matrix.T * model.variance
    return from_covariance(tuple(weights), matrix @ model.estimates, covariance, model.df, confidence=confidence)


def from_covariance(
    names: tuple[str, ...], estimates: Array, covariance: Array, df: float, *, confidence: float = 0.95
) -> Family:
    """Make a family of estimates with a known covariance but for the variance's degrees of freedom.

    Args:
        names: Of the k contrasts.
        estimates: ``(k,)``.
        covariance: ``(k, k)`` of the estimates. Where it is 0, intervals have no width.
        df: Degrees of freedom of the variance in it; infinity = it is known.
        confidence: 1 minus the family-wise error, in (0, 1).
    """
    if not names or not df >= 1:
        return Family({}, None, confidence)
    errors = np.sqrt(np.diag(covariance))
    if not errors.all():
        # A metric that never varies: what differs at all differs for sure.
        exact = {
            name: Contrast(value, 0.0, df, value, value, float(value == 0), float(value == 0))
            for name, value in zip(names, estimates.tolist(), strict=True)
        }
        return Family(exact, None, confidence)
    from scipy.special import stdtr

    largest = max_t(covariance / np.outer(errors, errors), df)
    critical = largest.critical(confidence)
    t = estimates / errors
    single = 2 * stdtr(df if math.isfinite(df) else largest.df, -np.abs(t))
    contrasts = {
        name: Contrast(
            estimate=float(estimates[row]),
            standard_error=float(errors[row]),
            df=df,
            low=float(estimates[row] - critical * errors[row]),
            high=float(estimates[row] + critical * errors[row]),
            # Adjusting never lowers a p; the integral's last digits might.
            p_value=float(max(adjusted, single[row])),
            p_single=float(single[row]),
        )
        for row, (name, adjusted) in enumerate(zip(names, largest.p_values(t), strict=True))
    }
    return Family(contrasts, critical, confidence)
