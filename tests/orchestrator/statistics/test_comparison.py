"""All that a table says of a group, on numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from scipy.linalg import hadamard

from orchestrator.statistics.comparison import compare_arms, more_seeds
from orchestrator.statistics.design import Design
from orchestrator.statistics.dunnett import dunnett_critical
from orchestrator.statistics.simultaneous import Contrast, beside_family
from orchestrator.statistics.verdicts import Verdict


def group(shifts: dict[str, float], num_seeds: int, sd: float = 1.0, seed: int = 0) -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(seed)
    return {arm: dict(enumerate(map(float, shift + rng.normal(0, sd, num_seeds)))) for arm, shift in shifts.items()}


def test_each_arm_gets_its_verdict_in_the_order_given() -> None:
    shifts = {"up": 5, "none": 0, "down": -5, "same": 0, "open": 0.5}
    # Rows of a Hadamard matrix: noise whose mean is 0, so that estimates are the shifts and intervals reach .56.
    noise = 0.4 * hadamard(8)[1:]
    values = {
        arm: dict(enumerate((shift + row).tolist())) for (arm, shift), row in zip(shifts.items(), noise, strict=False)
    }
    found = compare_arms(values, baseline="none", smallest_effect=0.8)
    assert list(found.arms) == ["up", "down", "same", "open"]
    expected = [Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT, Verdict.UNDECIDED]
    assert [result.verdict for result in found.arms.values()] == expected
    lower = compare_arms(values, baseline="none", smallest_effect=0.8, higher_is_better=False)
    assert (lower.arms["up"].verdict, lower.arms["down"].verdict) == (Verdict.WORSE, Verdict.BETTER)
    assert found.missing is None
    assert found.family.critical == pytest.approx(dunnett_critical(4, 28), abs=1e-4)


def test_an_interval_reaches_dunnetts_value_times_the_standard_error() -> None:
    values = group({"none": 0, "a": 1, "b": 2}, 5)
    found = compare_arms(values, baseline="none")
    table = np.array([list(of_arm.values()) for of_arm in values.values()])
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    half = dunnett_critical(2, 8) * math.sqrt(2 * (residual**2).sum() / 8 / 5)
    result = found.arms["a"]
    assert (result.low, result.high) == pytest.approx((result.estimate - half, result.estimate + half), abs=1e-5)
    assert found.sd == pytest.approx(math.sqrt((residual**2).sum() / 8))
    assert found.detectable == pytest.approx(Design(2, 5, found.sd).detectable())


def test_too_few_seeds_give_intervals_but_no_verdict() -> None:
    found = compare_arms(group({"none": 0, "a": 50}, 3), baseline="none")
    assert (found.arms["a"].verdict, found.arms["a"].low > 0) == (Verdict.UNDECIDED, True)
    assert found.arms["a"].more_seeds == 1
    assert found.missing == "a verdict takes 4 seeds that an arm has in common with the baseline; there are at most 3"


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"none": {0: 1.0}}, "there is no arm beside the baseline"),
        ({"none": {0: math.nan}, "a": {0: 1.0}}, "the baseline none has no values, or one that is not finite"),
        ({"none": {0: 1.0}, "a": {1: 1.0}}, "there are none"),
        ({"none": {0: 1.0}, "a": {0: 1.0}}, "there are at most 1"),
    ],
)
def test_it_says_what_is_missing(values: dict[str, dict[int, float]], missing: str) -> None:
    found = compare_arms(values, baseline="none", smallest_effect=1.0)
    assert found.missing is not None
    assert missing in found.missing
    assert (found.detectable, found.pairing, found.variances) == (None, None, None)
    assert all((r.contrast, r.p_value, r.verdict) == (None, None, Verdict.UNDECIDED) for r in found.arms.values())


def test_an_arm_without_an_estimate_is_there_and_empty() -> None:
    values = group({"none": 0, "a": 1, "b": 1}, 6)
    values["b"][3] = math.nan
    result = compare_arms(values, baseline="none").arms["b"]
    assert (result.estimate, result.low, result.high, result.p_single, result.num_seeds) == (None, None, None, None, 0)


def test_more_seeds_are_the_fewest_that_would_decide() -> None:
    contrast = Contrast(1.0, 0.8, 40.0, -1.0, 3.0, 0.5, 0.2)  # a difference varies by 0.8 x 2 = 1.6 within a seed

    def half(num_seeds: int) -> float:
        return dunnett_critical(10, 10 * (num_seeds - 1)) * 1.6 / math.sqrt(num_seeds)

    more = more_seeds(contrast, 4, num_arms=10)
    assert more is not None
    assert half(4 + more) < 1.0 < half(4 + more - 1)
    closer = more_seeds(Contrast(0.1, 0.8, 40.0, -1.0, 3.0, 0.5, 0.2), 4, num_arms=10, smallest_effect=1.5)
    assert closer is not None
    assert half(4 + closer) < 1.4 < half(4 + closer - 1)
    assert more_seeds(Contrast(0.001, 0.8, 40.0, -1.0, 1.0, 1.0, 1.0), 4, num_arms=10) is None
    assert more_seeds(Contrast(0.0, 0.0, 40.0, 0.0, 0.0, 1.0, 1.0), 4, num_arms=10) is None


def test_own_variances_change_the_intervals_and_not_the_estimates() -> None:
    values = group({"none": 0, "a": 1, "b": 1, "c": 0}, 6)
    pooled, own = (compare_arms(values, baseline="none", variances=how) for how in ("pooled", "own"))
    for arm in "abc":
        assert own.arms[arm].estimate == pytest.approx(pooled.arms[arm].estimate)
        assert own.arms[arm].contrast.df == 5
    with pytest.raises(ValueError, match="variances must be 'pooled' where seeds are no blocks, not 'own'"):
        compare_arms(values, baseline="none", variances="own", blocks=False)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_control_with_the_values_of_an_arm_is_judged_as_the_arm_is(blocks: bool) -> None:
    values = group({"none": 0, "a": 1, "b": 2}, 5)
    found = compare_arms(values, baseline="none", blocks=blocks)
    beside = beside_family(values["b"], values["none"], model=found.model, family=found.family)
    assert beside is not None
    assert vars(beside) == pytest.approx(vars(found.arms["b"].contrast))


def test_a_control_is_judged_within_the_seeds_that_it_has_and_by_another_critical_value_where_one_is_given() -> None:
    values = group({"none": 0, "a": 1}, 6)
    found = compare_arms(values, baseline="none")
    control = {0: values["none"][0] + 0.5, 2: values["none"][2] - 0.1, 9: 100.0}
    contrast = beside_family(control, values["none"], model=found.model, family=found.family, critical=3.0)
    assert contrast is not None
    assert found.sd is not None
    assert contrast.estimate == pytest.approx(0.2)
    assert contrast.high - contrast.low == pytest.approx(6 * found.sd)  # 2 x 3 x sd sqrt(2 / 2)
    # Beside a single arm the adjusted p is Student's.
    assert contrast.p_value == pytest.approx(2 * scipy.stats.t.sf(0.2 / found.sd, 5), abs=1e-6)
    assert contrast.p_single == pytest.approx(contrast.p_value)


def test_without_a_seed_in_common_or_a_yardstick_a_control_has_no_interval() -> None:
    values = group({"none": 0, "a": 1}, 4)
    found = compare_arms(values, baseline="none")
    assert beside_family({7: 1.0}, values["none"], model=found.model, family=found.family) is None
    single = compare_arms({arm: {0: of_arm[0]} for arm, of_arm in values.items()}, baseline="none")
    assert beside_family({0: 1.0}, values["none"], model=single.model, family=single.family) is None
    constant = compare_arms({"none": dict.fromkeys(range(4), 1.0), "a": dict.fromkeys(range(4), 2.0)}, baseline="none")
    contrast = beside_family(
        dict.fromkeys(range(4), 1.5), dict.fromkeys(range(4), 1.0), model=constant.model, family=constant.family
    )
    assert contrast is not None
    assert (contrast.low, contrast.high, contrast.p_value) == (0.5, 0.5, 0.0)
