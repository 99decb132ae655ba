"""What sweeps with looks are forecast to find and to cost, and the difference that they find."""

from __future__ import annotations

import pytest

from orchestrator.statistics.decisions import Action
from orchestrator.statistics.design import Design
from orchestrator.statistics.forecasts import detectable_by_looks, forecast_looks
from orchestrator.statistics.looks import design_looks

DESIGN = design_looks([4, 5, 6, 7, 8, 10, 12, 16], 10)


def test_a_forecast_keeps_the_error_and_saves_trials() -> None:
    differences = [2.0, 2.0] + [0.0] * 8
    found = forecast_looks(DESIGN, differences, sd_difference=1.0, num_sweeps=1500)
    assert min(found.shares[Action.BETTER][:2]) > 0.99
    wrong = sum(found.shares[action][place] for action in (Action.BETTER, Action.WORSE) for place in range(2, 10))
    assert wrong <= 0.05
    assert [sum(of_arm) for of_arm in zip(*found.shares.values(), strict=True)] == pytest.approx([1.0] * 10)
    assert (found.most_trials, found.mean_seeds[0] < 9) == (176, True)
    assert found.mean_trials < 176 / 2
    better = forecast_looks(DESIGN, differences, sd_difference=1.0, num_sweeps=1500, seek="better")
    assert better.mean_trials < found.mean_trials - 5
    assert better.mean_seeds[:2] == pytest.approx(found.mean_seeds[:2], abs=0.02)
    with pytest.raises(ValueError, match="must be 10 differences, one an arm, not 1"):
        forecast_looks(DESIGN, [1.0], sd_difference=1.0)
    with pytest.raises(ValueError, match="sd_difference must be above 0, not 0"):
        forecast_looks(DESIGN, differences, sd_difference=0.0)


def test_the_detectable_difference_is_found_as_often_as_it_says_and_is_more_than_that_of_seeds_run_at_once() -> None:
    wanted = detectable_by_looks(DESIGN, sd=2.0, seek="better")
    found = forecast_looks(
        DESIGN, [wanted] + [0.0] * 9, sd_difference=2.0 * 2**0.5, seek="better", num_sweeps=2000, seed=1
    )
    assert found.shares[Action.BETTER][0] == pytest.approx(0.8, abs=0.035)
    assert 1.0 < wanted / Design(10, 16, 2.0).detectable() < 1.3


def test_one_look_detects_what_a_fixed_design_does() -> None:
    assert detectable_by_looks(design_looks([6], 3), sd=1.0) == pytest.approx(Design(3, 6, 1.0).detectable(), rel=0.03)
