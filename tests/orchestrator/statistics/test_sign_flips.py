"""Joint sign flips against SciPy's permutation test of one arm, and against all patterns by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from orchestrator.statistics.sign_flips import max_t_of_flips, max_t_sign_flips


def values_of(table: np.ndarray) -> dict[str, dict[int, float]]:
    """Return a baseline of zeros and an arm for each row."""
    arms = {f"arm{row}": dict(enumerate(map(float, of_arm))) for row, of_arm in enumerate(table)}
    return {"none": dict.fromkeys(range(table.shape[1]), 0.0), **arms}


def test_one_arm_has_the_p_of_scipys_permutation_test() -> None:
    differences = np.random.default_rng(3).normal(0.6, 1.0, 8)
    expected = scipy.stats.permutation_test(
        (differences,),
        lambda x, axis: np.abs(x.sum(axis=axis)),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
        vectorized=True,
    )
    assert max_t_sign_flips(values_of(differences[None]), baseline="none") == {"arm0": pytest.approx(expected.pvalue)}


def test_several_arms_have_the_step_down_p_of_all_patterns() -> None:
    table = np.random.default_rng(4).normal([[1.5], [0.2], [0.9]], 1.0, (3, 6))
    signs = np.array(list(itertools.product([-1, 1], repeat=6)))

    def sizes(pattern: np.ndarray) -> np.ndarray:
        return np.abs(scipy.stats.ttest_1samp(table * pattern, 0, axis=1).statistic)

    observed, flipped = sizes(np.ones(6)), np.array([sizes(pattern) for pattern in signs])
    order = np.argsort(-observed)
    expected, before = np.empty(3), 0.0
    for rank, arm in enumerate(order):
        share = (flipped[:, order[rank:]].max(axis=1) >= observed[arm] - 1e-9).mean()
        expected[arm] = before = max(before, share)
    assert list(max_t_sign_flips(values_of(table), baseline="none").values()) == pytest.approx(expected)


def test_the_smallest_p_is_two_patterns_of_all() -> None:
    table = np.array([[1.0] * 6, [1.0, -2.0, 1.0, -2.0, 3.0, -1.0]])
    assert max_t_sign_flips(values_of(table), baseline="none") == {"arm0": 2 / 64, "arm1": 1.0}


def test_arms_with_fewer_seeds_are_tested_with_the_others() -> None:
    values = values_of(np.random.default_rng(0).normal(3, 1, (2, 8)))
    values["arm1"] = {seed: value for seed, value in values["arm1"].items() if seed < 6}
    values |= {"lost": {77: 1.0}, "diverged": {0: math.nan}}
    found = max_t_sign_flips(values, baseline="none")
    assert list(found) == ["arm0", "arm1"]
    assert 2 / 2**8 <= found["arm0"] <= found["arm1"] <= 4 / 2**6
    assert max_t_sign_flips({"none": {0: 1.0}}, baseline="none") == {}


def test_many_seeds_are_flipped_at_random_and_alike_each_time() -> None:
    values = values_of(np.random.default_rng(1).normal(0.3, 1, (4, 20)))
    found = max_t_sign_flips(values, baseline="none")
    assert found == max_t_sign_flips(values, baseline="none")
    assert all(0 < p <= 1 for p in found.values())


def test_the_error_of_ten_arms_of_unequal_variances_is_kept() -> None:
    rng = np.random.default_rng(6)
    sds = np.geomspace(0.5, 3, 10)[:, None]
    noise = rng.normal(size=(300, 10, 6)) * sds + rng.normal(size=(300, 1, 6))
    wrong = np.mean([min(max_t_of_flips(table, np.full(10, 6))) <= 0.05 for table in noise])
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
