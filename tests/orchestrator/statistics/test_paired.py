from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.statistics.paired import (
    NUM_DRAWS,
    Difference,
    mean,
    paired_difference,
    sample_sd,
    sign_flip_p,
    t_interval,
)

# Quarters, so that shifting and summing loses no bits.
quarters = st.integers(-4000, 4000).map(lambda value: value / 4)
samples = st.lists(quarters, min_size=2, max_size=9)
arms = st.dictionaries(st.integers(0, 12), quarters, min_size=1, max_size=9)


def test_mean_and_sd_of_three_values_equal_the_arithmetic() -> None:
    assert (mean([1.0, 2.0, 6.0]), sample_sd([1.0, 2.0, 6.0])) == (3.0, pytest.approx(math.sqrt(7)))


def test_statistics_of_too_few_values_are_none() -> None:
    assert (mean([]), sample_sd([1.0]), t_interval([1.0]), sign_flip_p([])) == (None, None, None, None)


@settings(max_examples=30, deadline=None)
@given(samples.filter(lambda values: len(set(values)) > 1), st.sampled_from([0.5, 0.95, 0.99]))
def test_t_interval_equals_scipys(values: list[float], confidence: float) -> None:
    expected = scipy.stats.t.interval(
        confidence, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values)
    )
    assert t_interval(values, confidence) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(quarters, min_size=2, max_size=9))
def test_sign_flip_p_equals_scipys_exact_permutation_test(values: list[float]) -> None:
    result = scipy.stats.permutation_test(
        (np.array(values),),
        lambda x, axis: np.abs(x.sum(axis=axis)),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert sign_flip_p(values) == pytest.approx(result.pvalue)


@pytest.mark.parametrize("n", [1, 3, 5, 12])
def test_sign_flip_p_of_equal_differences_is_the_smallest_there_is(n: int) -> None:
    assert sign_flip_p([0.1] * n) == 2 / 2**n


def test_sign_flip_p_of_many_pairs_is_close_to_the_exact_one_and_repeats() -> None:
    values = np.random.default_rng(3).normal(0.4, 1.0, size=14).tolist()
    patterns = np.array(np.meshgrid(*[[-1, 1]] * 14)).reshape(14, -1)
    exact = float((np.abs(values @ patterns) >= abs(sum(values)) - 1e-9).mean())
    assert sign_flip_p(values) == pytest.approx(exact, abs=4 * 0.5 / math.sqrt(NUM_DRAWS))
    assert sign_flip_p(values) == sign_flip_p(values)


def test_sign_flip_p_of_many_pairs_is_never_zero() -> None:
    assert sign_flip_p([1.0] * 30) == 1 / (NUM_DRAWS + 1)


def test_difference_takes_common_seeds_only() -> None:
    difference = paired_difference({0: 5.0, 1: 7.0, 2: 9.0}, {1: 4.0, 2: 5.0, 3: 100.0})
    half = scipy.stats.t.ppf(0.975, 1) * 0.5
    assert (difference.n, difference.mean, difference.p_value) == (2, 3.5, 0.5)
    assert (difference.low, difference.high) == pytest.approx((3.5 - half, 3.5 + half))


def test_difference_with_one_common_seed_has_no_interval() -> None:
    assert paired_difference({0: 5.0}, {0: 4.0}) == Difference(1, 1.0, None, None, 1.0)


def test_difference_without_a_common_seed_is_empty() -> None:
    assert paired_difference({0: 5.0}, {1: 4.0}) == Difference(0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_difference_with_a_value_that_is_not_finite_has_no_interval_and_no_p(value: float) -> None:
    difference = paired_difference({0: value, 1: 2.0}, {0: 1.0, 1: 1.0})
    assert not math.isfinite(difference.mean or 0)
    assert (difference.n, difference.low, difference.high, difference.p_value) == (2, None, None, None)


@settings(max_examples=40, deadline=None)
@given(arms, arms)
def test_difference_of_swapped_arms_is_negated(arm: dict[int, float], baseline: dict[int, float]) -> None:
    forward, backward = paired_difference(arm, baseline), paired_difference(baseline, arm)
    assert (forward.n, forward.p_value) == (backward.n, backward.p_value)
    for one, other in (("mean", "mean"), ("low", "high"), ("high", "low")):
        value = getattr(forward, one)
        assert getattr(backward, other) == (None if value is None else -value)


@settings(max_examples=40, deadline=None)
@given(arms, arms, quarters)
def test_difference_does_not_change_when_every_seed_is_shifted_in_both(
    arm: dict[int, float], baseline: dict[int, float], shift: float
) -> None:
    shifted_arm = {seed: value + shift * (seed + 1) for seed, value in arm.items()}
    shifted_baseline = {seed: value + shift * (seed + 1) for seed, value in baseline.items()}
    assert paired_difference(shifted_arm, shifted_baseline) == paired_difference(arm, baseline)


@given(arms)
def test_difference_of_an_arm_to_itself_is_zero_with_p_one(arm: dict[int, float]) -> None:
    difference = paired_difference(arm, arm)
    assert (difference.mean, difference.p_value) == (0.0, 1.0)
