"""The group model against statsmodels' ordinary least squares and Student's tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.statistics.model import fit_group
from orchestrator.statistics.simultaneous import against_baseline, simultaneous

UNBALANCED = {
    "none": {0: 10.0, 1: 12.0, 2: 11.0, 4: 9.5},
    "a": {0: 11.5, 1: 12.5, 3: 14.0},
    "b": {1: 13.0, 2: 12.5, 3: 12.0, 4: 11.0},
}


def test_an_unbalanced_group_has_the_estimates_of_statsmodels() -> None:
    # statsmodels 0.15.0: smf.ols('v ~ C(arm, Treatment("none")) + C(seed)', data).fit()
    model = fit_group(UNBALANCED, baseline="none")
    assert model.arms == ("none", "a", "b")
    assert model.estimates == pytest.approx([0.0, 1.585714, 1.071429], abs=1e-6)
    assert (model.df, model.variance) == (4, pytest.approx(0.5071428571428566))
    covariance = model.unscaled * model.variance
    expected = np.array([[0, 0, 0], [0, 0.376735, 0.144898], [0, 0.144898, 0.289796]])
    assert covariance == pytest.approx(expected, abs=1e-6)
    leverages = [model.leverages[arm][seed] for arm, of_arm in UNBALANCED.items() for seed in of_arm]
    hat = [0.68571429, 0.54285714, 0.64285714, 0.64285714, 0.68571429, 0.6]
    hat += [0.68571429, 0.54285714, 0.64285714, 0.68571429, 0.64285714]
    assert leverages == pytest.approx(hat)
    assert model.num_seeds == {"none": 4, "a": 2, "b": 3}


@pytest.mark.parametrize(("num_arms", "num_seeds"), [(4, 10), (9, 16), (12, 30), (10, 1000)])
def test_the_covariance_is_that_of_the_design_of_dummy_variables(num_arms: int, num_seeds: int) -> None:
    # What is singular by theory is so but for rounding, which differs from pattern to pattern: many of them.
    rng = np.random.default_rng(0)
    for _ in range(40 if num_seeds < 100 else 1):
        present = rng.random((num_arms, num_seeds)) > 0.03
        present[:, :2] = True
        values = {str(arm): {int(s): rng.normal(50) for s in np.flatnonzero(row)} for arm, row in enumerate(present)}
        model = fit_group(values, baseline="0")
        of_arms, of_seeds = present.nonzero()
        arms, seeds = np.eye(num_arms)[of_arms, 1:], np.eye(num_seeds)[of_seeds]
        within = arms - seeds @ ((seeds.T @ arms) / seeds.sum(axis=0)[:, None])
        assert model.unscaled[1:, 1:] == pytest.approx(np.linalg.inv(within.T @ within), rel=1e-9)
        observed = np.concatenate([list(of_arm.values()) for of_arm in values.values()])
        assert model.estimates[1:] == pytest.approx(np.linalg.lstsq(within, observed)[0], abs=1e-9)


def test_without_blocks_the_estimates_are_those_of_statsmodels_too() -> None:
    # statsmodels 0.15.0: smf.ols('v ~ C(arm, Treatment("none"))', data).fit()
    model = fit_group(UNBALANCED, baseline="none", blocks=False)
    assert model.estimates == pytest.approx([0.0, 2.041667, 1.5], abs=1e-6)
    assert np.sqrt(np.diag(model.unscaled) * model.variance)[1:] == pytest.approx([0.811966, 0.751734], abs=1e-6)
    assert (model.df, model.variance) == (8, pytest.approx(1.1302083333333335))
    assert model.num_seeds == {"none": 4, "a": 3, "b": 4}


def test_two_arms_are_compared_by_students_paired_and_unpaired_tests() -> None:
    first, second = [3.1, 4.0, 2.2, 5.9], [4.0, 4.1, 3.9, 6.5]
    values = {"none": dict(enumerate(first)), "a": dict(enumerate(second))}
    for blocks, test in ((True, scipy.stats.ttest_rel), (False, scipy.stats.ttest_ind)):
        contrast = against_baseline(fit_group(values, baseline="none", blocks=blocks)).contrasts["a"]
        expected = test(second, first)
        assert (contrast.p_value, contrast.p_single) == pytest.approx((expected.pvalue, expected.pvalue))
        assert (contrast.low, contrast.high) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-5)


def test_a_seed_of_one_arm_alone_tells_nothing() -> None:
    more = {**UNBALANCED, "b": {**UNBALANCED["b"], 9: 100.0}}
    one, other = fit_group(UNBALANCED, baseline="none"), fit_group(more, baseline="none")
    assert other.estimates == pytest.approx(one.estimates)
    assert (other.df, other.variance) == (one.df, pytest.approx(one.variance))


def test_an_arm_is_compared_over_a_third_one_if_need_be() -> None:
    values = {"none": {0: 1.0, 1: 2.0}, "bridge": {1: 4.0, 2: 7.0}, "far": {2: 8.5}, "alone": {5: 1.0}}
    model = fit_group(values, baseline="none")
    assert model.arms == ("none", "bridge", "far")
    assert model.estimates == pytest.approx([0.0, 2.0, 3.5])
    assert (model.df, math.isnan(model.variance), model.num_seeds["far"]) == (0, True, 0)
    assert against_baseline(model).contrasts == {}
    unblocked = fit_group(values, baseline="none", blocks=False)
    assert unblocked.arms == ("none", "bridge", "far", "alone")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_arm_with_a_value_that_is_not_finite_has_no_estimate(value: float) -> None:
    model = fit_group({**UNBALANCED, "c": {0: 1.0, 1: value}, "d": {}}, baseline="none")
    assert model.estimates == pytest.approx(fit_group(UNBALANCED, baseline="none").estimates)
    assert model.arms == ("none", "a", "b")
    lost = fit_group({**UNBALANCED, "none": {0: value}}, baseline="none")
    assert (lost.arms, lost.df, len(lost.estimates)) == ((), 0, 0)
    assert against_baseline(lost).contrasts == {}


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="baseline must be an arm among none, a, b, not 'x'"):
        fit_group(UNBALANCED, baseline="x")


def test_a_metric_that_never_varies_differs_for_sure_or_not_at_all() -> None:
    values = {"none": {0: 0.1, 1: 0.3}, "a": {0: 0.2, 1: 0.4}, "b": {0: 0.1, 1: 0.3}}
    model = fit_group(values, baseline="none")
    assert model.variance == 0.0
    contrasts = against_baseline(model).contrasts
    assert (contrasts["a"].p_value, contrasts["a"].low, contrasts["a"].high) == pytest.approx((0.0, 0.1, 0.1))
    assert (contrasts["b"].estimate, contrasts["b"].p_value) == (0.0, 1.0)


quarters = st.integers(-400, 400).map(lambda value: value / 4)
cells = st.dictionaries(st.integers(0, 5), quarters, min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({"none": cells, "a": cells, "b": cells}), quarters)
def test_shifting_a_seed_in_all_arms_changes_no_difference(values: dict[str, dict[int, float]], shift: float) -> None:
    shifted = {arm: {s: v + shift * (s + 1) for s, v in of_arm.items()} for arm, of_arm in values.items()}
    one, other = fit_group(values, baseline="none"), fit_group(shifted, baseline="none")
    assert one.arms == other.arms
    assert other.estimates == pytest.approx(one.estimates, abs=1e-8)
    assert other.variance == pytest.approx(one.variance, abs=1e-8, nan_ok=True)


def test_any_contrast_can_be_asked_for() -> None:
    model = fit_group(UNBALANCED, baseline="none")
    family = simultaneous(model, {"a - b": {"a": 1, "b": -1}, "mean": {"a": 0.5, "b": 0.5, "none": -1}})
    assert family.contrasts["a - b"].estimate == pytest.approx(1.585714 - 1.071429, abs=1e-6)
    error = math.sqrt(0.376735 + 0.289796 - 2 * 0.144898)
    assert family.contrasts["a - b"].standard_error == pytest.approx(error, abs=1e-5)
    assert family.contrasts["mean"].estimate == pytest.approx((1.585714 + 1.071429) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="mean: no estimate of x"):
        simultaneous(model, {"mean": {"x": 1, "none": -1}})
    with pytest.raises(ValueError, match="must sum to 0 and not all be 0"):
        simultaneous(model, {"mean": {"a": 1}})


def test_unpaired_arms_have_the_p_values_of_scipys_dunnett() -> None:
    rng = np.random.default_rng(5)
    samples = [rng.normal(shift, 1, size) for shift, size in ((0, 8), (1.2, 5), (0.3, 6), (-0.8, 9))]
    values = {f"{place}": dict(enumerate(map(float, sample))) for place, sample in enumerate(samples)}
    family = against_baseline(fit_group(values, baseline="0", blocks=False))
    expected = scipy.stats.dunnett(*samples[1:], control=samples[0], random_state=np.random.default_rng(1))
    assert [c.p_value for c in family.contrasts.values()] == pytest.approx(expected.pvalue, abs=2e-3)
    interval = expected.confidence_interval()
    assert [c.low for c in family.contrasts.values()] == pytest.approx(interval.low, abs=0.02)
    assert [c.high for c in family.contrasts.values()] == pytest.approx(interval.high, abs=0.02)
