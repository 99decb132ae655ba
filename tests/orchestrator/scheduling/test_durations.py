from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.scheduling.durations import TrialDurations
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Role, Trial


def test_lengths_are_means_of_an_arm_or_else_of_its_group_over_done_trials_with_the_floors_apart(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    seconds = {"none": 10.0, "random init": 1.0, "raw pixels": 3.0, "norm@all": 14.0}
    records = [record_of(t, State.DONE, seconds=seconds[t.arm]) for t in trials if t.seed == 0]
    records += [record_of(t, State.PRUNED, seconds=2.0) for t in trials if t.seed == 1 and t.arm == "norm@all"]
    lengths, group = TrialDurations(records), records[0].trial.group_id
    assert {t.arm: lengths.estimate(group, t.role, t.arm_id) for t in trials} == seconds
    assert (lengths.estimate(group, Role.ARM, "another"), lengths.estimate(group, Role.FLOOR, "another")) == (12.0, 2.0)
    assert (lengths.estimate(group, Role.BASELINE), lengths.estimate(group, Role.FLOOR)) == (12.0, 2.0)
    arm = next(t for t in trials if t.arm == "norm@all")
    lengths.add(group, arm.role, 18.0, arm.arm_id)
    assert lengths.estimate(group, Role.ARM, arm.arm_id) == (14 + 18) / 2
    assert lengths.estimate(group, Role.ARM) == (10 + 14 + 18) / 3


@pytest.mark.parametrize(
    ("measured", "role", "expected"),
    [
        ({("a", Role.ARM): 10.0, ("b", Role.ARM): 30.0, ("a", Role.FLOOR): 1.0}, Role.ARM, 10.0),
        ({("b", Role.ARM): 30.0, ("c", Role.ARM): 10.0, ("a", Role.FLOOR): 1.0}, Role.ARM, 20.0),
        ({("b", Role.ARM): 30.0}, Role.FLOOR, 30.0),
        ({("a", Role.FLOOR): 1.0}, Role.ARM, None),
        ({}, Role.ARM, None),
        ({}, Role.FLOOR, None),
    ],
)
def test_a_trial_takes_as_long_as_its_like_and_a_floor_says_nothing_of_a_training(
    measured: dict[tuple[str, Role], float], role: Role, expected: float | None
) -> None:
    lengths = TrialDurations()
    for (group_id, of_role), seconds in measured.items():
        lengths.add(group_id, of_role, seconds)
    assert lengths.estimate("a", role) == expected
