"""The tables and views of a ledger, as SQL.

Where a trial stands is not stored; it follows from the newest of its attempts (view ``newest_attempts``). The
views ``final_metrics`` and ``rung_metrics`` are for people who query the file with a tool of their own.

Every column has a ``CHECK`` of what it may hold, so that nothing else is ever written; a ledger that comes from
elsewhere is held against the same rules (``orchestrator.ledger.validation``). Not by SQLite's ``integrity_check``: it
verifies each ``CHECK``, but not through a connection that may not write, which knows none (tried with 3.34.0, which
Enterprise Linux 9 has, and 3.40.1). Not ``STRICT`` tables, which came with 3.37. Not ``json_valid``, which 3.40 takes
for unsafe in a table's SQL where a connection trusts no schema, as those of ledgers must not.
"""

from __future__ import annotations

from dataclasses import fields

from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Role, TrialInfo

SCHEMA_VERSION = 9
APPLICATION_ID = 0x53505357
"""``SPSW`` in the header of the file: tells a ledger from other SQLite files."""

PROTECTED_TABLES = (
    *("sweep", "runs", "groups", "trials", "attempts", "reports", "logs", "diagnostics"),
    *("skipped", "resource_floors"),
)
"""The tables that hold what was recorded; each has a checksum."""

TRIAL_COLUMNS = {field.name: "group_name" if field.name == "group" else field.name for field in fields(TrialInfo)}
"""Column of the table ``trials`` by field of a trial."""

COST_COLUMNS = {
    "seconds": "training_s",
    "images_per_s": "training_images_per_s",
    "peak_memory_gib": "peak_memory_gib",
    "peak_gpu_memory_gib": "peak_gpu_memory_gib",
}
"""Column of the table ``attempts`` by field of what a training cost."""

_TYPES = {"TEXT": "'text'", "INTEGER": "'integer'", "REAL": "'real', 'integer'"}
"""Declared type to the types of the values that may be there: SQLite keeps any value in any column."""


def _column(name: str, declared: str, rule: str = "", *, null: bool = False) -> str:
    """Return the definition of a column; a ``rule`` must not be NULL of a value, since a ``CHECK`` passes NULL."""
    types = _TYPES[declared] + (", 'null'" if null else "")
    rule = f" AND {rule}" if rule else ""
    return f"{name} {declared}{'' if null else ' NOT NULL'} CHECK (typeof({name}) IN ({types}){rule})"


def _text(name: str, *, null: bool = False) -> str:
    return _column(name, "TEXT", null=null)


def _one_of(name: str, *values: str, null: bool = False) -> str:
    return _column(name, "TEXT", f"{name} IN ({', '.join(repr(str(value)) for value in values)})", null=null)


def _time(name: str, *, null: bool = False) -> str:
    """Return a column of ISO times in UTC, which Python's ``fromisoformat`` reads; ``date`` moves 31 February."""
    shape = f"{name} GLOB '????-??-??T??:??:*[0-9]+00:00' AND {name} >= '0001'"
    return _column(name, "TEXT", f"{shape} AND date({name}, '+0 days') IS substr({name}, 1, 10)", null=null)


def _object(name: str) -> str:
    return _column(name, "TEXT", f"{name} GLOB '{{*}}'")


def _list(name: str) -> str:
    return _column(name, "TEXT", f"{name} GLOB '[[]*]'")


def _count(name: str, least: int = 0, *, null: bool = False) -> str:
    return _column(name, "INTEGER", f"{name} >= {least}", null=null)


def _finite(name: str, *, least: str = "-1.7976931348623157e308", null: bool = False) -> str:
    return _column(name, "REAL", f"{name} >= {least} AND {name} < 9e999", null=null)


