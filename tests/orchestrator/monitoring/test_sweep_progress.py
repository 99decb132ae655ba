from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from orchestrator.monitoring.sweep_progress import SweepProgress
from orchestrator.monitoring.time_left import TimeLeft
from orchestrator.trials.events import Event, Failed, Finished, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause, State, TrialRecord
from orchestrator.trials.trial import Trial


@pytest.fixture
def make_board(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord], clock: Any
) -> Callable[..., SweepProgress]:
    def make(records: Sequence[TrialRecord] | None = None, num_slots: int = 1) -> SweepProgress:
        if records is None:
            records = [record_of(trial) for trial in trials]
        return SweepProgress(records, num_slots=lambda: num_slots, shown_metric="knn_top1", clock=clock)

    return make


def finished(trial: Trial, seconds: float) -> Event:
    return Finished(trial.trial_id, 1, metrics={}, seconds=seconds, core_seconds=seconds)


def test_counts_follow_every_trial_from_waiting_to_its_end(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...]
) -> None:
    board = make_board()
    assert board.counts == {State.WAITING: 8}
    for trial in trials[:4]:
        board.on_submit(trial)
    assert board.counts == {State.WAITING: 4, State.PENDING: 4}
    for trial in trials[1:4]:
        board.on_event(Started(trial.trial_id, 1, worker="node:1"))
    assert board.counts == {State.WAITING: 4, State.PENDING: 1, State.RUNNING: 3}
    board.on_event(finished(trials[0], 2.0))
    board.on_event(Pruned(trials[1].trial_id, 1, step=2, seconds=1.0))
    board.on_event(Failed(trials[2].trial_id, 1, error="ValueError: no", traceback=""))
    assert board.counts == {
        State.WAITING: 4,
        State.PENDING: 0,
        State.RUNNING: 1,
        State.DONE: 1,
        State.PRUNED: 1,
        State.FAILED: 1,
    }
    assert list(board.running) == [trials[3].trial_id]


def test_results_of_earlier_runs_count_and_what_failed_or_was_lost_waits_again(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    known = [State.DONE, State.PRUNED, State.FAILED, State.RUNNING, State.WAITING]
    board = make_board([record_of(trial, state) for trial, state in zip(trials, known, strict=False)])
    assert board.counts == {State.DONE: 1, State.PRUNED: 1, State.WAITING: 3}


def test_a_running_trial_shows_its_step_rate_and_last_rung(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...]
) -> None:
    board, trial_id = make_board(), trials[0].trial_id
    board.on_submit(trials[0])
    running = board.running[trial_id]
    assert (running.label, running.step, running.steps) == (trials[0].label, 0, None)
    board.on_event(Started(trial_id, 1, worker="node:1"))
    board.on_event(Progressed(trial_id, 1, step=1, steps=4, images_per_s=64.0))
    assert (running.step, running.steps, running.images_per_s, running.last_metric) == (1, 4, 64.0, "")
    board.on_event(Reported(trial_id, 1, step=2, metrics={"loss": 9.0, "knn_top1": 33.33}))
    assert (running.step, running.last_metric) == (2, "knn_top1 33.3")
    board.on_event(Reported(trial_id, 1, step=3, metrics={"loss": 9.0}))
    assert (running.step, running.last_metric) == (3, "knn_top1 33.3")


def test_a_running_trial_shows_metres_to_the_millimetre(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    board = SweepProgress([record_of(trial) for trial in trials], num_slots=lambda: 1, shown_metric="depth_rmse")
    board.on_submit(trials[0])
    board.on_event(Reported(trials[0].trial_id, 1, step=2, metrics={"depth_rmse": 0.98765}))
    assert board.running[trials[0].trial_id].last_metric == "depth_rmse 0.988"


def test_an_event_of_a_trial_that_does_not_run_is_let_pass(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...]
) -> None:
    board = make_board()
    board.on_event(finished(trials[0], 2.0))
    assert board.counts == {State.WAITING: 8}


def test_time_left_is_unknown_until_something_was_measured(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...]
) -> None:
    board = make_board()
    assert board.seconds_left() is None
    board.on_submit(trials[0])
    assert board.seconds_left() is None
    # A floor is not trained; its length says nothing of the trainings.
    board.on_submit(trials[1])
    board.on_event(finished(trials[1], 0.1))
    assert trials[1].role == "floor"
    assert board.seconds_left() is None


def test_time_left_is_the_mean_length_of_what_waits_less_what_has_run(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...], clock: Any
) -> None:
    board = make_board()
    board.on_submit(trials[0])
    clock.now_s += 10.0
    board.on_event(finished(trials[0], 10.0))
    board.on_submit(trials[1])
    board.on_event(finished(trials[1], 2.0))
    # To do: 3 trainings of 10 s and 3 floors of 2 s.
    assert board.seconds_left() == pytest.approx(36.0)
    board.on_submit(trials[3])
    clock.now_s += 50.0
    assert board.seconds_left() == pytest.approx(36.0)  # it is pending
    board.on_event(Started(trials[3].trial_id, 1, worker="node:1"))
    clock.now_s += 4.0
    assert board.seconds_left() == pytest.approx(32.0)
    # One that takes longer than it should is about to end.
    clock.now_s += 100.0
    assert board.seconds_left() == pytest.approx(26.0)


