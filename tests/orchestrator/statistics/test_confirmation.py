"""Screen, then confirm: who passes, and that the first seeds do not count."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.statistics.comparison import compare_arms
from orchestrator.statistics.confirmation import confirm, screen


def group() -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(1)
    shifts = {"none": 0.0, "flat": 0.0, "up": 4.0, "down": -8.0}
    return {arm: dict(enumerate(map(float, rng.normal(shift, 0.5, 10)))) for arm, shift in shifts.items()}


def test_arms_that_differ_pass_the_largest_first() -> None:
    assert screen(group(), baseline="none") == ("down", "up")
    assert screen(group(), baseline="none", most=1) == ("down",)
    assert screen(group(), baseline="none", level=1.0) == ("down", "up", "flat")


def test_fresh_seeds_alone_judge_the_chosen_arms() -> None:
    values = group()
    found = confirm(values, baseline="none", arms=("up",), screened_seeds=range(4), smallest_effect=1.0)
    fresh = {arm: {seed: values[arm][seed] for seed in range(4, 10)} for arm in ("none", "up")}
    expected = compare_arms(fresh, baseline="none")
    assert list(found.arms) == ["up"]
    assert found.arms["up"].num_seeds == 6
    assert (found.arms["up"].low, found.arms["up"].high) == (expected.arms["up"].low, expected.arms["up"].high)
    assert found.family.critical == pytest.approx(2.5706, abs=1e-3)  # Student's t at 5 degrees of freedom
