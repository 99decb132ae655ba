"""What the scheduler does about attempts that are silent, pending or late; played by script, without waiting."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import Failed, Finished, Logged, Reported
from orchestrator.trials.records import State
from orchestrator.trials.trial import Trial

Trials = tuple[Trial, ...]


def test_an_attempt_that_is_silent_for_too_long_is_killed_and_its_trial_tried_again(
    stage: Any, trials: Trials
) -> None:
    limits = Limits(stall_timeout_s=10.0)
    assert stage.run({trials[0]: ["sppp" + 30 * ".", "spF"]}, trials=trials[:2], limits=limits, num_slots=2)
    assert stage.executor.killed == [trials[0].trial_id]
    stalled, again = stage.attempts(trials[0])
    assert (stalled["state"], stalled["cause"], again["state"]) == ("failed", "stalled", "done")
    assert stalled["error"] == "no progress for 10 s at step 3; it was killed"
    # Started at the 1st second, heard of at the 4th, and killed when more than 10 have passed.
    assert stalled["held_s"] == 14.0
    assert [why for _, why in stage.again] == ["retry 1 of 2"]


@pytest.mark.parametrize("letter", ["p", "r", "l"])
def test_whatever_is_heard_of_an_attempt_is_a_sign_of_life(letter: str, stage: Any, trials: Trials) -> None:
    script = "s" + f"........{letter}" * (1 if letter == "r" else 4) + "F"
    assert stage.run({trials[0]: [script]}, trials=trials[:1], limits=Limits(stall_timeout_s=10.0))
    assert stage.executor.killed == []
    assert stage.states_of(trials[0]) == [State.DONE]


def test_an_attempt_whose_worker_has_not_begun_does_not_stall_and_costs_nothing(stage: Any, trials: Trials) -> None:
    limits, gpu = Limits(stall_timeout_s=10.0, max_gpu_hours=10 / 3600), {"gpus": 1.0}
    assert stage.run({trials[0]: [50 * "." + "spF"]}, trials=trials[:1], limits=limits, resources=gpu, gpus=1.0)
    assert stage.executor.killed == []
    # It is given its place at 0, starts at the 51st second, and ends at the 53rd.
    assert stage.ledger.gpu_hours() == pytest.approx(2 / 3600)


def test_a_trial_that_is_pending_for_too_long_waits_again_and_has_not_failed(stage: Any, trials: Trials) -> None:
    limits = Limits(start_timeout_s=20.0, max_retries=0)
    assert stage.run({trials[0]: [50 * ".", "spF"]}, trials=trials[:1], limits=limits)
    assert stage.executor.killed == [trials[0].trial_id]
    pending, again = stage.attempts(trials[0])
    assert (pending["cause"], pending["started_at"], pending["held_s"], again["state"]) == ("node", None, 0.0, "done")
    assert pending["error"] == "no worker has started within 20 s; others may hold what it takes"
    assert stage.states_of(trials[0]) == [State.DONE]


def test_a_run_in_which_nothing_but_pending_trials_is_says_what_it_waits_for_and_who_holds_it(
    stage: Any, trials: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    others = {trials[0]: [70 * "." + "spF"], trials[1]: ["s" + 70 * "p" + "F"]}
    assert stage.run(others, trials=trials[:2], num_slots=2)
    assert caplog.messages == []  # the other one ran
    stage.held_by_others = "others hold 1 GPU"
    assert stage.run({trials[2]: [70 * "." + "spF"]}, trials=trials[2:3])
    (message,) = caplog.messages
    text = f"nothing runs: no worker has started for {trials[2].label}, which takes 1 core; others hold 1 GPU"
    assert message == text


def test_a_trial_that_always_stalls_is_given_up(stage: Any, trials: Trials) -> None:
    limits = Limits(stall_timeout_s=5.0, max_retries=1)
    assert stage.run({trials[0]: ["s" + 50 * "."]}, trials=trials[:2], limits=limits)
    assert stage.states_of(trials[0], trials[1]) == [State.FAILED, State.DONE]
    assert stage.executor.killed == [trials[0].trial_id] * 2


def test_late_events_of_a_replaced_attempt_change_nothing(stage: Any, trials: Trials) -> None:
    trial_id = trials[0].trial_id
    late = [
        Reported(trial_id, 1, step=7, metrics={"knn_top1": 99.0}),
        Logged(trial_id, 1, level="WARNING", text="late"),
        Finished(trial_id, 1, metrics={"knn_top1": 99.0}, seconds=1.0, core_seconds=1.0),
        Failed(trial_id, 1, error="late", traceback=""),
    ]
    stage.late = {5: late, 9: late}  # the first attempt is killed at 4
    limits = Limits(stall_timeout_s=2.5)
    assert stage.run({trials[0]: ["s" + 9 * ".", "sppprF"]}, trials=trials[:1], limits=limits)
    record = stage.ledger.records()[0]
    assert (record.state, record.num_attempts, record.metrics) == (State.DONE, 2, {"knn_top1": 50.0})
    assert [report.step for report in record.reports] == [2]
    assert [event.attempt for event in stage.heard if isinstance(event, Reported | Finished)] == [2, 2]
    assert len(stage.again) == 1


def test_an_end_and_what_came_with_it_are_recorded_in_one_transaction_before_anyone_hears_of_them(
    stage: Any, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trials[:2]
    rungs: list[int] = []

    def read(*_: object) -> tuple[str, ...]:
        # What the other trial reported in the same moment is on record as well.
        rungs.append(sum(len(record.reports) for record in stage.ledger.records()))
        return ()

    monkeypatch.setattr(stage, "report", read)
    assert stage.run({first: ["srF"], second: ["srF"]}, trials=trials[:2], num_slots=2)
    assert rungs == [2, 2]
