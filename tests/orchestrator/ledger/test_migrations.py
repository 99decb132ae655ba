"""Ledgers that were written before attempts had causes and tables had seals."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.ledger.attempts import select_attempts
from orchestrator.ledger.connection import connect_reader, connect_writer
from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.registration import SweepInfo
from orchestrator.trials.events import Failed, Finished, Started
from orchestrator.trials.records import Cause, Report, State
from specvit.diagnostics.measurement import Measurement
from specvit.training.cost import TrainingCost

SCHEMA_1 = """
CREATE TABLE sweep (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    name TEXT NOT NULL, question TEXT NOT NULL, text TEXT NOT NULL,
    metrics TEXT NOT NULL, seeds TEXT NOT NULL
);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, started_at TEXT NOT NULL, provenance TEXT NOT NULL
);
CREATE TABLE groups (
    group_id TEXT PRIMARY KEY, data_fingerprint TEXT NOT NULL
);
CREATE TABLE trials (
    trial_id TEXT PRIMARY KEY,
    position INTEGER UNIQUE, -- place in the sweep file; NULL = not in the file now
    group_id TEXT NOT NULL, arm_id TEXT NOT NULL, group_name TEXT NOT NULL, arm TEXT NOT NULL,
    role TEXT NOT NULL, label TEXT NOT NULL, seed INTEGER NOT NULL,
    num_parameters INTEGER NOT NULL, extra_parameters_percent REAL NOT NULL,
    config TEXT NOT NULL
);
CREATE TABLE attempts (
    trial_id TEXT NOT NULL REFERENCES trials, attempt INTEGER NOT NULL,
    run INTEGER REFERENCES runs, -- the run of the driver that began it
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'pruned', 'failed', 'lost')),
    worker TEXT, begun_at TEXT NOT NULL, started_at TEXT, ended_at TEXT,
    steps INTEGER, step INTEGER NOT NULL DEFAULT 0, images_per_s REAL,
    metrics TEXT NOT NULL DEFAULT '{}', seconds REAL, core_seconds REAL, error TEXT, traceback TEXT,
    PRIMARY KEY (trial_id, attempt)
);
CREATE UNIQUE INDEX one_running_attempt ON attempts (trial_id) WHERE state = 'running';
CREATE TABLE reports (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL,
    reported_at TEXT NOT NULL, metrics TEXT NOT NULL,
    PRIMARY KEY (trial_id, attempt, step), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;

CREATE VIEW newest_attempts AS
    SELECT * FROM attempts AS a
    WHERE attempt = (SELECT MAX(b.attempt) FROM attempts AS b WHERE b.trial_id = a.trial_id);
CREATE VIEW final_metrics AS
    SELECT t.trial_id, t.group_name, t.arm, t.role, t.seed, m.key AS name, m.value
    FROM trials AS t JOIN newest_attempts AS a USING (trial_id), json_each(a.metrics) AS m
    WHERE a.state = 'done';
CREATE VIEW rung_metrics AS
    SELECT t.trial_id, t.group_name, t.arm, t.role, t.seed, r.attempt, r.step, m.key AS name, m.value
    FROM trials AS t JOIN reports AS r USING (trial_id), json_each(r.metrics) AS m;
"""
DIAGNOSTICS_1 = """
CREATE TABLE IF NOT EXISTS diagnostics (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    block INTEGER NOT NULL, site TEXT NOT NULL, quantity TEXT NOT NULL,
    value REAL, -- NULL = not a number
    PRIMARY KEY (trial_id, attempt, block, site, quantity), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;
"""
ROWS_1 = """
INSERT INTO sweep VALUES (1, 'components', 'Which?', 'name: components', '["knn_top1"]', '[0, 1]');
INSERT INTO runs VALUES (1, '2026-01-01T00:00:00+00:00',
    '{"started_at": "2026-01-01T00:00:00+00:00", "argv": ["specsweep", "run"], "host": "node", "git_sha": null,
    "git_dirty": null, "versions": {}, "platform": "Linux", "cpu": "cpu", "num_cores": 2, "memory_gib": null,
    "gpus": []}');
INSERT INTO groups VALUES ('group', 'f00d');
INSERT INTO trials VALUES
    ('a', 1, 'group', 'none', '', 'none', 'baseline', 'none seed 0', 0, 1000, 0.0, '{"seed": 0}'),
    ('b', 0, 'group', 'none', '', 'none', 'baseline', 'none seed 1', 1, 1000, 0.0, '{"seed": 1}'),
    ('c', NULL, 'group', 'mlp', '', 'mlp', 'arm', 'mlp seed 0', 0, 2000, 0.5, '{"seed": 0}');
INSERT INTO attempts (trial_id, attempt, run, state, begun_at, steps, step, metrics, seconds, core_seconds, error)
VALUES
    ('a', 1, 1, 'lost', '2026-01-01T00:00:00+00:00', 4, 2, '{}', NULL, NULL, NULL),
    ('a', 2, 1, 'done', '2026-01-01T00:00:01+00:00', 4, 4, '{"knn_top1": 12.5}', 1.5, 1.25, NULL),
    ('b', 1, 1, 'failed', '2026-01-01T00:00:02+00:00', 4, 3, '{}', 1.0, NULL, 'boom');
INSERT INTO reports VALUES
    ('a', 2, 2, '2026-01-01T00:00:01+00:00', '{"knn_top1": 10.25}'),
    ('a', 1, 2, '2026-01-01T00:00:00+00:00', '{"knn_top1": 9.0}');
"""
READINGS_1 = "INSERT INTO diagnostics VALUES ('a', 2, 0, 'norm1.in', 'cls_norm', 2.5);"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def write_schema_1(path: Path, *, diagnostics: bool = True) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA application_id = 0x53505357; PRAGMA user_version = 1;")
    connection.executescript(SCHEMA_1 + ROWS_1 + (DIAGNOSTICS_1 + READINGS_1 if diagnostics else ""))
    connection.close()


def check_content(ledger: Ledger, *, diagnostics: bool) -> None:
    fingerprints = {"group": "f00d"}
    assert ledger.sweep() == SweepInfo("components", "Which?", "name: components", ("knn_top1",), (0, 1), fingerprints)
    failed, done = ledger.records()
    assert (done.trial.trial_id, done.state, done.num_attempts, done.step) == ("a", State.DONE, 2, 4)
    assert (done.metrics, done.seconds, done.core_seconds) == ({"knn_top1": 12.5}, 1.5, 1.25)
    assert done.reports == (Report(2, {"knn_top1": 10.25}),)
    assert (failed.trial.trial_id, failed.state, failed.error, failed.cause) == ("b", State.FAILED, "boom", None)
    assert ledger.diagnostics() == ({"a": (Measurement(0, "norm1.in", "cls_norm", 2.5),)} if diagnostics else {})
    assert ledger.with_result() == {"a"}
    assert ledger.gpu_hours() == 0


@pytest.mark.parametrize("diagnostics", [True, False])
def test_reader_of_schema_1_finds_what_it_holds_and_leaves_it_as_it_is(path: Path, diagnostics: bool) -> None:
    write_schema_1(path, diagnostics=diagnostics)
    before = path.read_bytes()
    with Ledger.read(path) as ledger:
        check_content(ledger, diagnostics=diagnostics)
        with pytest.raises(LedgerError, match="readonly"):
            ledger.begin_attempt("b")
    assert path.read_bytes() == before


@pytest.mark.parametrize("diagnostics", [True, False])
def test_writer_of_schema_1_makes_it_a_ledger_of_today_and_goes_on(path: Path, diagnostics: bool) -> None:
    write_schema_1(path, diagnostics=diagnostics)
    with Ledger.open(path) as ledger:
        check_content(ledger, diagnostics=diagnostics)
    with Ledger.read(path) as ledger:
        check_content(ledger, diagnostics=diagnostics)
    with Ledger.open(path) as ledger:
        assert ledger.record(Failed("b", ledger.begin_attempt("b"), "lost", "", cause=Cause.WORKER))
        assert ledger.record(Finished("b", ledger.begin_attempt("b"), {"knn_top1": 1.0}, 1.0, 1.0))
    with Ledger.read(path) as ledger:
        assert [record.state for record in ledger.records()] == [State.DONE, State.DONE]
    with sqlite3.connect(path) as connection:
        (config,) = connection.execute("SELECT config FROM trials WHERE trial_id = 'c'").fetchone()
    assert json.loads(config) == {"seed": 0}


def test_migrated_ledger_has_the_tables_of_a_new_one(path: Path, tmp_path: Path) -> None:
    write_schema_1(path, diagnostics=False)
    connect_writer(path).close()
    connect_writer(tmp_path / "new.sqlite").close()
    old, new = (
        set(connect_reader(file).execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))
        for file in (path, tmp_path / "new.sqlite")
    )
    assert old == new


def test_migration_that_cannot_be_finished_leaves_schema_1(path: Path) -> None:
    write_schema_1(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE attempts SET state = 'unheard of' WHERE trial_id = 'b'")
    connection.close()
    before = path.read_bytes()
    for connect in (connect_reader, connect_writer):
        with pytest.raises(LedgerError, match=r"ledger\.sqlite"):
            connect(path)
    assert path.read_bytes() == before


def test_ledger_of_today_that_says_it_is_of_schema_1_is_refused(path: Path) -> None:
    connect_writer(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 1")
    for connect in (connect_reader, connect_writer):
        with pytest.raises(LedgerError, match="not those of schema 1"):
            connect(path)


ASSETS = Path(__file__).parents[2] / "assets"


def test_a_ledger_of_schema_5_is_read_and_goes_on_with_costs_that_it_did_not_have(path: Path) -> None:
    shutil.copy(ASSETS / "ledger_schema_5.sqlite", path)
    before = path.read_bytes()
    with Ledger.read(path) as ledger:
        records = ledger.records()
    assert path.read_bytes() == before
    assert {record.cost for record in records} == {None}
    cost = TrainingCost(1.0, 2.0, 3.0, 4.0)
    trial_id = next(record.trial.trial_id for record in records if record.state is State.FAILED)
    with Ledger.open(path) as ledger:
        assert ledger.records() == records
        assert ledger.record(Finished(trial_id, ledger.begin_attempt(trial_id), {}, 1.0, 1.0, cost=cost))
    with Ledger.read(path) as ledger:
        assert [record.cost for record in ledger.records() if record.cost is not None] == [cost]


def test_a_ledger_of_schema_3_is_read_and_goes_on_with_causes_that_it_did_not_have(path: Path) -> None:
    shutil.copy(ASSETS / "ledger_schema_3.sqlite", path)
    before = path.read_bytes()
    with Ledger.read(path) as ledger:
        records, floors = ledger.records(), ledger.resource_floors()
    assert path.read_bytes() == before
    failed = next(record for record in records if record.state is State.FAILED)
    with Ledger.open(path) as ledger:
        assert (ledger.records(), ledger.resource_floors()) == (records, floors)
        trial_id = failed.trial.trial_id
        for cause in Cause:
            assert ledger.record(Failed(trial_id, ledger.begin_attempt(trial_id), "x", "", cause=cause))
    with Ledger.read(path) as ledger:
        again = next(record for record in ledger.records() if record.trial.trial_id == trial_id)
    assert (again.cause, again.num_attempts) == (list(Cause)[-1], failed.num_attempts + len(Cause))


def test_a_ledger_of_schema_3_that_was_changed_by_another_program_is_refused(path: Path) -> None:
    shutil.copy(ASSETS / "ledger_schema_3.sqlite", path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE attempts SET seconds = 1.0 WHERE state = 'done'")
    connection.close()
    with pytest.raises(LedgerError, match="its table attempts has"):
        connect_reader(path)


def test_a_ledger_of_schema_4_is_read_and_goes_on_with_devices_and_results_that_are_superseded(path: Path) -> None:
    shutil.copy(ASSETS / "ledger_schema_4.sqlite", path)
    before = path.read_bytes()
    with Ledger.read(path) as ledger:
        records = ledger.records()
    assert path.read_bytes() == before
    done = next(record for record in records if record.state is State.DONE)
    trial_id = done.trial.trial_id
    with Ledger.open(path) as ledger:
        assert ledger.records() == records
        assert ledger.supersede([trial_id]) == 1
        ledger.record(Started(trial_id, ledger.begin_attempt(trial_id), "node:2", "cuda NVIDIA H200"))
    with Ledger.read(path) as ledger, ledger.snapshot() as connection:
        first, second = select_attempts(connection, trial_id)
    assert (first.state, first.metrics, first.device) == ("superseded", done.metrics, None)
    assert (second.state, second.device) == ("running", "cuda NVIDIA H200")


def test_a_ledger_of_schema_7_is_read_and_goes_on_with_controls_that_it_could_not_hold(path: Path) -> None:
    shutil.copy(ASSETS / "ledger_schema_7.sqlite", path)
    before = path.read_bytes()
    with Ledger.read(path) as ledger:
        records, info = ledger.records(), ledger.sweep()
    assert path.read_bytes() == before
    with Ledger.open(path) as ledger:
        assert (ledger.records(), ledger.sweep()) == (records, info)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("UPDATE trials SET role = 'control' WHERE arm = 'norm@all'").rowcount == 6
    with closing(sqlite3.connect(f"file:{ASSETS / 'ledger_schema_7.sqlite'}?immutable=1", uri=True)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'trials'").fetchone()
    assert "'control'" not in sql
