"""What the checksums notice: every change that did not come through the ledger's writer."""

from __future__ import annotations

import math
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ledger.checksums import verify_checksums
from orchestrator.ledger.connection import connect_reader, connect_writer
from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.schema import PROTECTED_TABLES
from orchestrator.run import LEDGER_NAME
from orchestrator.trials.events import Finished, Logged, Reported
from orchestrator.trials.resources import ResourceFloor
from orchestrator.trials.trial import Trial
from specvit.diagnostics.measurement import Measurement


@pytest.fixture
def path(ledger: Ledger, trials: tuple[Trial, ...], tmp_path: Path) -> Path:
    """Return a closed ledger in whose every table there are two rows, as far as it can have two."""
    for trial in trials[:2]:
        key = (trial.trial_id, ledger.begin_attempt(trial.trial_id))
        ledger.record(Reported(*key, 2, {"knn_top1": 40.5}))
        ledger.record(Logged(*key, "WARNING", "text"))
        ledger.record(Finished(*key, {"knn_top1": 50.5}, 1.0, 1.0, (Measurement(0, "norm1.in", "cls_norm", 2.5),)))
        ledger.write_resource_floor(trial.label, ResourceFloor(0.5))
    ledger.skip([trial.trial_id for trial in trials[2:4]], "reason")
    ledger.close()
    with closing(sqlite3.connect(tmp_path / LEDGER_NAME)) as connection:
        filled = [table for table in PROTECTED_TABLES if connection.execute(f"SELECT 1 FROM {table}").fetchone()]
    assert set(PROTECTED_TABLES) - set(filled) == {"groups"}
    return tmp_path / LEDGER_NAME


