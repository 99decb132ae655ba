from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.pruning_reasons import Verdict, reason_text
from orchestrator.sweep.pruning_settings import (
    AnyPruner,
    MedianPruning,
    PercentilePruning,
    SuccessiveHalvingPruning,
    WilcoxonPruning,
)
from orchestrator.trials.records import State

from .test_pruning import make_record


def verdict(
    own: Sequence[float], finished: Sequence[float], *, up: bool = True, others: Sequence[float] = ()
) -> Verdict:
    return Verdict("miou", 20, len(own), own, [*finished, *others], finished, up)


@pytest.mark.parametrize(
    ("settings", "seen", "text"),
    [
        (
            MedianPruning(),
            verdict([4.0], [5.0, 6.0, 9.0]),
            "rung 1 (step 20): miou 4, worse than 6, the median of 3 finished trials",
        ),
        (
            MedianPruning(),
            verdict([4.5, 4.0], [6.0]),
            "rung 2 (step 20): miou 4.5 at best so far, worse than 6, the median of 1 finished trial",
        ),
        (
            PercentilePruning(percentile=75.0),
            verdict([1e300], [1.0, 2.0, 3.0, 4.0, 5.0], up=False),
            "rung 1 (step 20): miou not a finite number, worse than 4, the bound of the best 75% of 5 finished trials",
        ),
        (
            SuccessiveHalvingPruning(),
            verdict([4.0], [6.0], others=[3.0, 5.0]),
            "rung 1 (step 20): miou 4, number 3 of 4 trials there (successive_halving, min_resource 1, "
            "reduction_factor 2, min_early_stopping_rate 0, bootstrap_count 0)",
        ),
        (
            WilcoxonPruning(p_threshold=0.2),
            verdict([3.0, 4.0], [6.0]),
            "rung 2 (step 20): miou 4, number 2 of 2 trials there (wilcoxon, p_threshold 0.2, n_startup_steps 2)",
        ),
    ],
)
def test_a_reason_names_rung_value_and_threshold(settings: AnyPruner, seen: Verdict, text: str) -> None:
    assert reason_text(settings, seen) == text


@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=9), st.floats(1.0, 99.0), st.booleans()
)
def test_the_threshold_is_the_percentile_of_numpys(finished: list[float], share: float, up: bool) -> None:
    text = reason_text(PercentilePruning(percentile=share), verdict([0.0], finished, up=up))
    bound = float(np.percentile(finished, 100.0 - share if up else share))
    assert float(text.split("worse than ")[1].split(",")[0]) == pytest.approx(bound, rel=1e-3, abs=1e-9)


def test_the_judge_says_why_from_what_it_was_told() -> None:
    values = {"none": 50.0, "b": 40.0, "c": 60.0}
    done = [
        make_record(name, "baseline" if name == "none" else "arm", state=State.DONE, values=[value, 2 * value])
        for name, value in values.items()
    ]
    records = [*done, make_record("a")]
    judge = Judge(MedianPruning(n_startup_trials=1), higher_is_better=True, records=records, metric="knn_top1")
    assert judge.report("a", 10, 50.5) is False
    assert judge.report("a", 20, 99.0) is True
    assert judge.why("a") == (
        "rung 2 (step 20): knn_top1 99 at best so far, worse than 100, the median of 3 finished trials"
    )
