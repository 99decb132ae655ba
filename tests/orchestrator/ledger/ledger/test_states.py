"""What a ledger says of a trial, by what was recorded of its attempts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Event, Failed, Finished, Logged, Progressed, Pruned, Reported, Started
from orchestrator.trials.records import Cause, Report, State
from specvit.training.cost import TrainingCost

from ..record_contract import EVENTS, A, B, RecordContract, make_event
from .known_trials import INFO, PROVENANCE, TRIALS, record_of, rows


class TestLedgerAsRecord(RecordContract):
    @contextmanager
    def make(self, folder: Path) -> Iterator[Ledger]:
        with Ledger.open(folder / "ledger.sqlite") as ledger:
            ledger.register(INFO, TRIALS, PROVENANCE)
            yield ledger

    def everything(self, record: Ledger) -> object:
        return record.records()

    def state(self, record: Ledger, trial_id: str) -> State:
        return record_of(record, trial_id).state


def test_finished_trial_is_done_with_its_rungs_and_metrics(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    events = [
        Started(A, attempt, "worker-1"),
        Progressed(A, attempt, 5, 20, 100.0),
        Reported(A, attempt, 10, {"knn_top1": 40.0}),
        Reported(A, attempt, 5, {"knn_top1": 0.1 + 0.2}),
        Finished(A, attempt, {"miou": 30.0, "knn_top1": 50.0}, 12.5, 11.0),
    ]
    assert [ledger.record(event) for event in events] == [True] * 5
    record = record_of(ledger, A)
    assert (record.state, record.num_attempts, record.step, record.steps) == (State.DONE, 1, 20, 20)
    assert record.reports == (Report(5, {"knn_top1": 0.1 + 0.2}), Report(10, {"knn_top1": 40.0}))
    assert record.metrics == {"miou": 30.0, "knn_top1": 50.0}
    assert (record.seconds, record.core_seconds, record.error) == (12.5, 11.0, None)
    assert record.cost is None


@pytest.mark.parametrize("gpu", [None, 1.5])
def test_cost_of_a_training_is_kept_as_it_was_measured(ledger: Ledger, gpu: float | None) -> None:
    cost = TrainingCost(9.25, 123.5, peak_memory_gib=0.75, peak_gpu_memory_gib=gpu)
    ledger.record(Finished(A, ledger.begin_attempt(A), {"miou": 30.0}, 12.5, 11.0, cost=cost))
    assert record_of(ledger, A).cost == cost


def test_pruned_trial_keeps_its_rungs_and_the_step_at_which_it_stopped(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    ledger.record(Reported(A, attempt, 10, {"knn_top1": 40.0}))
    assert ledger.record(Pruned(A, attempt, 11, 3.0))
    record = record_of(ledger, A)
    assert (record.state, record.step, record.seconds, record.metrics) == (State.PRUNED, 11, 3.0, {})
    assert len(record.reports) == 1


def test_failed_trial_keeps_error_and_traceback_also_with_text_that_is_not_unicode(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    assert ledger.record(Failed(A, attempt, "OSError: \udcff.png", "Traceback ...\n", 1.0))
    record = record_of(ledger, A)
    assert (record.state, record.error, record.traceback) == (State.FAILED, "OSError: ?.png", "Traceback ...\n")


def test_failed_trial_can_be_attempted_again_and_shows_the_newest_attempt(ledger: Ledger) -> None:
    first = ledger.begin_attempt(A)
    ledger.record(Reported(A, first, 10, {"knn_top1": 40.0}))
    ledger.record(Failed(A, first, "boom", "Traceback"))
    assert ledger.begin_attempt(A) == first + 1
    record = record_of(ledger, A)
    assert (record.state, record.num_attempts, record.error, record.reports) == (State.PENDING, 2, None, ())


def test_failure_rate_is_the_share_of_ended_attempts_that_failed_whatever_was_lost_with_its_run(ledger: Ledger) -> None:
    assert ledger.failure_rate() == 0.0
    ledger.begin_attempt(A)
    assert ledger.failure_rate() == 0.0
    ledger.record(Failed(A, ledger.begin_attempt(A), "boom", "Traceback"))  # the attempt before is lost by it
    ledger.record(Finished(A, ledger.begin_attempt(A), {}, 1.0, 1.0))
    ledger.record(Pruned(B, ledger.begin_attempt(B), 2, 1.0))
    assert ledger.failure_rate() == 1 / 3


def test_unknown_trial_cannot_be_attempted(ledger: Ledger, path: Path) -> None:
    with pytest.raises(LedgerError, match="'nobody' is not registered") as caught:
        ledger.begin_attempt("nobody")
    assert str(path) in str(caught.value)


def test_rung_reported_twice_keeps_its_first_values(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    assert ledger.record(Reported(A, attempt, 5, {"knn_top1": 1.0}))
    assert not ledger.record(Reported(A, attempt, 5, {"knn_top1": 2.0}))
    assert record_of(ledger, A).reports == (Report(5, {"knn_top1": 1.0}),)


def test_released_trials_wait_again_and_their_attempts_can_no_longer_write(ledger: Ledger) -> None:
    first = ledger.begin_attempt(A)
    ledger.record(Reported(A, first, 5, {"knn_top1": 1.0}))
    ledger.record(Finished(B, ledger.begin_attempt(B), {}, 1.0, 1.0))
    assert ledger.release_running() == 1
    assert ledger.release_running() == 0
    record = record_of(ledger, A)
    assert (record.state, record.num_attempts, record.reports) == (State.WAITING, 1, ())
    assert not ledger.record(Finished(A, first, {}, 1.0, 1.0))
    assert record_of(ledger, B).state is State.DONE
    assert ledger.begin_attempt(A) == 2


def test_metrics_that_are_not_finite_survive(ledger: Ledger) -> None:
    attempt = ledger.begin_attempt(A)
    ledger.record(Reported(A, attempt, 5, {"knn_top1": math.nan}))
    ledger.record(Finished(A, attempt, {"knn_top1": -math.inf, "miou": math.nan}, 1.0, 1.0))
    record = record_of(ledger, A)
    assert math.isnan(record.reports[0].metrics["knn_top1"])
    assert record.metrics["knn_top1"] == -math.inf
    assert math.isnan(record.metrics["miou"])


steps = st.tuples(
    st.sampled_from(["begin", "release", *EVENTS]), st.sampled_from([A, B]), st.integers(1, 3)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=25))
def test_any_order_of_events_leaves_each_trial_as_its_newest_attempt_says(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str | type[Event], str, int]]
) -> None:
    expected = {A: (State.WAITING, 0), B: (State.WAITING, 0)}
    states = {Started: State.RUNNING, Finished: State.DONE, Pruned: State.PRUNED, Failed: State.FAILED}
    is_open = (State.PENDING, State.RUNNING)
    with Ledger.open(tmp_path_factory.mktemp("ledger") / "ledger.sqlite") as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
        for action, trial_id, number in history:
            state, attempt = expected[trial_id]
            if action == "release":
                running = [name for name, (value, _) in expected.items() if value in is_open]
                assert ledger.release_running() == len(running)
                expected |= {name: (State.WAITING, expected[name][1]) for name in running}
            elif action != "begin":
                accepted = ledger.record(make_event(action, trial_id, number))  # type: ignore[arg-type]
                assert not accepted or (state in is_open and number == attempt)
                if accepted:
                    expected[trial_id] = (states.get(action, state), attempt)  # type: ignore[call-overload]
            elif state is not State.DONE:
                assert ledger.begin_attempt(trial_id) == attempt + 1
                expected[trial_id] = (State.PENDING, attempt + 1)
        found = {record.trial.trial_id: (record.state, record.num_attempts) for record in ledger.records()[:2]}
    assert found == expected


def test_what_an_attempt_logs_is_kept_in_its_order(ledger: Ledger, path: Path) -> None:
    first = ledger.begin_attempt(A)
    assert ledger.record(Logged(A, first, "WARNING", "careful \udcff"))
    assert ledger.record(Logged(A, first, "ERROR", "more\nlines"))
    assert ledger.record(Logged(B, ledger.begin_attempt(B), "INFO", "of another"))
    second = ledger.begin_attempt(A)
    assert not ledger.record(Logged(A, first, "WARNING", "late"))
    assert ledger.record(Logged(A, second, "WARNING", "anew"))
    assert rows(path, "SELECT trial_id, attempt, position, level, text FROM logs ORDER BY 1, 2, 3") == [
        (A, 1, 1, "WARNING", "careful ?"),
        (A, 1, 2, "ERROR", "more\nlines"),
        (A, 2, 1, "WARNING", "anew"),
        (B, 1, 1, "INFO", "of another"),
    ]


@pytest.mark.parametrize("cause", list(Cause))
def test_the_cause_of_a_failure_comes_back(ledger: Ledger, cause: Cause) -> None:
    ledger.record(Failed(A, ledger.begin_attempt(A), "boom", "Traceback", cause=cause))
    assert record_of(ledger, A).cause is cause
    ledger.begin_attempt(A)
    assert record_of(ledger, A).cause is None


def test_trials_that_are_left_out_say_why_until_they_are_taken_in_or_run(ledger: Ledger) -> None:
    ledger.skip([A, B], "the time budget of 1 h")
    ledger.skip([B], "the budget of 2 GPU hours")
    assert [(r.state, r.skip_reason) for r in ledger.records()[:3]] == [
        (State.SKIPPED, "the time budget of 1 h"),
        (State.SKIPPED, "the budget of 2 GPU hours"),
        (State.WAITING, None),
    ]
    attempt = ledger.begin_attempt(A)
    assert (record_of(ledger, A).state, record_of(ledger, A).skip_reason) == (State.PENDING, None)
    ledger.record(Failed(A, attempt, "boom", "Traceback"))
    assert record_of(ledger, A).state is State.FAILED
    ledger.clear_skipped()
    assert record_of(ledger, B).state is State.WAITING
    assert ledger.with_result() == frozenset()
