"""Power against simulated sweeps and against the one-sample t test; seeds against the power they are for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.power import contrast_power, seeds_for_difference, two_way_df

NUM_SWEEPS = 4000


def simulated_rates(
    difference: float, *, num_contrasts: int, num_seeds: int, seed_sd: float = 3.0
) -> tuple[float, float]:
    """Return how often the first arm is found, and any of the others, of which none differs, in simulated sweeps.

    Values are arm + seed + noise of standard deviation 1 / sqrt 2, judged by the two-way model.
    """
    rng = np.random.default_rng(17)
    values = rng.normal(0, math.sqrt(0.5), (NUM_SWEEPS, num_contrasts + 1, num_seeds))
    values += rng.normal(0, seed_sd, (NUM_SWEEPS, 1, num_seeds))
    values[:, 1] += difference
    of_arms, of_seeds = values.mean(axis=2, keepdims=True), values.mean(axis=1, keepdims=True)
    residuals = values - of_arms - of_seeds + values.mean(axis=(1, 2), keepdims=True)
    df = two_way_df(num_contrasts, num_seeds)
    variance = (residuals**2).sum(axis=(1, 2)) / df
    contrasts = of_arms[:, 1:, 0] - of_arms[:, :1, 0]
    t = np.abs(contrasts) / np.sqrt(2 * variance / num_seeds)[:, None]
    found = t > dunnett_critical(num_contrasts, df)
    return float(found[:, 0].mean()), float(found[:, 1:].any(axis=1).mean())


@pytest.mark.parametrize(
    ("difference", "num_contrasts", "num_seeds"), [(1.5, 10, 5), (2.5, 10, 2), (1.0, 3, 8), (0.8, 5, 12)]
)
def test_power_equals_that_of_simulated_sweeps(difference: float, num_contrasts: int, num_seeds: int) -> None:
    found, _ = simulated_rates(difference, num_contrasts=num_contrasts, num_seeds=num_seeds)
    power = contrast_power(difference, sd_difference=1.0, num_seeds=num_seeds, num_contrasts=num_contrasts)
    assert 0.1 < power < 0.99
    assert found == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / NUM_SWEEPS))


def test_simulated_sweeps_in_which_nothing_works_keep_the_error_rate() -> None:
    found, others = simulated_rates(0.0, num_contrasts=10, num_seeds=4)
    assert others <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / NUM_SWEEPS)
    single = contrast_power(0.0, sd_difference=1.0, num_seeds=4)
    assert found == pytest.approx(single, abs=4 * math.sqrt(single * (1 - single) / NUM_SWEEPS))


def test_power_with_one_arm_is_that_of_the_paired_t_test() -> None:
    # One sample of 6 differences, as G*Power and statsmodels compute it: noncentral t on 5 degrees of freedom.
    critical = scipy.stats.t.ppf(0.975, 5)
    shifted = scipy.stats.nct(5, 1.2 * math.sqrt(6))
    expected = shifted.sf(critical) + shifted.cdf(-critical)
    assert contrast_power(1.2, sd_difference=1.0, num_seeds=6, num_contrasts=1) == pytest.approx(expected, abs=1e-6)


def test_power_depends_on_the_ratio_and_not_on_the_sign() -> None:
    power = contrast_power(2.0, sd_difference=1.3, num_seeds=5)
    assert contrast_power(-20.0, sd_difference=13.0, num_seeds=5) == pytest.approx(power, abs=1e-12)


def test_a_difference_that_dwarfs_the_noise_is_always_found() -> None:
    assert contrast_power(1e6, sd_difference=1e-3, num_seeds=2) == 1.0
    assert contrast_power(30.0, sd_difference=1.0, num_seeds=3) == pytest.approx(1.0)


@pytest.mark.parametrize("sd_difference", [0.7, 1.2, 3.5, 6.4, 40.0])
def test_the_seeds_of_a_difference_have_the_power_and_one_fewer_has_not(sd_difference: float) -> None:
    seeds = seeds_for_difference(2.0, sd_difference=sd_difference)
    assert contrast_power(2.0, sd_difference=sd_difference, num_seeds=seeds) == pytest.approx(0.8, abs=1e-3)
    whole = max(2, math.ceil(seeds))
    assert contrast_power(2.0, sd_difference=sd_difference, num_seeds=whole) >= 0.8 - 1e-6
    if whole > 2:
        assert contrast_power(2.0, sd_difference=sd_difference, num_seeds=whole - 1) < 0.8


def test_without_noise_the_seeds_are_the_fewest_there_are() -> None:
    assert seeds_for_difference(2.0, sd_difference=0.0, num_contrasts=10) == 1.1
    assert seeds_for_difference(2.0, sd_difference=1e-6, num_contrasts=10) == 1.1


def test_a_difference_far_below_the_noise_takes_no_number_of_seeds() -> None:
    assert seeds_for_difference(1e-3, sd_difference=1e3) == math.inf


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"difference": 0.0, "sd_difference": 1.0}, "difference must be a finite number other than 0"),
        ({"difference": 1.0, "sd_difference": -1.0}, "sd_difference must be at least 0"),
        ({"difference": 1.0, "sd_difference": math.nan}, "sd_difference must be at least 0"),
        ({"difference": 1.0, "sd_difference": 1.0, "power": 1.0}, "power must be above"),
        ({"difference": 1.0, "sd_difference": 1.0, "power": 0.01}, "power must be above"),
        ({"difference": 1.0, "sd_difference": 1.0, "num_contrasts": 0}, "num_contrasts must be at least 1"),
    ],
)
def test_seeds_of_numbers_out_of_range_are_refused(given: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        seeds_for_difference(**given)


@pytest.mark.parametrize(
    ("given", "text"),
    [({"sd_difference": 0.0, "num_seeds": 3}, "sd_difference"), ({"sd_difference": 1.0, "num_seeds": 1}, "df")],
)
def test_power_of_numbers_out_of_range_is_refused(given: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        contrast_power(1.0, **given)
