"""What the scheduler may rely on from whatever keeps the record: the ledger, and the record of simulated runs.

``ledger/test_states.py`` and ``test_in_memory.py`` each run it over their own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.errors import LedgerError
from orchestrator.trials.events import (
    END_STATES,
    Event,
    Failed,
    Finished,
    Logged,
    Progressed,
    Pruned,
    Reported,
    Started,
)
from orchestrator.trials.records import State

A, B = "none-0", "none-1"
"""Ids of trials that every record here has."""

EVENTS: list[type[Event]] = [Started, Progressed, Reported, Logged, Finished, Pruned, Failed]
_ARGUMENTS: Mapping[type[Event], tuple[Any, ...]] = {
    Started: ("worker",),
    Progressed: (7, 20, 1.0),
    Reported: (7, {"knn_top1": 99.0}),
    Finished: ({"knn_top1": 99.0}, 9.0, 9.0),
    Pruned: (7, 9.0),
    Failed: ("late", "late"),
    Logged: ("WARNING", "late"),
}


def make_event(kind: type[Event], trial_id: str, attempt: int) -> Event:
    return kind(trial_id, attempt, *_ARGUMENTS[kind])


class RecordContract:
    """Tests of a record (``orchestrator.scheduling.protocols.Record``)."""

    def make(self, folder: Path) -> AbstractContextManager[Any]:
        """Make a record with the trials ``A`` and ``B``; files go into ``folder``."""
        raise NotImplementedError

    def everything(self, record: Any) -> object:
        """Return all that an event could change."""
        raise NotImplementedError

    def state(self, record: Any, trial_id: str) -> State:
        """Return where a trial stands."""
        raise NotImplementedError

    @pytest.fixture
    def record(self, tmp_path: Path) -> Iterator[Any]:
        with self.make(tmp_path) as record:
            yield record

    def test_attempts_are_numbered_from_1(self, record: Any) -> None:
        assert [record.begin_attempt(A), record.begin_attempt(A), record.begin_attempt(B)] == [1, 2, 1]
        assert self.state(record, A) is State.PENDING
        record.record_all([make_event(Started, A, 2)])
        assert (self.state(record, A), self.state(record, B)) == (State.RUNNING, State.PENDING)

    def test_done_trial_cannot_be_attempted_again(self, record: Any) -> None:
        record.record_all([make_event(Finished, A, record.begin_attempt(A))])
        with pytest.raises(LedgerError, match=f"'{A}' is done"):
            record.begin_attempt(A)
        assert self.state(record, A) is State.DONE

    def test_unknown_trial_cannot_be_attempted_and_its_events_do_not_count(self, record: Any) -> None:
        with pytest.raises(LedgerError, match="'nobody' is not registered"):
            record.begin_attempt("nobody")
        assert record.record_all([make_event(kind, "nobody", 1) for kind in EVENTS]) == []

    @pytest.mark.parametrize("kind", EVENTS)
    def test_event_of_an_attempt_that_was_replaced_changes_nothing(self, kind: type[Event], record: Any) -> None:
        old, new = record.begin_attempt(A), record.begin_attempt(A)
        record.record_all([Reported(A, new, 5, {"knn_top1": 1.0})])
        before = self.everything(record)
        assert record.record_all([make_event(kind, A, old)]) == []
        assert self.everything(record) == before

    @pytest.mark.parametrize("end", [Finished, Pruned, Failed])
    @pytest.mark.parametrize("kind", EVENTS)
    def test_event_after_the_end_changes_nothing(self, end: type[Event], kind: type[Event], record: Any) -> None:
        attempt = record.begin_attempt(A)
        record.record_all([make_event(end, A, attempt)])
        before = self.everything(record)
        assert record.record_all([make_event(kind, A, attempt)]) == []
        assert self.everything(record) == before

    @pytest.mark.parametrize("kind", EVENTS)
    def test_event_of_an_attempt_that_never_began_changes_nothing(self, kind: type[Event], record: Any) -> None:
        before = self.everything(record)
        assert record.record_all([make_event(kind, A, 1)]) == []
        assert self.everything(record) == before

    def test_rung_reported_twice_counts_once_in_each_attempt(self, record: Any) -> None:
        for attempt in (1, 2):
            assert record.begin_attempt(A) == attempt
            first, again = (Reported(A, attempt, 5, {"knn_top1": value}) for value in (1.0, 2.0))
            assert record.record_all([first, again]) == [first]

    def test_trial_that_has_run_to_its_end_is_done_and_no_other(self, record: Any) -> None:
        for kind, trial_id in ((Finished, A), (Pruned, B)):
            record.record_all([make_event(kind, trial_id, record.begin_attempt(trial_id))])
        assert [record.is_done(trial_id) for trial_id in (A, B, "nobody")] == [True, False, False]

    @pytest.mark.parametrize("number", range(20))
    def test_any_order_of_events_leaves_each_trial_as_its_newest_attempt_says(self, number: int, record: Any) -> None:
        rng = random.Random(number)
        expected = {A: (State.WAITING, 0), B: (State.WAITING, 0)}
        for _ in range(25):
            trial_id, kind = rng.choice([A, B]), rng.choice([None, None, *EVENTS])
            state, newest = expected[trial_id]
            if kind is not None:
                event = make_event(kind, trial_id, rng.choice([1, newest, newest + 1]))
                counts = record.record_all([event]) == [event]
                assert not counts or (state in (State.PENDING, State.RUNNING) and event.attempt == newest)
                if counts:
                    expected[trial_id] = ({Started: State.RUNNING, **END_STATES}.get(kind, state), newest)
            elif state is not State.DONE:
                assert record.begin_attempt(trial_id) == newest + 1
                expected[trial_id] = (State.PENDING, newest + 1)
        assert {key: self.state(record, key) for key in expected} == {key: expected[key][0] for key in expected}