SCHEMA = f"""
CREATE TABLE sweep (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    {_text("name")},
    {_text("question")},
    {_text("text")},
    {_list("metrics")},
    {_list("seeds")},
    {_text("primary_metric")} DEFAULT '',
    {_object("smallest_effects")} DEFAULT '{{}}',
    {_object("growth")} DEFAULT '{{}}',
    {_object("comparison")} DEFAULT '{{}}'
);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    {_time("started_at")},
    {_object("provenance")}
);
CREATE TABLE groups (
    {_text("group_id")} PRIMARY KEY,
    {_text("data_fingerprint")}
);
CREATE TABLE trials (
    {_text("trial_id")} PRIMARY KEY,
    {_count("position", null=True)} UNIQUE, -- place in the sweep file; NULL = not in the file now
    {_text("group_id")},
    {_text("arm_id")},
    {_text("group_name")},
    {_text("arm")},
    {_one_of("role", *Role)},
    {_text("label")},
    {_column("seed", "INTEGER")},
    {_count("num_parameters")},
    {_finite("extra_parameters_percent")},
    {_object("config")}
);
CREATE TABLE attempts (
    {_text("trial_id")} REFERENCES trials,
    {_count("attempt", 1)},
    {_column("run", "INTEGER", null=True)} REFERENCES runs, -- the run of the driver that began it
    {_one_of("state", "running", "done", "pruned", "failed", "lost", "superseded")},
    {_text("worker", null=True)},
    {_text("device", null=True)}, -- on which it was computed: kind and name
    {_time("submitted_at")},
    {_time("started_at", null=True)},
    {_time("ended_at", null=True)},
    {_count("steps", null=True)},
    {_count("step")} DEFAULT 0,
    {_finite("images_per_s", null=True)},
    {_object("metrics")} DEFAULT '{{}}', -- NaN is null, the infinities are 1e999 and -1e999
    {_finite("seconds", null=True)},
    {_finite("core_seconds", null=True)},
    {_finite("training_s", least="0", null=True)}, -- optimizer steps alone; the next three likewise
    {_finite("training_images_per_s", least="0", null=True)},
    {_finite("peak_memory_gib", least="0", null=True)},
    {_finite("peak_gpu_memory_gib", least="0", null=True)},
    {_text("error", null=True)},
    {_text("traceback", null=True)},
    {_one_of("cause", *Cause, null=True)},
    {_object("share")} DEFAULT '{{}}', -- what it occupied
    {_finite("gpus", least="0")} DEFAULT 0, -- GPUs in all
    {_finite("held_s")} DEFAULT 0, -- how long it occupied them, by the driver's clock
    {_list("weights")} DEFAULT '[]', -- files of trained weights that are kept
    {_text("trained_by", null=True)}, -- the trial whose training the result rests on; NULL = its own
    PRIMARY KEY (trial_id, attempt)
);
CREATE UNIQUE INDEX one_running_attempt ON attempts (trial_id) WHERE state = 'running';
CREATE TABLE reports (
    {_text("trial_id")},
    {_count("attempt", 1)},
    {_count("step")},
    {_time("reported_at")},
    {_object("metrics")},
    PRIMARY KEY (trial_id, attempt, step), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;
CREATE TABLE logs (
    {_text("trial_id")},
    {_count("attempt", 1)},
    {_count("position", 1)},
    {_time("logged_at")},
    {_text("level")},
    {_text("text")},
    PRIMARY KEY (trial_id, attempt, position), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;
CREATE TABLE skipped ( -- trials that the sweep's budget has no room for
    {_text("trial_id")} PRIMARY KEY REFERENCES trials,
    {_text("reason")}
) WITHOUT ROWID;
CREATE TABLE resource_floors ( -- what trials of a scale get at least, since one of them ran out of memory
    {_text("scale")} PRIMARY KEY,
    {_finite("gpus", least="0")},
    {_finite("memory_gib", least="0")},
    {_count("micro_batch", null=True)}
) WITHOUT ROWID;
CREATE TABLE diagnostics (
    {_text("trial_id")},
    {_count("attempt", 1)},
    {_column("block", "INTEGER")},
    {_text("site")},
    {_text("quantity")},
    {_column("value", "REAL", null=True)}, -- NULL = not a number; may be infinite
    PRIMARY KEY (trial_id, attempt, block, site, quantity), FOREIGN KEY (trial_id, attempt) REFERENCES attempts
) WITHOUT ROWID;
CREATE TABLE checksums ( -- what every table must add up to, see orchestrator.ledger.checksums
    {_text("table_name")} PRIMARY KEY,
    {_count("num_rows")},
    {_count("digest")}
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
