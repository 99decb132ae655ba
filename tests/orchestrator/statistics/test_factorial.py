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
    # These residuals are independent, so that no effect has less, and but for chance none has more.
    arm_error = math.sqrt(2 * model.variance / 4)
    assert 0.999 < family.contrasts["mlp"].standard_error / (arm_error / 2) < 1.5
    assert 0.999 < family.contrasts["norm x mlp"].standard_error / arm_error < 1.5


def shared_by_component(deviations: dict[str, list[float]], noise: float) -> dict[str, dict[int, float]]:
    """Return values of a cube in which a component does something else in each seed, the same in all arms with it."""
    rng = np.random.default_rng(3)
    return {
        arm: {
            seed: 50.0 + sum(deviations[part][seed] for part in parts) + float(rng.normal(0, noise))
            for seed in range(len(deviations["norm"]))
        }
        for arm, parts in CUBE.items()
    }


def test_the_error_of_an_effect_is_how_it_varies_from_seed_to_seed() -> None:
    does = {"norm": [0.0, 0.0, 0.0, 0.0], "qkv": [-3.0, 1.0, 4.0, -2.0], "mlp": [2.0, 2.0, 2.5, 1.5]}
    contrasts = read_factorial(
        fit_group(shared_by_component(does, 0.05), baseline="none"), find_factorials(CUBE)[0]
    ).contrasts
    errors = {name: contrast.standard_error for name, contrast in contrasts.items()}
    assert errors["qkv"] == pytest.approx(np.std(does["qkv"], ddof=1) / 2, rel=0.05)
    assert errors["mlp"] == pytest.approx(np.std(does["mlp"], ddof=1) / 2, rel=0.2)
    assert errors["norm"] < 0.05
    # A residual variance of all arms has them all alike: too small for one, too large for the others.
    model = fit_group(shared_by_component(does, 0.05), baseline="none")
    assert errors["norm"] < math.sqrt(model.variance / 8) < errors["qkv"] / 1.3


def test_seeds_that_an_arm_lacks_are_not_read() -> None:
    does = {"norm": [1.0, 1.2, 0.9, 1.1, 9.0], "qkv": [0.1, 0.0, -0.1, 0.2, 9.0], "mlp": [0.0, 0.3, 0.1, 0.2, 9.0]}
    values = shared_by_component(does, 0.01)
    del values["mlp"][4]
    contrasts = read_factorial(fit_group(values, baseline="none"), find_factorials(CUBE)[0]).contrasts
    assert contrasts["norm"].estimate == pytest.approx(1.05, abs=0.02)
    assert contrasts["qkv"].estimate == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("deviation", [0.0, 3.0])
def test_intervals_of_all_effects_cover_together(deviation: float) -> None:
    rng = np.random.default_rng(5)
    num_sweeps, num_covered = 300, 0
    for _ in range(num_sweeps):
        does = {part: (rng.normal(0, deviation if part == "qkv" else 0, 4)).tolist() for part in ("norm", "qkv", "mlp")}
        values = {
            arm: {s: sum(does[part][s] for part in parts) + float(rng.normal()) for s in range(4)}
            for arm, parts in CUBE.items()
        }
        family = read_factorial(fit_group(values, baseline="none"), find_factorials(CUBE)[0])
        num_covered += all(contrast.low <= 0 <= contrast.high for contrast in family.contrasts.values())
    assert num_covered / num_sweeps > 0.95 - 3 * math.sqrt(0.05 * 0.95 / num_sweeps)


def test_a_factorial_with_an_arm_that_has_no_estimate_is_not_read() -> None:
    values = {arm: {0: 1.0, 1: 2.0} for arm in CUBE if arm != "mlp"} | {"mlp": {}}
    assert read_factorial(fit_group(values, baseline="none"), find_factorials(CUBE)[0]).contrasts == {}
