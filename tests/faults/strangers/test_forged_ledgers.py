"""SQL of a stranger's in a ledger, and values that no column is for: refused, whatever the checksums say."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.ledger.ledger import Ledger

from .hostile_results import Command, forge, look, run_sweep

ENDLESS = "WITH RECURSIVE e(x) AS (SELECT 1 UNION ALL SELECT x FROM e) SELECT x FROM e"
SQL = {
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON runs BEGIN UPDATE attempts SET metrics = '{\"knn_top1\": 99}'; END",),
    "trigger that loads a library": (
        "CREATE TRIGGER t AFTER INSERT ON runs BEGIN SELECT load_extension('./evil.so'); END",
    ),
    "view in the place of a table": ("DROP TABLE skipped", f"CREATE VIEW skipped AS {ENDLESS}"),
    "endless view in the place of ours": ("DROP VIEW newest_attempts", f"CREATE VIEW newest_attempts AS {ENDLESS}"),
    "generated column": ("ALTER TABLE runs ADD COLUMN bomb AS (zeroblob(1000000000))",),
    "virtual table": ("DROP TABLE skipped", "CREATE VIRTUAL TABLE skipped USING fts5(trial_id, reason)"),
}


@pytest.mark.parametrize("kind", SQL)
def test_sql_in_a_ledger_is_refused(kind: str, command: Command, results: Path, tmp_path: Path) -> None:
    # The checksum of a table that never ends cannot be made; the table is refused before checksums are looked at.
    forge(results / "ledger.sqlite", *SQL[kind], sealed=kind != "view in the place of a table")
    before = (results / "ledger.sqlite").read_bytes()
    codes = {ended.returncode for ended in (*look(command, results), run_sweep(command)) if ended.args[0] != "plan"}
    assert codes == {2}
    assert (results / "ledger.sqlite").read_bytes() == before


def test_functions_that_could_do_harm_are_not_to_be_called_from_a_file(results: Path) -> None:
    forge(results / "ledger.sqlite", "CREATE VIEW mine AS SELECT load_extension('./evil.so')")
    for opened in (Ledger.read, Ledger.open):
        with opened(results / "ledger.sqlite") as ledger, ledger.snapshot() as connection:
            assert connection.execute("PRAGMA trusted_schema").fetchone()[0] == 0
            with pytest.raises(sqlite3.OperationalError):
                connection.execute("SELECT * FROM mine")


def test_a_ledger_of_schema_1_that_is_made_of_views_is_refused(command: Command, results: Path) -> None:
    forge(
        results / "ledger.sqlite", "DROP TABLE checksums", "DROP TABLE trials", f"CREATE VIEW trials AS {ENDLESS}",
        "PRAGMA user_version = 1", sealed=False,
    )
    assert {ended.returncode for ended in look(command, results) if ended.args[0] != "plan"} == {2}
    assert run_sweep(command).returncode == 2


VALUES = {
    "trials": {
        "label": ["x'00ff'", "NULL"], "seed": ["'text'"], "position": ["'first'"], "role": ["'[red]king'"],
        "num_parameters": ["'many'"], "extra_parameters_percent": ["9e999", "'x'"],
        "config": ["'{'", "'[]'", "'{\"rungs\": 3}'", "'{\"rungs\": {\"probes\": [[1]]}}'", "DEEP"],
    },
    "attempts": {
        "metrics": ["'[1]'", "'{\"a\": \"50\"}'", "'{\"a\": {}}'", "'{\"a\": true}'", "DEEP", "BIG"],
        "share": ["'{\"cpus\": 1e999}'", "'3'", "DEEP"], "submitted_at": ["'yesterday'", "'2026-02-31T00:00:00+00:00'"],
        "ended_at": ["'\x1b[31m'"], "seconds": ["'x'", "9e999"], "steps": ["'x'", "1e99"], "cause": ["'sabotage'"],
        "attempt": ["'first'"], "state": ["'on fire'"], "gpus": ["'x'"], "held_s": ["9e999"],
    },
    "reports": {"metrics": ["'{}}'", "'{\"a\": []}'", "BIG"], "step": ["'x'"], "reported_at": ["x'00'"]},
    "sweep": {"metrics": ["'{}'", "'[1]'", "DEEP"], "seeds": ["'[\"x\"]'", "'[true]'"], "name": ["x'ff'"]},
    "runs": {"provenance": ["'{}'", "'[]'", "'{\"argv\": 1}'", "DEEP"]},
}
BOMBS = {"DEEP": "'" + "[" * 100_000 + "'", "BIG": "'{\"knn_top1\": " + "9" * 5000 + "}'"}


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [(table, column, value) for table in VALUES for column in VALUES[table] for value in VALUES[table][column]],
)
def test_a_value_that_no_column_is_for_is_refused(
    table: str, column: str, value: str, command: Command, results: Path
) -> None:
    change = f"UPDATE {table} SET {column} = {BOMBS.get(value, value)}"
    with closing(sqlite3.connect(results / "ledger.sqlite")) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    loose = _with_sql(table, sql.replace(" NOT NULL", ""), 1000)
    # In the end the table's SQL is ours again, which alone is accepted.
    bring_back = _with_sql(table, sql, 1001)
    forge(results / "ledger.sqlite", "PRAGMA ignore_check_constraints = ON", *loose, change, *bring_back)
    looks: tuple[tuple[str | Path, ...], ...] = (("export", "optuna", results, "x.db"),)
    if column != "config":  # which nothing else reads
        looks += (("events", results), ("table", results), ("run", "tiny.yaml", "--executor", "local"))
    if column != "config" and (table, column) != ("reports", "metrics"):
        looks += (("status", results),)
    for arguments in looks:
        ended = command(*arguments)
        assert ended.returncode == 2
        assert "are not those of schema" not in ended.stderr  # it is refused for the value
        assert "\x1b" not in ended.stderr


def _with_sql(table: str, sql: str, version: int) -> tuple[str, ...]:
    """Give a table another SQL, as someone who writes a file can."""
    quoted = sql.replace("'", "''")
    return (
        f"UPDATE sqlite_schema SET sql = '{quoted}' WHERE name = '{table}'",
        f"PRAGMA schema_version = {version}",
    )
