"""Complete factorials among arms, and their effects by arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.statistics.factorial import find_factorials, read_factorial
from orchestrator.statistics.model import fit_group

CUBE = {
    "none": (),
    "norm": ("norm",),
    "qkv": ("qkv",),
    "mlp": ("mlp",),
    "norm+qkv": ("norm", "qkv"),
    "norm+mlp": ("norm", "mlp"),
    "qkv+mlp": ("qkv", "mlp"),
    "norm+qkv+mlp": ("norm", "qkv", "mlp"),
}


def test_a_cube_is_one_factorial_of_three() -> None:
    (found,) = find_factorials(CUBE)
    assert found.factors == ("norm", "qkv", "mlp")
    assert found.arms[frozenset({"norm", "mlp"})] == "norm+mlp"
    assert len(found.arms) == 8


def test_a_cube_without_two_arms_holds_squares() -> None:
    # The arms of the shipped sweep over components: norm+mlp and qkv+mlp are not among them.
    arms = {arm: parts for arm, parts in CUBE.items() if arm not in ("norm+mlp", "qkv+mlp")}
    assert [found.factors for found in find_factorials(arms)] == [("norm", "qkv")]


def test_each_range_has_its_own_factorial() -> None:
    arms = {"none": ()} | {
        f"{arm}@{blocks}": tuple(f"{part}@{blocks}" for part in parts)
        for blocks in ("all", "first-third")
        for arm, parts in CUBE.items()
        if parts
    }
    assert [found.factors for found in find_factorials(arms)] == [
        ("norm@all", "qkv@all", "mlp@all"),
        ("norm@first-third", "qkv@first-third", "mlp@first-third"),
    ]


def test_where_nothing_is_complete_there_is_nothing() -> None:
    assert find_factorials({"none": (), "norm": ("norm",), "qkv": ("qkv",)}) == []
    assert find_factorials({"norm": ("norm",), "qkv": ("qkv",), "norm+qkv": ("norm", "qkv")}) == []


def test_effects_are_differences_of_means() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 5, 4)
    values = {
        arm: {
            seed: 3.0 * ("norm" in parts) - 1.0 * ("qkv" in parts) + 2.0 * ({"norm", "mlp"} <= set(parts))
            + float(shift + rng.normal(0, 1e-3))
            for seed, shift in enumerate(seeds)
        }
        for arm, parts in CUBE.items()
    }
    model = fit_group(values, baseline="none")
    family = read_factorial(model, find_factorials(CUBE)[0])
    expected = {"norm": 4.0, "qkv": -1.0, "mlp": 1.0, "norm x qkv": 0.0, "norm x mlp": 2.0, "qkv x mlp": 0.0}
    assert {name: contrast.estimate for name, contrast in family.contrasts.items()} == pytest.approx(expected, abs=0.01)
    # Half of 32 trials against the other half: 4 sigma^2 / 32, a quarter of 2 sigma^2 / 4; interactions: 4 times it.
    arm_error = math.sqrt(2 * model.variance / 4)
    assert family.contrasts["mlp"].standard_error == pytest.approx(arm_error / 2)
    assert family.contrasts["norm x mlp"].standard_error == pytest.approx(arm_error)


def test_a_factorial_with_an_arm_that_has_no_estimate_is_not_read() -> None:
    values = {arm: {0: 1.0, 1: 2.0} for arm in CUBE if arm != "mlp"} | {"mlp": {}}
    assert read_factorial(fit_group(values, baseline="none"), find_factorials(CUBE)[0]).contrasts == {}
