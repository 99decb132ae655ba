"""Dunnett's critical values against his table of 1964, SciPy's multivariate t and limits that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from orchestrator.statistics.dunnett import critical_near, dunnett_coverage, dunnett_critical

NUM_CONTRASTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 20)
TWO_SIDED_5_PERCENT = {
    5: (2.57, 3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97, 4.03, 4.09, 4.14, 4.26, 4.42),
    10: (2.23, 2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24, 3.29, 3.33, 3.36, 3.45, 3.57),
    20: (2.09, 2.38, 2.54, 2.65, 2.73, 2.80, 2.86, 2.90, 2.95, 2.98, 3.02, 3.05, 3.12, 3.22),
    60: (2.00, 2.27, 2.41, 2.51, 2.58, 2.64, 2.69, 2.73, 2.77, 2.80, 2.83, 2.86, 2.92, 3.00),
    120: (1.98, 2.24, 2.38, 2.47, 2.55, 2.60, 2.65, 2.69, 2.73, 2.76, 2.79, 2.81, 2.87, 2.95),
    math.inf: (1.96, 2.21, 2.35, 2.44, 2.51, 2.57, 2.61, 2.65, 2.69, 2.72, 2.74, 2.77, 2.83, 2.91),
}
"""Dunnett 1964, Biometrics 20, table II: by degrees of freedom, for contrasts of correlation 1/2."""


@pytest.mark.parametrize("df", TWO_SIDED_5_PERCENT)
def test_critical_values_equal_the_published_table_to_its_last_digit(df: float) -> None:
    computed = [dunnett_critical(k, df) for k in NUM_CONTRASTS]
    assert computed == pytest.approx(TWO_SIDED_5_PERCENT[df], abs=0.0055)


@pytest.mark.parametrize(("num_contrasts", "df"), [(1, 3), (4, 8.5), (10, 33), (20, 700)])
def test_the_interpolated_critical_value_is_near_the_computed_one(num_contrasts: int, df: float) -> None:
    assert critical_near(num_contrasts, df) == pytest.approx(dunnett_critical(num_contrasts, df), rel=2e-3)


@pytest.mark.parametrize(
    ("num_contrasts", "df", "correlation"), [(3, 4, 0.5), (10, 20, 0.5), (4, 3, 0.9), (3, 7, 0.0), (5, 1, 0.3)]
)
def test_the_critical_value_has_the_coverage_that_scipys_multivariate_t_gives(
    num_contrasts: int, df: int, correlation: float
) -> None:
    critical = dunnett_critical(num_contrasts, df, correlation=correlation)
    shape = np.full((num_contrasts, num_contrasts), correlation)
    np.fill_diagonal(shape, 1.0)
    reference = scipy.stats.multivariate_t(shape=shape, df=df, seed=0)
    limits = np.full(num_contrasts, critical)
    assert reference.cdf(limits, lower_limit=-limits, maxpts=200_000) == pytest.approx(0.95, abs=2e-4)


def test_independent_contrasts_of_a_known_deviation_have_the_product_of_their_coverages() -> None:
    one = 2 * scipy.stats.norm.cdf(1.7) - 1
    assert dunnett_coverage(1.7, 6, math.inf, correlation=0.0) == pytest.approx(one**6, abs=1e-12)


@pytest.mark.parametrize("df", [1, 2.5, 30, 1e7])
def test_one_contrast_is_students_t(df: float) -> None:
    assert dunnett_critical(1, df, confidence=0.9) == pytest.approx(scipy.stats.t.ppf(0.95, df), abs=1e-5)
    assert dunnett_coverage(1.3, 1, df) == pytest.approx(2 * scipy.stats.t.cdf(1.3, df) - 1, abs=1e-6)


def test_a_known_deviation_is_the_limit_of_many_degrees_of_freedom() -> None:
    assert dunnett_critical(10, 1e5) == pytest.approx(dunnett_critical(10, math.inf), abs=1e-4)


def test_coverage_goes_from_zero_to_one() -> None:
    assert (dunnett_coverage(0.0, 4, 3), dunnett_coverage(1e6, 4, 3)) == (0.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"num_contrasts": 0, "df": 3}, "num_contrasts must be at least 1, not 0"),
        ({"num_contrasts": 2, "df": 0.5}, "df must be at least 1, not 0.5"),
        ({"num_contrasts": 2, "df": math.nan}, "df must be at least 1, not nan"),
        ({"num_contrasts": 2, "df": 3, "correlation": 1.0}, "correlation must be in"),
        ({"num_contrasts": 2, "df": 3, "confidence": 1.0}, "confidence must be in"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dunnett_critical(**given)
    if "confidence" not in given:
        with pytest.raises(ValueError, match=text):
            dunnett_coverage(2.0, **given)


def test_a_negative_critical_value_is_refused() -> None:
    with pytest.raises(ValueError, match="critical must be at least 0"):
        dunnett_coverage(-1.0, 2, 3)