def change(path: Path, statement: str) -> None:
    """Change a ledger as another program would."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement).rowcount != 0
    connection.close()


CHANGES = {
    "a metric": "UPDATE attempts SET metrics = replace(metrics, '50.5', '51.5')",
    "a rung": "UPDATE reports SET metrics = replace(metrics, '40.5', '41.5')",
    "a reading": "UPDATE diagnostics SET value = 2.75",
    "a row that is missing": "DELETE FROM reports WHERE trial_id = (SELECT MIN(trial_id) FROM reports)",
    "a row that is twice there": "INSERT INTO logs SELECT trial_id, attempt, 2, logged_at, level, text FROM logs",
    "two rows that change places": "UPDATE trials SET arm = (SELECT t.arm FROM trials AS t WHERE t.arm <> trials.arm)",
    "the type of a value": "UPDATE attempts SET worker = CAST(seconds AS TEXT)",
    "a table without rows": "DELETE FROM skipped",
    "a share": "UPDATE resource_floors SET gpus = 1.0",
    "the sweep": "UPDATE sweep SET name = 'other'",
    "a run": "UPDATE runs SET started_at = '2026-01-02T00:00:00+00:00'",
    "a group": "INSERT INTO groups VALUES ('group', 'f00d')",
    "a checksum": "UPDATE checksums SET digest = digest + 1 WHERE table_name = 'attempts'",
    "no checksum": "DELETE FROM checksums WHERE table_name = 'attempts'",
}


def read_all(path: Path) -> None:
    """Read a ledger, also the tables that are checked before they are read first."""
    with Ledger.read(path) as ledger:
        ledger.diagnostics()
        with ledger.snapshot() as connection:
            connection.execute("SELECT * FROM logs").fetchall()


def test_a_table_that_is_not_read_is_not_checked_and_one_that_is_read_is_checked_before(path: Path) -> None:
    change(path, CHANGES["a reading"])
    with Ledger.read(path) as ledger:
        assert len(ledger.records()) == 8
        for _ in range(2):
            with pytest.raises(LedgerError, match="its table diagnostics has 2 rows and does not have the content"):
                ledger.diagnostics()
        with ledger.snapshot() as connection:
            assert connection.execute("SELECT COUNT(*) FROM logs").fetchone()[0] == 2
    change(path, CHANGES["a row that is twice there"])
    with Ledger.read(path) as ledger, ledger.snapshot(reads_logs=False) as connection:
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone()[0] == 8
    with (
        Ledger.read(path) as ledger,
        pytest.raises(LedgerError, match="its table logs has 4 rows where 2 were recorded"),
        ledger.snapshot(),
    ):
        pass


@pytest.mark.parametrize("what", CHANGES)
def test_change_by_another_program_is_refused_naming_file_table_and_remedy(path: Path, what: str) -> None:
    change(path, CHANGES[what])
    before = path.read_bytes()
    for open_ledger in (read_all, Ledger.open):
        with pytest.raises(LedgerError, match=r"its table \w+ has .*Bring back a copy of the file") as caught:
            open_ledger(path)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    log = path.with_name(f"{path.name}-wal")
    assert not log.exists() or log.stat().st_size == 0


@pytest.mark.parametrize("statement", ["DROP VIEW newest_attempts", "DROP INDEX one_running_attempt"])
def test_change_of_the_schema_is_refused(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    before = path.read_bytes()
    for open_ledger in (Ledger.read, Ledger.open):
        with pytest.raises(LedgerError, match=r"are not those of schema 9\. Bring back a copy of the file"):
            open_ledger(path)
    assert path.read_bytes() == before


def test_message_says_how_many_rows_there_should_be(path: Path) -> None:
    change(path, CHANGES["a row that is missing"])
    with pytest.raises(LedgerError, match="its table reports has 1 rows where 2 were recorded"):
        Ledger.read(path)


@pytest.mark.parametrize("statement", ["VACUUM", "CREATE VIEW mine AS SELECT arm FROM trials", "REINDEX", "ANALYZE"])
def test_what_changes_no_record_is_not_refused(path: Path, statement: str) -> None:
    with Ledger.read(path) as ledger:
        before = ledger.records()
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    for open_ledger in (Ledger.read, Ledger.open):
        with open_ledger(path) as ledger:
            assert ledger.records() == before


def test_triggers_stay_out_of_the_file(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall() == []


def test_rows_of_a_transaction_that_was_rolled_back_are_not_in_the_checksums(path: Path) -> None:
    with Ledger.open(path) as ledger:
        before = ledger.records()
        with pytest.raises(RuntimeError, match="boom"), ledger.transaction():  # noqa: PT012
            ledger.clear_skipped()
            raise RuntimeError("boom")
    with Ledger.read(path) as ledger:
        assert ledger.records() == before


numbers = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=True), st.text(max_size=5))
texts = st.one_of(numbers, st.binary(max_size=5))
STATEMENTS = (
    "INSERT OR IGNORE INTO attempts (trial_id, attempt, state, submitted_at, seconds, steps, error) "
    "VALUES (:key % 3, 1, 'done', '', :number, :number, :text)",
    "INSERT OR REPLACE INTO attempts (trial_id, attempt, state, submitted_at, images_per_s, worker) "
    "VALUES (:key % 3, 1, 'lost', '', :number, :text)",
    "INSERT INTO attempts (trial_id, attempt, state, submitted_at) VALUES (:key % 3, 1, 'done', '') "
    "ON CONFLICT DO UPDATE SET core_seconds = :number, cause = :text",
    "UPDATE attempts SET attempt = attempt + 1, seconds = :number WHERE trial_id = :key % 3",
    "UPDATE OR REPLACE diagnostics SET block = 0, value = :number",
    "INSERT OR REPLACE INTO diagnostics VALUES (:key % 3, 1, :key, 'site', 'quantity', :number)",
    "REPLACE INTO resource_floors VALUES (:key % 3, 0.5, 1, :number)",
    "DELETE FROM diagnostics WHERE block < :key",
    "DELETE FROM attempts",
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(STATEMENTS),
            st.fixed_dictionaries({"key": st.integers(0, 5), "number": numbers, "text": texts}),
        ),
        max_size=12,
    )
)
def test_checksums_agree_with_the_tables_after_any_statements_and_values(
    history: list[tuple[str, dict[str, object]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a fixture's folder would be shared by the examples
        connection = connect_writer(Path(folder) / "ledger.sqlite")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement, values in history:
            connection.execute(statement, values)
            verify_checksums(connection, Path("ledger"))
        connection.close()


def test_digests_tell_values_apart_that_look_alike(tmp_path: Path) -> None:
    alike: tuple[object, ...] = (1, 1.0, "1", b"1", None, "null", "1.0", math.inf, "Infinity", "", 0, "[1]")
    found = set()
    connection = connect_writer(tmp_path / "ledger.sqlite")
    for value in alike:
        (digest,) = connection.execute("SELECT row_digest('t', ?)", (value,)).fetchone()
        found.add(digest)
    assert len(found) == len(alike)


def test_every_table_of_records_has_a_checksum(path: Path) -> None:
    tables = {name for (name,) in connect_reader(path).execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == {*PROTECTED_TABLES, "checksums"}
