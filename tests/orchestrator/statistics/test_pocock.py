from __future__ import annotations

import pytest
from scipy import stats

from orchestrator.statistics.pocock import pocock_level


@pytest.mark.parametrize(
    ("num_looks", "critical"),
    # Pocock 1977, table 1: two-sided 5%; that the sum crosses both bounds is too rare to tell.
    [(1, 1.960), (2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413), (10, 2.555)],
)
def test_the_level_of_several_looks_is_pococks(num_looks: int, critical: float) -> None:
    assert stats.norm.isf(pocock_level(0.025, num_looks)) == pytest.approx(critical, abs=3e-3)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_never_and_always_stay_what_they_are(alpha: float) -> None:
    assert pocock_level(alpha, 4) == alpha
