from __future__ import annotations

import pytest

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.in_memory import InMemoryLedger
from orchestrator.trials.events import Event, Failed, Finished, Progressed, Reported, Started
from orchestrator.trials.records import State


def finished(attempt: int) -> Event:
    return Finished("a", attempt, metrics={}, seconds=1.0, core_seconds=1.0)


def test_events_of_an_attempt_that_was_given_up_do_not_count() -> None:
    record = InMemoryLedger(["a"])
    assert [record.begin_attempt("a"), record.begin_attempt("a")] == [1, 2]
    assert record.record_all([Started("a", 1, worker=""), finished(1)]) == []
    assert record.state("a") is State.RUNNING
    own = [Started("a", 2, worker=""), finished(2)]
    assert record.record_all(own) == own
    assert record.state("a") is State.DONE


def test_events_after_the_end_and_rungs_that_come_twice_do_not_count() -> None:
    record = InMemoryLedger(["a"])
    record.begin_attempt("a")
    rung = Reported("a", 1, step=2, metrics={})
    failed = Failed("a", 1, error="", traceback="")
    late = Progressed("a", 1, step=3, steps=4, images_per_s=1.0)
    assert record.record_all([rung, rung, failed, late, finished(1)]) == [rung, failed]
    assert record.state("a") is State.FAILED


def test_what_is_unknown_or_done_cannot_be_attempted() -> None:
    record = InMemoryLedger(["a"])
    with pytest.raises(LedgerError, match="'b' is not registered"):
        record.begin_attempt("b")
    assert record.record_all([Started("b", 1, worker="")]) == []
    record.begin_attempt("a")
    record.record_all([finished(1)])
    with pytest.raises(LedgerError, match="'a' is done"):
        record.begin_attempt("a")
    assert record.num_attempts == 1
