"""What readers see while the writer goes on."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.trials.events import Finished, Progressed, Reported
from orchestrator.trials.records import State

from ..record_contract import A
from .known_trials import TRIALS, record_of


def test_progress_reaches_readers_within_a_second(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = ledger.begin_attempt(A)
    with Ledger.read(path) as reader:
        ledger.record(Progressed(A, attempt, 3, 20, 1.0))
        assert record_of(reader, A).step == 0
        monkeypatch.setattr("orchestrator.ledger.progress_buffer.PERIOD_S", 0.0)
        ledger.record(Progressed(A, attempt, 4, 20, 1.0))
        assert (record_of(reader, A).step, record_of(reader, A).steps) == (4, 20)


def test_reader_sees_what_was_committed_while_the_writer_goes_on(ledger: Ledger, path: Path) -> None:
    with Ledger.read(path) as reader:
        for number, trial in enumerate(TRIALS, start=1):
            ledger.record(Finished(trial.trial_id, ledger.begin_attempt(trial.trial_id), {}, 1.0, 1.0))
            assert [record.state for record in reader.records()].count(State.DONE) == number


def test_records_without_reports_have_everything_else(ledger: Ledger) -> None:
    ledger.record(Reported(A, ledger.begin_attempt(A), 5, {"knn_top1": 1.0}))
    whole, bare = ledger.records(), ledger.records(with_reports=False)
    assert whole[0].reports
    assert bare == tuple(dataclasses.replace(record, reports=()) for record in whole)


def test_reader_sees_by_the_version_whether_the_writer_has_written(ledger: Ledger, path: Path) -> None:
    with Ledger.read(path) as reader:
        before = reader.version()
        reader.records()
        assert reader.version() == before
        ledger.begin_attempt(A)
        assert reader.version() != before
        assert reader.version() == reader.version()


def test_what_is_read_in_a_moment_is_of_one_moment(ledger: Ledger, path: Path) -> None:
    count = "SELECT COUNT(*) FROM attempts"
    with Ledger.read(path) as reader:
        with reader.snapshot() as connection:
            assert connection.execute(count).fetchone()[0] == 0
            ledger.begin_attempt(A)
            assert connection.execute(count).fetchone()[0] == 0
        with reader.snapshot() as connection:
            assert connection.execute(count).fetchone()[0] == 1


def test_reader_that_writes_is_refused_naming_the_file(ledger: Ledger, path: Path) -> None:
    with Ledger.read(path) as reader, pytest.raises(LedgerError, match=r"ledger\.sqlite"):
        reader.begin_attempt(A)


def test_ledger_can_be_closed_twice(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger.close()
    ledger.close()
    assert path.exists()


def test_metrics_can_be_queried_with_plain_sql(ledger: Ledger, path: Path) -> None:
    ledger.record(Finished(A, ledger.begin_attempt(A), {"miou": 3.0}, 1.0, 1.0))
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT arm, seed, name, value FROM final_metrics").fetchall()
    assert rows == [("none", 0, "miou", 3.0)]
