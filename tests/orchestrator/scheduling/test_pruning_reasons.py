from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduling.paired_differences import Differences
from orchestrator.scheduling.pruning_reasons import reason_text
from orchestrator.sweep.pruning_settings import (
    AnyPruner,
    MedianPruning,
    PercentilePruning,
    SuccessiveHalvingPruning,
    WilcoxonPruning,
)


def seen(own: Sequence[float], others: Sequence[float], *, num_seeds: int = 1) -> Differences:
    """Make differences at rungs up to the last of ``own``, and those of others at that rung."""
    return Differences(
        number=len(others),
        step=20,
        rung=len(own),
        by_seed=(own[-1],) * num_seeds,
        own=dict(enumerate(own, start=1)),
        others={number: {len(own): value} for number, value in enumerate(others)},
        num_seeds=num_seeds,
        num_arms=len(others) + 1,
    )


@pytest.mark.parametrize(
    ("settings", "shown", "up", "text"),
    [
        (
            MedianPruning(),
            seen([-4.0], [0.0, 1.0, 9.0], num_seeds=2),
            True,
            "miou -4 against the baseline (mean of 2 seeds), worse than +1, the median of 3 other arms",
        ),
        (
            MedianPruning(),
            seen([-1.5, -4.0], [0.0]),
            True,
            "miou -1.5 against the baseline (1 seed) at best so far, worse than +0, the median of 1 other arm",
        ),
        (
            PercentilePruning(percentile=75.0),
            seen([-1e300], [0.0, -2.0, -3.0, -4.0, -5.0]),
            False,
            "miou not a finite number against the baseline (1 seed), worse than +4, the bound of the best 75% of 5 "
            "other arms",
        ),
        (
            SuccessiveHalvingPruning(),
            seen([-4.0], [0.0, -5.0, -3.0]),
            True,
            "miou -4 against the baseline (1 seed), number 3 of 4 arms there (successive_halving, min_resource 1, "
            "reduction_factor 2, min_early_stopping_rate 0, bootstrap_count 0)",
        ),
        (
            WilcoxonPruning(p_threshold=0.2),
            seen([0.0, -4.0], [0.0], num_seeds=3),
            False,
            "miou +4 against the baseline (mean of 3 seeds), behind with 3: too far by Wilcoxon's signed-rank test "
            "with p_threshold 0.2 for all rungs",
        ),
    ],
)
def test_a_reason_names_rung_difference_and_threshold(
    settings: AnyPruner, shown: Differences, up: bool, text: str
) -> None:
    found = reason_text(settings, shown, metric="miou", higher_is_better=up)
    assert found.removesuffix(" with the baseline") == f"rung {shown.rung} (step 20): {text}"


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=9), st.floats(1.0, 99.0), st.booleans()
)
def test_the_threshold_is_the_percentile_of_numpys(others: list[float], share: float, up: bool) -> None:
    shown = seen([0.0], others)
    text = reason_text(PercentilePruning(percentile=share), shown, metric="miou", higher_is_better=up)
    bound = float(np.percentile(others, 100.0 - share)) * (1 if up else -1)
    assert float(text.split("worse than ")[1].split(",")[0]) == pytest.approx(bound, rel=1e-3, abs=1e-9)
