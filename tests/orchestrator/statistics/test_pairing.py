"""What pairing is worth, against the intraclass correlation and the arithmetic of intervals."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.pairing import pairing


def table_of(rows: np.ndarray) -> dict[str, dict[int, float]]:
    return {f"{row}": dict(enumerate(map(float, of_arm))) for row, of_arm in enumerate(rows)}


def test_the_correlation_is_the_intraclass_one_and_the_worth_the_ratio_of_squared_widths() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(5, 6)) + 2 * rng.normal(size=(1, 6))
    found = pairing(table_of(table), baseline="0")
    means = table.mean(axis=0), table.mean(axis=1, keepdims=True)
    between = 5 * means[0].var(ddof=1)
    residual = ((table - means[0] - means[1] + table.mean()) ** 2).sum() / 20
    expected = (between - residual) / (between + 4 * residual)
    assert found is not None
    assert found.correlation == pytest.approx(expected)
    widths = dunnett_critical(4, 25) / dunnett_critical(4, 20)
    assert found.worth == pytest.approx(widths**2 / (1 - expected), rel=1e-4)


def test_arms_that_share_nothing_pay_for_their_blocks() -> None:
    found = pairing(table_of(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])), baseline="0")
    assert found is not None
    # Squares of 2 about the arms, none of them between the seeds: 2 / 3 with blocks, 2 / 4 without.
    assert found.correlation == pytest.approx(1 - (2 / 3) / (2 / 4))
    widths = dunnett_critical(3, 4) / dunnett_critical(3, 3)
    assert found.worth == pytest.approx(widths**2 * 3 / 4, rel=1e-4)


def test_what_cannot_be_told_is_none() -> None:
    assert pairing({"0": {0: 1.0}, "1": {0: 2.0}}, baseline="0") is None
    assert pairing({"0": {}, "1": {0: 2.0}}, baseline="0") is None
    assert pairing({"0": {0: 1.0, 1: 2.0}, "1": {5: 2.0, 6: 1.0}}, baseline="0") is None
    assert pairing(table_of(np.array([[0.0, 1.0, 5.0], [1.0, 2.0, 6.0]])), baseline="0") is None
