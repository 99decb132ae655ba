"""What is recorded together is seen together or not at all, also where the writer is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Event, Finished, Logged, Progressed, Reported, Started
from orchestrator.trials.records import Report, State

from ..record_contract import A, B
from .known_trials import INFO, PROVENANCE, TRIALS, record_of, rows

KILLED = """
import os, signal, sys
from pathlib import Path
from orchestrator.trials.events import Finished, Reported
from orchestrator.ledger.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]))
attempt = ledger.begin_attempt(sys.argv[2])
ledger.record(Finished(sys.argv[2], attempt, {"miou": 3.0}, 1.0, 1.0))
attempt = ledger.begin_attempt(sys.argv[3])
ledger.record(Reported(sys.argv[3], attempt, 5, {"miou": 1.0}))
ledger._connection.execute("BEGIN IMMEDIATE")
ledger._connection.execute("DELETE FROM attempts WHERE 0")
ledger._connection.execute("UPDATE attempts SET metrics = '{}'")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ledger_of_a_killed_writer_has_all_that_was_recorded_and_no_half_transaction(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.register(INFO, TRIALS, PROVENANCE)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), A, B], check=False)
    assert done.returncode == -signal.SIGKILL
    with Ledger.read(path) as reader:
        assert record_of(reader, A).metrics == {"miou": 3.0}
        assert record_of(reader, B).reports == (Report(5, {"miou": 1.0}),)
    with Ledger.open(path) as ledger:
        assert ledger.release_running() == 1
        assert [record.state for record in ledger.records()[:2]] == [State.DONE, State.WAITING]


def test_events_that_are_recorded_together_are_seen_together_and_those_that_count_are_returned(
    ledger: Ledger, path: Path
) -> None:
    attempt = ledger.begin_attempt(A)
    events = [
        Started(A, attempt, "worker-1"),
        Progressed(A, attempt, 3, 20, 1.0),
        Reported(A, attempt, 5, {"knn_top1": 1.0}),
        Reported(A, attempt, 5, {"knn_top1": 2.0}),
        Finished(A, attempt - 1, {}, 1.0, 1.0),
        Finished(A, attempt, {"miou": 3.0}, 1.0, 1.0),
        Logged(A, attempt, "WARNING", "late"),
    ]
    counted = ledger.record_all(events)
    assert [events.index(event) for event in counted] == [0, 1, 2, 5]
    with Ledger.read(path) as reader:
        record = record_of(reader, A)
    assert (record.state, record.metrics, len(record.reports)) == (State.DONE, {"miou": 3.0}, 1)
    assert (record.step, record.steps) == (20, 20)
    assert ledger.record_all([]) == []


def test_events_of_which_one_cannot_be_recorded_are_not_recorded_at_all(ledger: Ledger, path: Path) -> None:
    attempt = ledger.begin_attempt(A)
    too_large = Reported(A, attempt, 2**70, {})
    with pytest.raises(LedgerError, match=r"ledger\.sqlite"):
        ledger.record_all([Reported(A, attempt, 5, {"miou": 1.0}), Logged(A, attempt, "INFO", "x"), too_large])
    with pytest.raises(TypeError, match="does not know events"):
        ledger.record_all([Reported(A, attempt, 5, {"miou": 1.0}), Event(A, attempt)])
    assert rows(path, "SELECT step FROM reports") == rows(path, "SELECT text FROM logs") == []
    # The ledger goes on, and nothing of the lost transaction hinders what comes.
    assert ledger.record_all([Reported(A, attempt, 5, {"miou": 1.0})]) != []
    assert record_of(ledger, A).reports == (Report(5, {"miou": 1.0}),)


def test_a_reader_sees_nothing_of_what_is_being_recorded_together(ledger: Ledger, path: Path) -> None:
    attempt = ledger.begin_attempt(A)
    with Ledger.read(path) as reader:
        with ledger.transaction():
            ledger.record(Started(A, attempt, worker="node:1"))
            ledger.record(Reported(A, attempt, 5, {"miou": 1.0}))
            ledger.record(Finished(A, attempt, {"miou": 1.0}, 1.0, 1.0))
            assert record_of(reader, A).state is State.PENDING
            assert record_of(reader, A).reports == ()
        assert record_of(reader, A).state is State.DONE
