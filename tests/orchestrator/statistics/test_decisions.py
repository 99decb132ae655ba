"""What becomes of arms at looks: by hand at one look, and its rates over simulated sweeps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.statistics.decisions import Action, decide
from orchestrator.statistics.looks import design_looks
from orchestrator.statistics.model import fit_group

LOOKS = [4, 5, 6, 7, 8, 10, 12, 16]
DESIGN = design_looks(LOOKS, 10)
SHIFTS = {"none": 0.0, "up": 6.0, "down": -6.0, "flat": 0.0} | {f"a{place}": 0.4 for place in range(7)}


def group(num_seeds: int, sd: float = 0.5) -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(0)
    noise = {arm: rng.normal(shift, sd, 16) for arm, shift in SHIFTS.items()}
    return {arm: dict(enumerate(map(float, drawn[:num_seeds]))) for arm, drawn in noise.items()}


def test_clear_arms_are_decided_at_the_first_look_and_lower_can_be_better() -> None:
    decisions = decide(DESIGN, 4, group(4), baseline="none")
    assert (decisions["up"].action, decisions["down"].action) == (Action.BETTER, Action.WORSE)
    turned = decide(DESIGN, 4, group(4), baseline="none", higher_is_better=False)
    assert (turned["up"].action, turned["down"].action) == (Action.WORSE, Action.BETTER)


def test_a_repeated_interval_reaches_the_looks_critical_value() -> None:
    values = group(8)
    model = fit_group(values, baseline="none")
    decision = decide(DESIGN, 8, values, baseline="none", arms=["up"])["up"]
    half = DESIGN.critical[LOOKS.index(8)] * math.sqrt(2 * model.variance / 8)
    assert decision.high - decision.estimate == pytest.approx(half, rel=1e-4)
    assert decision.num_seeds == 8


def test_only_arms_in_question_are_decided_and_those_that_stopped_still_count() -> None:
    values = group(8)
    values["up"] = {seed: value for seed, value in values["up"].items() if seed < 4}
    decisions = decide(DESIGN, 8, values, baseline="none", arms=["flat", "a3"])
    assert list(decisions) == ["flat", "a3"]
    model = fit_group(values, baseline="none")
    assert model.df == 11 * 8 - 4 - 11 - 7


def test_equivalent_and_futile_arms_stop() -> None:
    assert decide(DESIGN, 8, group(8), baseline="none", smallest_effect=2.0)["flat"].action == Action.EQUIVALENT
    values = group(8, sd=4.0)
    decisions = decide(DESIGN, 8, values, baseline="none")
    smallest = min(decisions, key=lambda arm: abs(decisions[arm].estimate))
    assert decisions[smallest].action == Action.FUTILE
    assert decide(DESIGN, 8, values, baseline="none", futile_below=0)[smallest].action == Action.CONTINUE
    # Where differences of interest are large, the rest of the seeds may yet find one.
    wide = decide(DESIGN, 8, values, baseline="none", smallest_effect=7.0)
    assert wide[smallest].action in (Action.CONTINUE, Action.EQUIVALENT)


@pytest.mark.parametrize("look", [4, 8])
def test_an_arm_is_futile_by_what_further_seeds_would_say(look: int) -> None:
    # At estimate d the last one is d + e: e has the variance of all seeds' mean less that of those that are there.
    values, rng = group(look, sd=3.0), np.random.default_rng(1)
    model = fit_group(values, baseline="none")
    decisions = decide(DESIGN, look, values, baseline="none")
    better = decide(DESIGN, look, values, baseline="none", seek="better")
    actions = set()
    for arm, decision in decisions.items():
        assert decision.estimate is not None
        truth = decision.estimate + math.sqrt(2 * model.variance / look) * rng.standard_normal(400_000)
        rest = truth + math.sqrt(2 * model.variance / (16 - look)) * rng.standard_normal(400_000)
        last = (look * decision.estimate + (16 - look) * rest) / 16 / math.sqrt(2 * model.variance / 16)
        chances = (last > DESIGN.critical[-1]).mean(), (last < -DESIGN.critical[-1]).mean()
        for chance, found in ((sum(chances), decision), (chances[0], better[arm])):
            if found.action in (Action.FUTILE, Action.CONTINUE) and abs(chance - 0.1) > 0.003:
                assert found.action is (Action.FUTILE if chance < 0.1 else Action.CONTINUE)
                actions.add(found.action)
    assert actions == {Action.FUTILE, Action.CONTINUE}


def test_who_seeks_what_is_better_stops_arms_that_are_worse_in_the_metrics_direction() -> None:
    values = group(4, sd=0.5)
    values["down"] = {seed: value + 5.3 for seed, value in values["down"].items()}  # worse, but not for sure
    assert decide(DESIGN, 4, values, baseline="none")["down"].action is Action.CONTINUE
    assert decide(DESIGN, 4, values, baseline="none", seek="better")["down"].action is Action.FUTILE
    low = decide(DESIGN, 4, values, baseline="none", seek="better", higher_is_better=False)
    assert (low["down"].action, low["up"].action) == (Action.CONTINUE, Action.WORSE)


def test_at_the_last_look_an_arm_is_undecided() -> None:
    decisions = decide(DESIGN, 16, group(16, sd=4.0), baseline="none")
    assert decisions["flat"].action == Action.UNDECIDED


def test_arms_that_cannot_be_judged_go_on() -> None:
    values = group(4) | {"short": {0: 1.0, 1: 9.0, 2: 9.0}, "lost": {0: math.nan}, "empty": {}}
    decisions = decide(DESIGN, 4, values, baseline="none")
    assert [decisions[arm].action for arm in ("short", "lost", "empty")] == [Action.CONTINUE] * 3
    assert (decisions["lost"].estimate, decisions["lost"].low, decisions["short"].num_seeds) == (None, None, 3)
    one_seed = {arm: {0: of_arm[0]} for arm, of_arm in values.items() if arm in SHIFTS}
    assert decide(DESIGN, 16, one_seed, baseline="none")["up"].action == Action.UNDECIDED
    with pytest.raises(ValueError, match="look must be one of 4, 5, 6, 7, 8, 10, 12, 16 seeds, not 9"):
        decide(DESIGN, 9, group(9), baseline="none")
