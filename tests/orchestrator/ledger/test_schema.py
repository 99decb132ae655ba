from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.ledger.errors import UnfitValueError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.schema import PROTECTED_TABLES, SCHEMA
from orchestrator.ledger.validation import check_values
from orchestrator.trials.events import Finished, Logged, Reported
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceFloor
from orchestrator.trials.trial import Role, Trial
from specvit.diagnostics.measurement import Measurement


@pytest.fixture
def connection(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Open a ledger that has a row in every table, as another program would."""
    key = (trials[0].trial_id, ledger.begin_attempt(trials[0].trial_id))
    ledger.record(Reported(*key, 2, {"knn_top1": 40.5}))
    ledger.record(Logged(*key, "WARNING", "text"))
    ledger.record(Finished(*key, {"knn_top1": 50.5}, 1.0, 1.0, (Measurement(0, "norm1.in", "cls_norm", 2.5),)))
    ledger.write_resource_floor("nano", ResourceFloor(0.5))
    ledger.skip([trials[1].trial_id], "reason")
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as connection:
        connection.execute("INSERT INTO groups VALUES ('group', 'f00d')")
        yield connection


def columns() -> list[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return [
            (table, row[1], row[2])
            for table in (*PROTECTED_TABLES, "checksums")
            for row in connection.execute(f"PRAGMA table_info({table})")
        ]


TIMES = ["''", "'yesterday'", "'now'", "'2026-02-31T00:00:00+00:00'", "'2026-01-01'", "'2026-01-01T00:00:00'"]
TIMES += ["'2026-01-01T00:00:00 +00:00'", "'0000-01-01T00:00:00+00:00'", "'2026-01-01T24:00:00+00:00'"]
UNFIT = {
    "TEXT": ["x'00ff'"],
    "INTEGER": ["'text'", "1e99", "1.5", "x'00'"],
    "REAL": ["'text'", "x'00'"],
}
"""For any column of a type."""
OF_COLUMNS = {
    "trials.role": ["'king'", "''"],
    "trials.position": ["-1"],
    "trials.extra_parameters_percent": ["9e999", "-9e999"],
    "trials.config": ["'[]'", "''"],
    "sweep.metrics": ["'{}'", "''"],
    "sweep.seeds": ["'3'"],
    "runs.provenance": ["'[]'"],
    "runs.started_at": TIMES,
    "attempts.submitted_at": TIMES,
    "attempts.started_at": TIMES,
    "attempts.ended_at": TIMES,
    "reports.reported_at": TIMES,
    "logs.logged_at": TIMES,
    "attempts.attempt": ["0"],
    "attempts.state": ["'on fire'", "'waiting'"],
    "attempts.cause": ["'sabotage'"],
    "attempts.steps": ["-1"],
    "attempts.step": ["-1"],
    "attempts.metrics": ["'[1]'"],
    "attempts.share": ["'3'"],
    "attempts.seconds": ["9e999", "-9e999"],
    "attempts.held_s": ["9e999"],
    "attempts.gpus": ["-1", "9e999"],
    "reports.metrics": ["'[1]'"],
    "checksums.num_rows": ["-1"],
}


@pytest.mark.parametrize(("table", "column", "declared"), columns())
def test_value_that_a_column_is_not_for_is_not_written_and_not_read(
    table: str, column: str, declared: str, connection: sqlite3.Connection
) -> None:
    for value in UNFIT[declared] + OF_COLUMNS.get(f"{table}.{column}", []):
        change = f"UPDATE {table} SET {column} = {value} WHERE {column} IS (SELECT MAX({column}) FROM {table})"
        with pytest.raises(sqlite3.DatabaseError):
            connection.execute(change)
        if column in ("only_row", "run") and table != "attempts":
            continue  # the number of a row, which can be nothing else
        connection.execute("BEGIN")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        assert connection.execute(change).rowcount, value
        connection.execute("PRAGMA ignore_check_constraints = OFF")
        with pytest.raises(UnfitValueError, match=f"{column} in its table {table} is"):
            check_values(connection)
        connection.execute("ROLLBACK")


def test_causes_and_roles_are_those_that_there_are(connection: sqlite3.Connection) -> None:
    for cause in Cause:
        connection.execute("UPDATE attempts SET cause = ?", (str(cause),))
    for role in Role:
        connection.execute("UPDATE trials SET role = ?", (str(role),))
