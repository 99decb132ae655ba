"""What the scheduler does about attempts that fail; played by script, without waiting."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.scheduling.breaker import Breaker, EverythingFailsError
from orchestrator.scheduling.retries import MAX_NODE_LOSSES
from orchestrator.storage.checkpoint_store import CheckpointStore
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import Failed
from orchestrator.trials.records import Cause, State
from orchestrator.trials.trial import Trial

Trials = tuple[Trial, ...]


@pytest.mark.parametrize("max_retries", [0, 1, 3])
@pytest.mark.parametrize("letter", ["X", "W"])
def test_a_trial_that_goes_on_failing_is_tried_again_as_often_as_allowed_and_every_traceback_is_kept(
    letter: str, max_retries: int, stage: Any, trials: Trials
) -> None:
    first, second = trials[:2]
    limits = Limits(max_retries=max_retries)
    assert stage.run({first: [f"sp{letter}"]}, trials=trials[:2], limits=limits)
    assert stage.states_of(first, second) == [State.FAILED, State.DONE]
    numbers = list(range(1, max_retries + 2))
    attempts = stage.attempts(first)
    assert [(row["attempt"], row["state"]) for row in attempts] == [(number, "failed") for number in numbers]
    assert [row["traceback"] for row in attempts] == [f"trace of {letter} {number}" for number in numbers]
    assert [why for _, why in stage.again] == [f"retry {number} of {max_retries}" for number in numbers[:-1]]
    # The view hears of the last failure alone as one, and the judge of one end.
    assert [event.attempt for event in stage.heard if isinstance(event, Failed)] == numbers[-1:]
    assert sorted(stage.ends) == sorted([(first.trial_id, State.FAILED), (second.trial_id, State.DONE)])
    assert all(stage.on_record)


def test_a_trial_that_fails_and_then_succeeds_is_done(stage: Any, trials: Trials) -> None:
    assert stage.run({trials[0]: ["sX", "sW", "spF"]}, trials=trials[:1], limits=Limits(max_retries=2))
    (record, *_) = stage.ledger.records()
    assert (record.state, record.num_attempts, record.error) == (State.DONE, 3, None)
    assert [row["cause"] for row in stage.attempts(trials[0])] == ["raised", "worker", None]
    assert stage.ends == [(trials[0].trial_id, State.DONE)]


def test_a_trial_that_failed_lets_one_pass_and_is_tried_again_before_those_that_wait(
    stage: Any, trials: Trials
) -> None:
    first, second, third = trials[:3]
    assert stage.run({first: ["sX", "spF"]}, trials=trials[:3])
    assert [job.trial_id for job in stage.executor.jobs] == [
        trial.trial_id for trial in (first, second, first, third)
    ]


def test_a_trial_waits_longer_every_time_before_it_is_tried_again(stage: Any, trials: Trials) -> None:
    begun_s: list[float] = []
    stage.on_submit = lambda _: begun_s.append(stage.clock.now_s)
    assert stage.run({trials[0]: ["X"]}, trials=trials[:1], limits=Limits(max_retries=3))
    # An attempt fails after a second; then come 1, 4 and 16 seconds.
    assert [later - earlier for earlier, later in pairwise(begun_s)] == [1 + 1, 1 + 4, 1 + 16]


def test_where_one_attempt_after_the_other_fails_the_run_is_stopped_and_says_why(stage: Any, trials: Trials) -> None:
    scripts = {trial: ["sX"] for trial in trials}
    begun_s = stage.clock.now_s
    text = r"the last \d+ attempts all failed: X 1 \(8 times\); X 2 \(8 times\); X 3 \(8 times\); 2 other errors"
    with pytest.raises(EverythingFailsError, match=text):
        stage.run(scripts, limits=Limits(max_retries=100), seconds_at_most=10_000)
    assert 300 <= stage.clock.now_s - begun_s < 310


def test_where_ten_trials_in_a_row_are_given_up_the_run_is_stopped_at_once(clock: Any) -> None:
    breaker = Breaker(clock)
    for number in range(10):
        breaker.check(oldest_s=math.inf)
        breaker.add_failure(Failed(f"{number}", 1, error="no such name", traceback=""), is_given_up=True)
    breaker.check(oldest_s=clock.now_s - 1)  # what was begun before may still end well
    with pytest.raises(EverythingFailsError, match=r"the last 10 attempts all failed: no such name \(10 times\)"):
        breaker.check(oldest_s=math.inf)
    breaker.add_success()
    breaker.check(oldest_s=math.inf)


def test_a_lost_node_is_no_retry_of_the_trial(stage: Any, trials: Trials) -> None:
    assert stage.run({trials[0]: ["sN", "sX", "sN", "spF"]}, trials=trials[:1], limits=Limits(max_retries=1))
    assert stage.states_of(trials[0]) == [State.DONE]
    assert [why for _, why in stage.again] == [
        f"retry 1 of {MAX_NODE_LOSSES}",
        "retry 1 of 1",
        f"retry 2 of {MAX_NODE_LOSSES}",
    ]


def test_a_trial_that_brings_every_node_down_is_given_up_in_the_end(stage: Any, trials: Trials) -> None:
    assert stage.run({trials[0]: ["sN"]}, trials=trials[:2], limits=Limits(max_retries=0))
    assert stage.states_of(trials[0], trials[1]) == [State.FAILED, State.DONE]
    assert len(stage.attempts(trials[0])) == MAX_NODE_LOSSES + 1


def test_the_state_of_a_trial_is_kept_until_its_numbers_are_on_record(
    stage: Any, trials: Trials, tmp_path: Path
) -> None:
    raises, loses = trials[:2]
    states = CheckpointStore(tmp_path / "checkpoints", every_s=1.0)
    (tmp_path / "checkpoints").mkdir()
    files = [states.file_of(trial.trial_id).location for trial in (raises, loses)]  # type: ignore[union-attr]
    for file in files:
        file.touch()
    kept: list[tuple[Cause, bool, bool]] = []

    def look(event: Failed, _: str) -> None:
        kept.append((event.cause, *(file.exists() for file in files)))  # type: ignore[arg-type]

    stage.on_retry = look
    scripts = {raises: ["sX", "spF"], loses: ["sW", "sN", "sG", "spF"]}
    assert stage.run(scripts, trials=[raises, loses], states=states)
    assert kept == [
        (Cause.RAISED, True, True),
        (Cause.WORKER, True, True),
        (Cause.NODE, False, True),  # the other trial is done by now
        (Cause.GPU_MEMORY, False, True),
    ]
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize(("letter", "why"), [
    ("D", "it would diverge again"),
    ("I", "the configuration or the data have to change first"),
])
def test_what_would_fail_again_is_not_tried_again_and_the_reason_is_told(
    letter: str, why: str, stage: Any, trials: Trials
) -> None:
    told: list[str] = []
    stage.on_give_up = lambda _, why: told.append(why)
    assert stage.run({trials[0]: [f"sp{letter}"]}, trials=trials[:2])
    assert stage.states_of(*trials[:2]) == [State.FAILED, State.DONE]
    assert (len(stage.attempts(trials[0])), told, stage.again) == (1, [why], [])


def test_what_raises_the_same_in_another_process_is_not_tried_a_third_time(stage: Any, trials: Trials) -> None:
    told: list[str] = []
    stage.on_give_up = lambda _, why: told.append(why)
    assert stage.run({trials[0]: ["spE"]}, trials=trials[:2], limits=Limits(max_retries=5))
    assert (len(stage.attempts(trials[0])), told) == (2, ["it failed in the same way before"])
    assert stage.states_of(*trials[:2]) == [State.FAILED, State.DONE]


@pytest.mark.parametrize("letter", ["O", "C"])
def test_a_disk_or_a_device_may_fail_in_the_same_way_as_often_as_is_allowed(
    letter: str, stage: Any, trials: Trials
) -> None:
    assert stage.run({trials[0]: [*[f"sp{letter}"] * 3, "spF"]}, trials=trials[:1], limits=Limits(max_retries=3))
    assert stage.states_of(trials[0]) == [State.DONE]
