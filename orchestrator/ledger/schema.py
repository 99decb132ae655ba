"""The tables and views of a ledger, as SQL.

Where a trial stands is not stored; it follows from the newest of its attempts (view ``newest_attempts``). The
views ``final_metrics`` and ``rung_metrics`` are for people who query the file with a tool of their own.
"""

from __future__ import annotations

from dataclasses import fields

from orchestrator.trials.trial import TrialInfo

SCHEMA_VERSION = 2
APPLICATION_ID = 0x53505357
"""``SPSW`` in the header of the file: tells a ledger from other SQLite files."""

PROTECTED_TABLES = (
    *("sweep", "runs", "groups", "trials", "attempts", "reports", "logs", "diagnostics"),
    *("left_out", "larger_shares"),
)
"""The tables that hold what was recorded; each has a seal."""

TRIAL_COLUMNS = {field.name: "group_name" if field.name == "group" else field.name for field in fields(TrialInfo)}
"""Column of the table ``trials`` by field of a trial."""

SCHEMA = """
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
    cause TEXT, -- why it failed
    share TEXT NOT NULL DEFAULT '{}', -- what it occupied
    gpus REAL NOT NULL DEFAULT 0, -- GPUs in all
    held_s REAL NOT NULL DEFAULT 0, -- how long it occupied them, by the driver's clock
    PRIMARY KEY (trial_id, attempt)
);
CREATE UNIQUE INDEX one_running_attempt ON attempts (trial_id) WHERE state = 'running';
CREATE TABLE reports (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL, step INTEGER NOT NULL,
    reported_at TEXT NOT NULL, metrics TEXT NOT NULL,
    PRIMARY KEY (trial_id, attempt, step), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;
CREATE TABLE logs (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL, position INTEGER NOT NULL, -- from 1
    logged_at TEXT NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL,
    PRIMARY KEY (trial_id, attempt, position), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;
CREATE TABLE left_out (
    trial_id TEXT PRIMARY KEY REFERENCES trials, reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE larger_shares ( -- what trials of a scale get since one of them ran out of memory
    scale TEXT PRIMARY KEY, gpus REAL NOT NULL, memory_gib REAL NOT NULL, micro_batch INTEGER
) WITHOUT ROWID;
CREATE TABLE diagnostics (
    trial_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    block INTEGER NOT NULL, site TEXT NOT NULL, quantity TEXT NOT NULL,
    value REAL, -- NULL = not a number
    PRIMARY KEY (trial_id, attempt, block, site, quantity), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;
CREATE TABLE seals ( -- what every table must add up to, see orchestrator.ledger.checksums
    table_name TEXT PRIMARY KEY, num_rows INTEGER NOT NULL, digest INTEGER NOT NULL
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
