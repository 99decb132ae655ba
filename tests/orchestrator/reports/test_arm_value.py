from __future__ import annotations

import math

import pytest

from orchestrator.reports.arm_value import arm_value
from orchestrator.trials.records import State, TrialRecord

from .table_records import make_records, make_trial


def test_the_value_is_the_mean_over_all_seeds() -> None:
    value = arm_value(make_records("norm@all", 1.0, 2.0, 6.0), "knn_top1")  # offsets from 50
    assert (value.mean, value.by_seed) == (53.0, {0: 51.0, 1: 52.0, 2: 56.0})
    assert value.std_over_seeds == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert (value.state, value.missing) == (State.DONE, None)


def test_one_seed_has_a_mean_and_no_deviation() -> None:
    value = arm_value(make_records("norm@all", 1.0), "knn_top1")
    assert (value.mean, value.std_over_seeds, value.missing) == (51.0, None, None)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.FAILED, State.FAILED),
        (State.PRUNED, State.PRUNED),
        (State.WAITING, State.RUNNING),
        (State.PENDING, State.RUNNING),
        (State.RUNNING, State.RUNNING),
        (State.SKIPPED, State.RUNNING),
    ],
)
def test_an_arm_with_a_seed_without_value_has_none(state: State, expected: State) -> None:
    # What a trial that has not ended has so far is no value either.
    other = TrialRecord(make_trial("norm@all", 1), state, metrics={"knn_top1": 99.0})
    value = arm_value([*make_records("norm@all", 1.0), other], "knn_top1")
    assert (value.mean, value.std_over_seeds, value.state, value.by_seed) == (None, None, expected, {0: 51.0})


def test_a_failure_counts_before_a_pruning_and_that_before_a_trial_that_waits() -> None:
    waiting, pruned, failed = (
        TrialRecord(make_trial("norm@all", seed), state)
        for seed, state in enumerate((State.WAITING, State.PRUNED, State.FAILED), 1)
    )
    done = make_records("norm@all", 1.0)
    assert arm_value([*done, waiting, pruned, failed], "knn_top1").state is State.FAILED
    assert arm_value([*done, waiting, pruned], "knn_top1").state is State.PRUNED


@pytest.mark.parametrize(
    ("metrics", "why"), [({}, "seed 0 has no miou"), ({"miou": math.inf}, "miou of seed 0 is inf")]
)
def test_a_seed_that_is_done_without_a_finite_value_is_named(metrics: dict[str, float], why: str) -> None:
    record = TrialRecord(make_trial("norm@all", 0), State.DONE, metrics=metrics)
    value = arm_value([record], "miou")
    assert (value.state, value.mean) == (State.FAILED, None)
    assert value.missing == f"not all seeds of the arm have a value: {why}"
