"""What the scheduler does about orders given while it runs; played by script on a made-up clock."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.storage.command_inbox import Cancel, Prune, Retry
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import Pruned
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial

Trials = tuple[Trial, ...]
LONG = "s" + 40 * "p" + "F"


def test_an_order_to_cancel_ends_the_run_and_leaves_the_rest_waiting(stage: Any, trials: Trials) -> None:
    stage.orders = {2: [Cancel()]}
    assert not stage.run({trials[0]: [LONG]}, trials=trials[:2])
    assert stage.states_of(*trials[:2]) == [State.RUNNING, State.WAITING]
    stage.ledger.release_running()
    assert stage.states_of(*trials[:2]) == [State.WAITING] * 2
    assert stage.ends == []


def test_an_order_to_prune_stops_running_trials_and_ends_waiting_ones_without_running_them(
    stage: Any, trials: Trials
) -> None:
    first, second, third = trials[:3]
    stage.orders = {3: [Prune((first.trial_id, third.trial_id))]}
    assert stage.run({first: [LONG]}, trials=trials[:3])
    assert stage.states_of(first, second, third) == [State.PRUNED, State.DONE, State.PRUNED]
    assert [job.trial_id for job in stage.executor.jobs] == [first.trial_id, second.trial_id]
    assert [(event.trial_id, event.step > 0) for event in stage.heard if isinstance(event, Pruned)] == [
        (third.trial_id, False),
        (first.trial_id, True),
    ]
    assert dict(stage.ends)[third.trial_id] is State.PRUNED
    assert stage.submissions.count(third.trial_id) == 1
    assert all(stage.on_record)


def test_an_order_to_prune_trials_that_have_ended_or_that_nobody_knows_changes_nothing(
    stage: Any, trials: Trials
) -> None:
    stage.orders = {4: [Prune((trials[0].trial_id, "unknown"))]}
    assert stage.run({trials[1]: [LONG]}, trials=trials[:2])
    assert stage.states_of(*trials[:2]) == [State.DONE, State.DONE]
    assert stage.executor.pruned == []


@pytest.mark.parametrize("letter", ["W", "N", "X", "G"])
def test_a_running_trial_that_was_ordered_to_be_pruned_is_not_tried_again_when_its_attempt_is_lost(
    letter: str, stage: Any, trials: Trials
) -> None:
    stage.orders = {2: [Prune((trials[0].trial_id,))]}
    stage.deaf = {trials[0].trial_id}
    assert stage.run({trials[0]: [f"sppp{letter}", "spF"]}, trials=trials[:2], resources={"gpus": 0.25}, gpus=1.0)
    assert stage.states_of(*trials[:2]) == [State.PRUNED, State.DONE]
    assert len(stage.executor.jobs) == 2
    assert stage.ends == [(trials[0].trial_id, State.PRUNED), (trials[1].trial_id, State.DONE)]


def test_a_stalled_trial_that_was_ordered_to_be_pruned_is_killed_and_pruned(stage: Any, trials: Trials) -> None:
    stage.orders = {2: [Prune((trials[0].trial_id,))]}
    stage.deaf = {trials[0].trial_id}
    limits = Limits(stall_timeout_s=5.0)
    assert stage.run({trials[0]: ["s" + 30 * ".", "spF"]}, trials=trials[:1], limits=limits)
    assert stage.states_of(trials[0]) == [State.PRUNED]


def test_a_hopeless_trial_is_not_tried_again_when_its_attempt_is_lost(stage: Any, trials: Trials) -> None:
    stage.hopeless = stage.deaf = {trials[0].trial_id}
    assert stage.run({trials[0]: ["srW", "spF"]}, trials=trials[:1])
    assert stage.states_of(trials[0]) == [State.PRUNED]


def test_an_order_to_retry_runs_trials_that_have_failed_again_with_all_their_tries(stage: Any, trials: Trials) -> None:
    first, second = trials[:2]
    stage.orders = {12: [Retry((first.trial_id,))]}
    limits = Limits(max_retries=1)
    scripts = {first: ["sX", "sX", "sX", "spF"], second: [LONG]}
    assert stage.run(scripts, trials=trials[:2], limits=limits, num_slots=2)
    assert [row["state"] for row in stage.attempts(first)] == ["failed"] * 3 + ["done"]
    assert stage.ends[0] == (first.trial_id, State.FAILED)
    assert (first.trial_id, State.DONE) in stage.ends
    assert [why for _, why in stage.again] == ["retry 1 of 1"] * 2


def test_an_order_to_retry_runs_trials_that_were_pruned(stage: Any, trials: Trials) -> None:
    first, second = trials[:2]
    stage.orders = {2: [Prune((first.trial_id,))], 6: [Retry((first.trial_id,))]}
    assert stage.run({first: [LONG], second: [LONG]}, trials=trials[:2])
    assert [row["state"] for row in stage.attempts(first)] == ["pruned", "done"]


def test_an_order_to_retry_takes_back_an_order_to_prune(stage: Any, trials: Trials) -> None:
    first = trials[0]
    stage.orders = {2: [Prune((first.trial_id,))], 3: [Retry((first.trial_id,))]}
    stage.deaf = {first.trial_id}
    assert stage.run({first: ["spppW", "spF"]}, trials=trials[:1])
    assert stage.states_of(first) == [State.DONE]


def test_an_order_to_retry_trials_of_the_sweep_that_this_run_was_not_given_runs_them(
    stage: Any, trials: Trials
) -> None:
    stage.orders = {2: [Retry((trials[1].trial_id,))]}
    assert stage.run({trials[0]: [LONG]}, trials=trials[:1])
    assert stage.states_of(*trials[:3]) == [State.DONE, State.DONE, State.WAITING]


def test_an_order_to_retry_what_runs_waits_is_done_or_unknown_runs_nothing_twice(stage: Any, trials: Trials) -> None:
    done, runs, waits = trials[:3]
    ids = (done.trial_id, runs.trial_id, waits.trial_id, "unknown")
    stage.orders = {5: [Retry(ids)]}
    assert stage.run({runs: [LONG]}, trials=trials[:3])
    assert [job.trial_id for job in stage.executor.jobs] == [done.trial_id, runs.trial_id, waits.trial_id]


def test_a_trial_that_is_named_twice_in_orders_runs_once(stage: Any, trials: Trials) -> None:
    first, second = trials[:2]
    retry = Retry((first.trial_id, first.trial_id))
    stage.orders = {4: [retry, retry]}
    assert stage.run({first: ["sX", "spF"], second: [LONG]}, trials=trials[:2], limits=Limits(max_retries=0))
    assert [row["state"] for row in stage.attempts(first)] == ["failed", "done"]


def test_orders_are_obeyed_in_their_order_up_to_a_cancel(stage: Any, trials: Trials) -> None:
    stage.orders = {2: [Prune((trials[1].trial_id,)), Cancel(), Prune((trials[2].trial_id,))]}
    assert not stage.run({trials[0]: [LONG]}, trials=trials[:3])
    assert stage.states_of(*trials[1:3]) == [State.PRUNED, State.WAITING]
