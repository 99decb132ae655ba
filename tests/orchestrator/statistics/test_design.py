"""Power of designs against R's power.t.test, the published half-widths of blocks, and Dunnett's square root of k."""

from __future__ import annotations

import math

import pytest

from orchestrator.statistics.design import Design, fewest, seeds_to_find, with_seeds
from orchestrator.statistics.power import contrast_power, seeds_for_difference


def test_one_arm_has_the_power_that_r_gives() -> None:
    # R: power.t.test(n = 20, delta = 1, sd = 1) = 0.8689528; type = "paired", n = 10: power = 0.8031012 ...
    assert Design(1, 20, 1.0, blocks=False).power(1.0) == pytest.approx(0.8689528, abs=1e-4)
    # ... and power.t.test(power = .90, delta = 1): n = 22.02110.
    assert seeds_to_find(1.0, Design(1, 2, 1.0, blocks=False), power=0.9) == 23


def test_blocks_have_the_power_of_a_contrast() -> None:
    design = Design(10, 5, 2.0, correlation=0.7)
    assert design.sd_difference == pytest.approx(2 * math.sqrt(0.6))
    expected = contrast_power(3.0, sd_difference=design.sd_difference, num_seeds=5, num_contrasts=10)
    assert design.power(3.0) == pytest.approx(expected, abs=1e-9)


def test_what_is_detectable_is_found_with_that_power() -> None:
    for design in (Design(10, 4, 1.3), Design(3, 6, 0.2, blocks=False, num_baseline_seeds=12)):
        assert design.power(design.detectable(0.9)) == pytest.approx(0.9, abs=1e-4)
    with pytest.raises(ValueError, match="power must be above"):
        Design(1, 4, 1.0).detectable(0.01)


@pytest.mark.parametrize(("num_seeds", "half"), [(3, 1.72), (4, 1.44), (5, 1.27), (8, 0.99), (10, 0.88), (20, 0.61)])
def test_half_widths_of_ten_arms_in_standard_deviations_of_a_difference(num_seeds: int, half: float) -> None:
    # d of 10 contrasts at 10 (n - 1) degrees of freedom, over the root of n.
    design = Design(10, num_seeds, 1 / math.sqrt(2))
    assert design.critical * design.standard_error == pytest.approx(half, abs=0.006)


def test_seeds_are_the_fewest_with_the_power() -> None:
    design = Design(10, 2, 3.5 / math.sqrt(2))
    seeds = seeds_to_find(2.0, design)
    assert seeds == math.ceil(seeds_for_difference(2.0, sd_difference=3.5, num_contrasts=10))
    assert with_seeds(design, seeds).power(2.0) >= 0.8 > with_seeds(design, seeds - 1).power(2.0)
    assert seeds_to_find(1e-6, design) is None


def test_a_baseline_with_more_seeds_makes_differences_more_precise() -> None:
    # Ten arms: the baseline deserves sqrt(10) times the seeds, and the variance goes from 2 to 1 + 1 / sqrt(10).
    plain, rich = (Design(10, 10, 1.0, blocks=False, num_baseline_seeds=n) for n in (10, 32))
    assert (rich.standard_error / plain.standard_error) ** 2 == pytest.approx((1 + 10 / 32) / 2)
    assert (rich.num_trials, rich.df, with_seeds(rich, 5).num_baseline_seeds) == (132, 121, 16)
    assert rich.detectable() < plain.detectable()


def test_a_search_finds_the_fewest_and_says_where_there_are_none() -> None:
    for target in (2, 3, 7, 50, 99):
        assert fewest(lambda n, target=target: n >= target, 2, 99) == target
    assert fewest(lambda n: n > 99, 2, 99) is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"num_arms": 0}, "num_arms must be at least 1"),
        ({"num_seeds": 1}, "num_seeds must be at least 2"),
        ({"sd": 0.0}, "sd must be above 0"),
        ({"correlation": 1.0}, "correlation must be in"),
        ({"num_baseline_seeds": 8}, "seeds of the baseline alone would add nothing"),
        ({"confidence": 1.0}, "confidence must be in"),
    ],
)
def test_a_design_that_cannot_be_is_refused(given: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Design(**{"num_arms": 3, "num_seeds": 4, "sd": 1.0, **given})


@pytest.mark.parametrize(("difference", "power"), [(0.0, 0.8), (math.nan, 0.8), (1.0, 0.04), (1.0, 1.0)])
def test_seeds_of_numbers_out_of_range_are_refused(difference: float, power: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        seeds_to_find(difference, Design(3, 4, 1.0), power=power)
