"""Intervals of a spread, correlations and variance components, against arithmetic, SciPy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.statistics.spread import correlation, sd_interval, variance_components

values = st.lists(st.integers(-1000, 1000).map(float), min_size=3, max_size=9)


def test_the_interval_of_a_deviation_is_that_of_the_chi_squared_table() -> None:
    # Upper and lower 2.5% points of chi-squared with 9 degrees of freedom: 19.023 and 2.700.
    expected = (2 * math.sqrt(9 / 19.023), 2 * math.sqrt(9 / 2.700))
    assert sd_interval(2.0, 9) == pytest.approx(expected, abs=1e-3)


def test_the_interval_of_a_deviation_covers_it_as_often_as_it_says() -> None:
    samples = np.random.default_rng(3).normal(0, 1.5, (2000, 5)).std(axis=1, ddof=1)
    covered = [low <= 1.5 <= high for low, high in (sd_interval(sd, 4, 0.9) for sd in samples)]
    assert np.mean(covered) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 2000))


@pytest.mark.parametrize("numbers", [(-1.0, 3), (1.0, 0), (math.nan, 3), (1.0, 3, 1.0)])
def test_an_interval_of_numbers_out_of_range_is_refused(numbers: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be sd >= 0"):
        sd_interval(*numbers)


@settings(max_examples=30, deadline=None)
@given(values, st.data())
def test_correlation_equals_scipys(first: list[float], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(-1000, 1000).map(float), min_size=len(first), max_size=len(first)))
    found = correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(scipy.stats.pearsonr(first, second).statistic, abs=1e-9)


def test_correlation_of_too_few_or_infinite_values_is_none() -> None:
    assert correlation([1.0, 2.0], [1.0, 2.0]) is None
    assert correlation([1.0, 2.0, math.inf], [1.0, 2.0, 3.0]) is None
    assert correlation([0.1] * 3, [1.0, 2.0, 3.0]) is None


def test_correlation_of_unequally_many_values_is_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        correlation([1.0], [1.0, 2.0])


def test_variance_components_of_a_table_without_residual_are_those_of_its_sides() -> None:
    table = np.add.outer([0.0, 3.0, 6.0], [1.0, -1.0])
    found = variance_components(table)
    assert (found.rows, found.columns, found.residual) == pytest.approx((3.0, math.sqrt(2), 0.0), abs=1e-9)


def test_variance_components_are_right_on_average() -> None:
    rng = np.random.default_rng(5)
    shape = (1500, 6, 5)
    tables = rng.normal(0, 2.0, (1500, 6, 1)) + rng.normal(0, 1.0, (1500, 1, 5)) + rng.normal(0, 0.5, shape)
    found = [variance_components(table) for table in tables]
    variances = [np.mean([getattr(part, name) ** 2 for part in found]) for name in ("rows", "columns", "residual")]
    assert variances == pytest.approx([4.0, 1.0, 0.25], rel=0.1)


def test_a_variance_estimated_below_zero_is_zero() -> None:
    assert variance_components([[1.0, -1.0], [-1.0, 1.0]]).rows == 0.0


@pytest.mark.parametrize("table", [[[1.0, 2.0]], [1.0, 2.0], [[1.0, math.nan], [1.0, 2.0]]])
def test_a_table_that_is_too_small_or_not_finite_is_refused(table: list[object]) -> None:
    with pytest.raises(ValueError, match="at least 2 x 2 finite values"):
        variance_components(table)
