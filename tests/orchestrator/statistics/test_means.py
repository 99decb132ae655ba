"""Means of two sets of arms: of one arm against scipy's t tests, of several by arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from orchestrator.statistics.max_t import max_t_critical
from orchestrator.statistics.means import differences_of_means


def values(num_seeds: int, seed: int, *, first_seed: int = 0, sd: float = 1.0) -> dict[int, float]:
    rng = np.random.default_rng(seed)
    return {first_seed + number: float(rng.normal(0, sd)) for number in range(num_seeds)}


def test_of_one_arm_the_paired_interval_is_students() -> None:
    first, second = values(6, 0), values(5, 1, first_seed=1)
    expected = scipy.stats.ttest_rel([first[s] for s in range(1, 6)], [second[s] for s in range(1, 6)])
    contrast = differences_of_means({"a": first}, {"a": second}, paired=True).contrasts["a"]
    assert (contrast.df, contrast.p_value) == (4, pytest.approx(expected.pvalue))
    assert (contrast.low, contrast.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_of_one_arm_the_unpaired_interval_is_welchs() -> None:
    first, second = values(6, 0), values(9, 1, sd=3.0)
    expected = scipy.stats.ttest_ind(list(first.values()), list(second.values()), equal_var=False)
    contrast = differences_of_means({"a": first}, {"a": second}, paired=False).contrasts["a"]
    assert (contrast.df, contrast.p_value) == (pytest.approx(expected.df), pytest.approx(expected.pvalue))
    assert (contrast.low, contrast.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_several_arms_share_a_variance_and_an_error() -> None:
    first = {"a": {0: 2.0, 1: 4.0, 2: 6.0}, "b": {0: 1.0, 1: 1.0, 2: 7.0}, "c": {0: 5.0}}
    zeros = {arm: dict.fromkeys(range(3), 0.0) for arm in "abc"}
    family = differences_of_means(first, zeros, paired=True)
    # Squares of a: 4 + 0 + 4, of b: 4 + 4 + 16, of c none; 2 + 2 + 0 degrees of freedom.
    assert family.contrasts["a"].standard_error == pytest.approx(math.sqrt(8 / 3))
    assert family.contrasts["c"].standard_error == pytest.approx(math.sqrt(8))
    assert {contrast.df for contrast in family.contrasts.values()} == {4}
    assert family.critical == pytest.approx(max_t_critical(np.eye(3), 4), abs=1e-3)


def test_what_could_have_been_seen_is_found_with_80_percent() -> None:
    family = differences_of_means({"a": values(5, 0)}, {"a": values(5, 1)}, paired=True)
    assert family.critical == pytest.approx(scipy.stats.t.ppf(0.975, 4), abs=1e-3)
    assert family.detectable is not None
    shifted = scipy.stats.nct(4, family.detectable / family.contrasts["a"].standard_error)
    assert shifted.sf(family.critical) + shifted.cdf(-family.critical) == pytest.approx(0.8, abs=1e-4)
    assert differences_of_means({}, {}, paired=True).detectable is None


def test_what_cannot_be_compared_is_left_out() -> None:
    first = {"a": {0: 1.0, 1: 2.0}, "nan": {0: math.nan, 1: 1.0}, "other": {5: 1.0, 6: 1.0}, "mine": {0: 1.0}}
    second = {"a": {0: 0.0, 1: 0.5}, "nan": {0: 1.0, 1: 1.0}, "other": {0: 1.0, 1: 1.0}}
    assert list(differences_of_means(first, second, paired=True).contrasts) == ["a"]
    assert list(differences_of_means(first, second, paired=False).contrasts) == ["a", "other"]
    assert differences_of_means({"a": {0: 1.0}}, {"a": {0: 2.0}}, paired=True).contrasts == {}
    assert differences_of_means({"a": {0: 1.0}}, {"a": {0: 2.0, 1: 3.0}}, paired=False).contrasts == {}
    assert differences_of_means({}, second, paired=False).contrasts == {}