def test_time_left_of_the_only_trial_is_told_from_its_own_pace(
    make_board: Callable[..., SweepProgress],
    trials: tuple[Trial, ...],
    record_of: Callable[..., TrialRecord],
    clock: Any,
) -> None:
    board = make_board([record_of(trials[0])], num_slots=2)
    board.on_submit(trials[0])
    board.on_event(Progressed(trials[0].trial_id, 1, step=0, steps=0, images_per_s=0.0))
    assert board.seconds_left() is None
    clock.now_s += 6.0
    board.on_event(Progressed(trials[0].trial_id, 1, step=3, steps=12, images_per_s=1.0))
    # 3 steps took 6 s: 9 are left, 2 s each; the second slot cannot help.
    assert board.seconds_left() == pytest.approx(18.0)


def test_time_left_is_shared_by_the_slots_that_have_work(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    done = [record_of(trial, State.DONE, seconds=10.0) for trial in trials[:6]]
    waiting = [record_of(trial) for trial in trials[6:]]
    assert make_board(done + waiting, num_slots=8).seconds_left() == pytest.approx(10.0)
    assert make_board(done + waiting, num_slots=1).seconds_left() == pytest.approx(20.0)


def test_time_left_where_trials_occupy_unequal_shares_is_what_the_executor_says_and_no_less_than_the_longest(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    records = [record_of(trial, State.DONE, seconds=10.0) for trial in trials[:5]]
    records += [record_of(trial) for trial in trials[5:]]
    asked: list[dict[str, float]] = []

    def left(seconds: float) -> float | None:
        def least_s(work: Mapping[str, float]) -> float:
            asked.append(dict(work))
            return seconds

        return SweepProgress(records, num_slots=lambda: 1, shown_metric="loss", least_s=least_s).seconds_left()

    assert (left(25.0), left(4.0)) == (25.0, 10.0)
    assert asked == [{trials[0].group_id: 30.0}] * 2


def test_time_left_is_nothing_once_all_is_done(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    assert make_board([record_of(trial, State.DONE, seconds=1.0) for trial in trials]).seconds_left() == 0.0


def test_a_trial_that_will_be_tried_again_waits_and_its_retries_are_counted_by_cause(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...]
) -> None:
    board = make_board()
    for cause in (Cause.WORKER, Cause.NODE, Cause.WORKER):
        board.on_submit(trials[0])
        board.on_retry(Failed(trials[0].trial_id, 1, error="x", traceback="", cause=cause), "retry")
        assert board.counts[State.WAITING] == 8
        assert (board.counts[State.RUNNING], board.running) == (0, {})
    assert board.retries == {Cause.WORKER: 2, Cause.NODE: 1}
    board.on_submit(trials[0])
    board.on_event(finished(trials[0], 2.0))
    assert (board.counts[State.DONE], board.counts[State.WAITING]) == (1, 7)


def test_trials_that_are_left_out_take_no_time(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...]
) -> None:
    board = make_board()
    board.on_submit(trials[0])
    board.on_event(finished(trials[0], 10.0))
    board.on_submit(trials[3])
    board.on_skip([trials[3], *trials[4:]], "the time budget")
    assert (board.counts[State.SKIPPED], board.counts[State.WAITING], board.running) == (5, 2, {})
    assert {trial.role for trial in trials[1:3]} == {"floor"}
    # Floors are reckoned at most as long as a training.
    assert board.seconds_left() == pytest.approx(20.0)


def test_slots_are_asked_for_whenever_they_matter(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    slots = [1]
    records = [record_of(trials[0], State.DONE, seconds=10.0), *(record_of(trial) for trial in trials[3:5])]
    board = SweepProgress(records, num_slots=lambda: slots[0], shown_metric="knn_top1")
    assert board.seconds_left() == pytest.approx(20.0)
    slots[0] = 2
    assert (board.num_slots, board.seconds_left()) == (2, pytest.approx(10.0))
    slots[0] = 0
    assert board.seconds_left() == pytest.approx(20.0)


def test_until_a_trial_has_ended_time_left_is_a_guess_then_the_pace_then_measured(
    trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord], clock: Any
) -> None:
    board = SweepProgress(
        [record_of(trial) for trial in trials],
        num_slots=lambda: 1,
        shown_metric="knn_top1",
        guess=lambda _group, role: 20.0 if role.is_trained else 1.0,
        clock=clock,
    )
    assert board.seconds_left() is None
    assert board.time_left() == TimeLeft(4 * 20.0 + 4 * 1.0, is_guess=True)  # two seeds of two arms and two floors
    board.on_submit(trials[0])
    board.on_event(Started(trials[0].trial_id, 1, worker="node:1"))
    clock.now_s += 6.0
    board.on_event(Progressed(trials[0].trial_id, 1, step=1, steps=100, images_per_s=1.0))
    assert board.time_left() == TimeLeft(78.0, is_guess=True)  # a hundredth of the steps tells no pace
    board.on_event(Progressed(trials[0].trial_id, 1, step=50, steps=100, images_per_s=1.0))
    assert board.time_left() == TimeLeft(6.0 + 3 * 12.0 + 4.0, is_guess=True)
    board.on_event(finished(trials[0], 10.0))
    assert board.time_left() == TimeLeft(3 * 10.0 + 4 * 10.0, is_guess=False)  # floors take as long, at most


def test_without_a_guess_there_is_no_time_left_and_with_nothing_left_none_is_needed(
    make_board: Callable[..., SweepProgress], trials: tuple[Trial, ...], record_of: Callable[..., TrialRecord]
) -> None:
    assert make_board().time_left() is None
    board = make_board([record_of(trial, State.PRUNED) for trial in trials])
    assert board.time_left() == TimeLeft(0.0, is_guess=False)
