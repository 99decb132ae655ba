"""Verdicts by the interval, and Benjamini and Hochberg's adjustment against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from orchestrator.statistics.verdicts import Verdict, benjamini_hochberg, judge


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 2.0, Verdict.BETTER),
        (-2.0, -0.1, Verdict.WORSE),
        (-0.4, 0.9, Verdict.EQUIVALENT),
        (0.1, 0.9, Verdict.EQUIVALENT),
        (-0.4, 1.0, Verdict.UNDECIDED),
        (0.0, 3.0, Verdict.UNDECIDED),
        (None, None, Verdict.UNDECIDED),
        (-math.inf, -1.0, Verdict.UNDECIDED),
    ],
)
def test_the_interval_decides(low: float | None, high: float | None, expected: Verdict) -> None:
    assert judge(low, high, num_seeds=4, smallest_effect=1.0) == expected
    assert judge(low, high, num_seeds=3, smallest_effect=1.0) == Verdict.UNDECIDED


def test_lower_can_be_better() -> None:
    assert judge(0.1, 2.0, num_seeds=5, higher_is_better=False) == Verdict.WORSE
    assert judge(-2.0, -0.1, num_seeds=5, higher_is_better=False) == Verdict.BETTER


def test_without_a_smallest_effect_nothing_is_equivalent() -> None:
    assert judge(-1e-9, 1e-9, num_seeds=9) == Verdict.UNDECIDED
    with pytest.raises(ValueError, match="smallest_effect must be above 0, not 0"):
        judge(-1, 1, num_seeds=4, smallest_effect=0)


def test_adjusted_p_values_equal_scipys() -> None:
    p_values = np.random.default_rng(2).uniform(size=20) ** 3
    assert benjamini_hochberg(p_values.tolist()) == pytest.approx(scipy.stats.false_discovery_control(p_values))


def test_where_there_is_no_p_value_there_is_no_adjusted_one() -> None:
    assert benjamini_hochberg([0.02, None, 0.04, math.nan]) == [0.04, None, 0.04, None]
    assert benjamini_hochberg([]) == []
