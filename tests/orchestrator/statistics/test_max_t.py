"""The largest |t| of any correlation against Dunnett's integral, Dunnett 1955 and known limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.max_t import NEAR, MaxT, max_t, max_t_coverage, max_t_critical


def equal(num: int, correlation: float) -> NDArray[np.float64]:
    matrix = np.full((num, num), correlation)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def on_the_lattice(matrix: NDArray[np.float64], df: float) -> MaxT:
    found = MaxT(matrix, df)
    found._prepare_lattice(matrix)
    return found


@pytest.mark.parametrize(("num", "df", "correlation"), [(2, 10, 0.5), (10, 30, 0.5), (20, 60, 0.2), (5, 8, 0.9)])
def test_equal_correlations_give_dunnetts_value(num: int, df: float, correlation: float) -> None:
    expected = dunnett_critical(num, df, correlation=correlation)
    assert max_t_critical(equal(num, correlation), df) == pytest.approx(expected, abs=1e-4)
    assert max_t_coverage(expected, equal(num, correlation), df) == pytest.approx(0.95, abs=1e-5)


def test_dunnetts_d_of_two_arms_and_ten_degrees_of_freedom_is_2_57() -> None:
    assert max_t_critical(equal(2, 0.5), 10) == pytest.approx(2.57, abs=0.005)


def test_the_lattice_gives_dunnetts_value() -> None:
    for num, df in ((3, 20), (10, 120)):
        assert on_the_lattice(equal(num, 0.5), df).critical() == pytest.approx(dunnett_critical(num, df), abs=0.005)


def test_unequal_samples_give_the_coverage_of_scipys_multivariate_t() -> None:
    # Arms of 3, 5 and 9 values against a baseline of 6: the correlation is a product, exactly one factor.
    loadings = np.sqrt([3 / 9, 5 / 11, 9 / 15])
    matrix = np.outer(loadings, loadings)
    np.fill_diagonal(matrix, 1.0)
    found = max_t(matrix, 19)
    assert found.is_one_factor
    limits = np.full(3, found.critical())
    reference = scipy.stats.multivariate_t(shape=matrix, df=19, seed=0)
    assert reference.cdf(limits, lower_limit=-limits, maxpts=100_000) == pytest.approx(0.95, abs=2e-4)


@pytest.mark.parametrize(("num", "df", "low", "high"), [(4, 7, 0.6, 0.8), (9, 62, 0.6, 0.75), (40, 80, 0.3, 0.8)])
def test_many_loadings_give_the_integral_by_a_finer_rule(num: int, df: int, low: float, high: float) -> None:
    loadings = np.random.default_rng(0).uniform(low, high, num)
    matrix = np.outer(loadings, loadings)
    np.fill_diagonal(matrix, 1.0)
    found = max_t(matrix, df)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    factor, deviation = 8 * nodes, 1.5 + 1.49 * nodes
    of_factor = 8 * weights * scipy.stats.norm.pdf(factor)
    of_deviation = 1.49 * weights * scipy.stats.chi.pdf(deviation, df, scale=1 / math.sqrt(df))
    for critical in (1.5, found.critical(), 5.0):
        together = np.ones((len(deviation), len(factor)))
        for loading in loadings:
            own = math.sqrt(1 - loading**2)
            up, down = ((sign * critical * deviation[:, None] - loading * factor) / own for sign in (1, -1))
            together *= scipy.special.ndtr(up) - scipy.special.ndtr(down)
        expected = of_deviation @ together @ of_factor
        assert found.coverage(critical) == pytest.approx(expected, abs=2e-8)
    assert found.coverage(found.critical()) == pytest.approx(0.95, abs=1e-6)
    assert found._center.size < 8000  # few places of the integrand: a table has thousands of such integrals


def test_correlations_far_from_one_factor_go_to_the_lattice() -> None:
    matrix = np.array([[1.0, 0.5, -0.5], [0.5, 1.0, 0.45], [-0.5, 0.45, 1.0]])
    found = max_t(matrix, 40)
    assert not found.is_one_factor
    limits = np.full(3, found.critical())
    reference = scipy.stats.multivariate_t(shape=matrix, df=40, seed=0)
    assert reference.cdf(limits, lower_limit=-limits, maxpts=100_000) == pytest.approx(0.95, abs=1e-3)


def test_the_nearest_factor_stands_for_correlations_close_to_it() -> None:
    rng = np.random.default_rng(0)
    moved = equal(8, 0.5) + (noise := rng.uniform(-0.03, 0.03, (8, 8))) + noise.T
    np.fill_diagonal(moved, 1.0)
    found = max_t(moved, 25)
    assert found.is_one_factor
    assert np.abs(moved - equal(8, 0.5)).max() < NEAR
    assert found.critical() == pytest.approx(on_the_lattice(moved, 25).critical(), abs=0.006)


def test_independent_statistics_of_a_known_deviation_are_sidaks() -> None:
    expected = scipy.stats.norm.isf((1 - 0.95 ** (1 / 6)) / 2)
    assert max_t_critical(np.eye(6), math.inf) == pytest.approx(expected, abs=1e-5)


def test_statistics_that_are_one_are_students_t() -> None:
    assert max_t_critical(equal(4, 1.0), 12) == pytest.approx(scipy.stats.t.ppf(0.975, 12), abs=0.02)
    assert max_t_critical(np.eye(1), 12) == pytest.approx(scipy.stats.t.ppf(0.975, 12), abs=1e-9)


def test_opposite_signs_do_not_matter_to_the_largest_size() -> None:
    assert max_t_critical(equal(2, -0.4), 9) == max_t_critical(equal(2, 0.4), 9)


def test_a_p_value_is_the_level_at_which_the_statistic_is_critical() -> None:
    found = max_t(equal(5, 0.5), 16)
    statistics = [found.critical(0.95), -found.critical(0.9), 0.0, math.inf]
    assert found.p_values(statistics) == pytest.approx([0.05, 0.1, 1.0, 0.0], abs=1e-6)
    assert max_t(np.eye(1), 7).p_values([2.0]) == pytest.approx([2 * scipy.stats.t.sf(2.0, 7)])


def test_p_values_of_many_statistics_are_interpolated_closely() -> None:
    found = max_t(equal(200, 0.5), 600)
    sizes = np.linspace(0, 5, 200)
    few = [1 - found.coverage(size) for size in sizes[::40]]
    assert found.p_values(sizes)[::40] == pytest.approx(few, abs=2e-3)


@pytest.mark.parametrize(
    ("matrix", "df", "text"),
    [
        (np.zeros((2, 3)), 5, "square matrix"),
        (np.array([[1.0, 0.5], [0.2, 1.0]]), 5, "symmetric"),
        (np.array([[2.0, 0.5], [0.5, 1.0]]), 5, "symmetric with 1 on the diagonal"),
        (np.eye(2), 0.5, "df must be at least 1"),
    ],
)
def test_what_is_no_correlation_is_refused(matrix: NDArray[np.float64], df: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        max_t(matrix, df)


def test_a_confidence_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence must be in"):
        max_t(np.eye(2), 5).critical(1.0)
