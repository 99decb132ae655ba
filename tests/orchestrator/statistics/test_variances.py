"""Unequal variances: the test against SciPy's, moderation against limma's formulas, intervals against Student's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from orchestrator.statistics.dunnett import LARGEST_DF
from orchestrator.statistics.model import fit_group
from orchestrator.statistics.variances import by_own_variances, moderated_variances, unequal_variances


def group(sds: list[float], num_seeds: int, seed: int = 0) -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(seed)
    return {f"{arm}": dict(enumerate(map(float, rng.normal(0, sd, num_seeds)))) for arm, sd in enumerate(sds)}


def test_without_blocks_the_test_is_brown_and_forsythes() -> None:
    values = group([1, 1, 2], 8)
    found = unequal_variances(fit_group(values, baseline="0", blocks=False))
    expected = scipy.stats.levene(*(list(of_arm.values()) for of_arm in values.values()), center="median")
    assert found is not None
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_zero_among_an_odd_number_of_deviations_is_left_out() -> None:
    values = {"0": {0: 0.0, 1: 1.0, 2: 3.0, 3: -1.0, 4: -2.0}, "1": {0: 0.0, 1: 4.0, 2: 5.0, 3: -3.0, 4: -6.0}}
    found = unequal_variances(fit_group(values, baseline="0", blocks=False))
    expected = scipy.stats.f_oneway([1, 3, 1, 2], [4, 5, 3, 6])
    assert found is not None
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue))


def test_an_arm_that_varies_more_is_named() -> None:
    found = unequal_variances(fit_group(group([1, 1, 1, 1, 1, 8], 10), baseline="0"))
    assert found is not None
    assert (found.arm, found.p_value < 0.01, 2 < found.largest_ratio < math.sqrt(6)) == ("5", True, True)


def test_too_few_arms_or_seeds_cannot_tell() -> None:
    assert unequal_variances(fit_group(group([1, 2, 3], 3), baseline="0")) is None
    assert unequal_variances(fit_group(group([1, 9], 8), baseline="0")) is None
    assert unequal_variances(fit_group({"0": {0: 1.0, 1: 1.0}, "1": {0: 2.0, 1: 2.0}}, baseline="0")) is None


def test_moderated_variances_follow_the_prior_that_the_log_variances_show() -> None:
    # Drawn from the model: 1 / sigma^2 is chi-squared with 6 degrees of freedom over 6 x 2; 400 arms of 4 degrees.
    rng = np.random.default_rng(0)
    true = 6 * 2 / rng.chisquare(6, 400)
    observed = true * rng.chisquare(4, 400) / 4
    moderated, df = moderated_variances(observed, [4.0] * 400)
    assert df[0] - 4 == pytest.approx(6, abs=2)
    prior_df = df[0] - 4
    prior = (moderated[0] * df[0] - 4 * observed[0]) / prior_df
    assert prior == pytest.approx(2, abs=0.2)
    assert moderated * df == pytest.approx(prior_df * prior + 4 * observed)
    assert ((np.log(moderated) - np.log(true)) ** 2).mean() < ((np.log(observed) - np.log(true)) ** 2).mean()


def test_variances_that_vary_no_more_than_chance_are_pooled() -> None:
    alike, df = moderated_variances([1.9, 2.0, 2.0, 2.1], [3.0] * 4)
    assert (alike.tolist(), df.tolist()) == (pytest.approx([2.0] * 4, rel=1e-4), [LARGEST_DF] * 4)
    few, df = moderated_variances([1.0, 3.0], [2.0, 6.0])
    assert (few.tolist(), df.tolist()) == ([2.5, 2.5], [8.0, 8.0])


def test_own_variances_of_one_arm_are_students_paired_test() -> None:
    values = group([1, 2], 6)
    expected = scipy.stats.ttest_rel(list(values["1"].values()), list(values["0"].values()))
    contrast = by_own_variances(values, baseline="0", moderate=False).contrasts["1"]
    assert contrast.p_value == pytest.approx(expected.pvalue)
    assert (contrast.low, contrast.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_own_variances_of_several_arms_are_sidaks_bound() -> None:
    values = group([1, 2, 1, 0.5], 6)
    family = by_own_variances(values, baseline="0", moderate=False)
    level = 1 - 0.95 ** (1 / 3)
    assert family.critical == pytest.approx(scipy.stats.t.isf(level / 2, 5))
    for arm, contrast in family.contrasts.items():
        single = scipy.stats.ttest_rel(list(values[arm].values()), list(values["0"].values())).pvalue
        assert (contrast.p_single, contrast.p_value) == pytest.approx((single, 1 - (1 - single) ** 3))


def test_moderated_intervals_lie_between_pooled_and_own_where_variances_are_equal() -> None:
    values = group([1] * 11, 4, seed=3)
    own, moderated = (by_own_variances(values, baseline="0", moderate=moderate) for moderate in (False, True))
    assert own.critical > moderated.critical > 2.76
    assert {contrast.df for contrast in moderated.contrasts.values()} <= {30 / (1 + 9 / 4)}


def test_arms_without_two_common_seeds_or_with_values_that_are_not_finite_have_no_interval() -> None:
    values = group([1, 1, 1, 1], 5) | {"one": {0: 2.0}, "lost": {0: math.nan, 1: 1.0, 2: 1.0}}
    values["3"] = {seed: value + 1 for seed, value in values["0"].items()}
    assert list(by_own_variances(values, baseline="0").contrasts) == ["1", "2", "3"]
    assert by_own_variances({"0": values["0"]}, baseline="0").contrasts == {}
