"""The file under the ledger: its tables, how it is opened and recognised, and how metrics are written in it.

SQLite in WAL mode: one writer, any number of readers at the same time, and a transaction is on record when
its call returns. ``synchronous`` is NORMAL: what is committed survives the death of the process, and a power
cut can take back the last transactions but cannot damage the file.

Where a trial stands is not stored; it follows from the newest of its attempts (view ``newest_attempts``). The
views ``final_metrics`` and ``rung_metrics`` are for people who query the file with a tool of their own.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from specvit.errors import SpecsweepError

SCHEMA_VERSION = 2
APPLICATION_ID = 0x53505357
"""``SPSW`` in the header of the file: tells a ledger from other SQLite files."""

_BUSY_TIMEOUT_S = 30.0

_SCHEMA = """
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


class LedgerError(SpecsweepError):
    """Signal a ledger that cannot be used; the text names the file and what is wrong with it."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what SQLite raises in this context into a LedgerError that names ``path``."""
    try:
        yield
    except (sqlite3.DatabaseError, OverflowError) as error:
        raise LedgerError(f"{path}: the ledger cannot be used ({error})") from error


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the ledger at ``path`` for writing; make it, and its folder, if it is not there.

    Raises:
        LedgerError: If the file is damaged, of a newer version, or not a ledger.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{path.parent}: cannot be made ({error.strerror})") from error
    with naming(path):
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            # Before the first write, so that a file of somebody else's is left as it is.
            is_new = _check_header(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            if is_new:
                header = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
                connection.executescript(f"BEGIN IMMEDIATE; {header} {_SCHEMA} COMMIT;")
            _check_pages(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the ledger at ``path`` for reading only, also while a sweep writes to it.

    Raises:
        LedgerError: If the file is absent, damaged, of a newer version, or not a ledger.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger; run the sweep first")
    address = f"{path.resolve().as_uri()}?mode=ro"
    with naming(path):
        connection = sqlite3.connect(address, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            if not _is_readable(connection) and not _has_pending_writes(path):
                # WAL wants files beside the ledger; a folder that is read-only has no writer to look out for.
                connection.close()
                connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
            if _check_header(connection, path):
                raise LedgerError(f"{path}: the ledger is empty; run the sweep first")
        except BaseException:
            connection.close()
            raise
    return connection


def _is_readable(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        return False
    return True


def _has_pending_writes(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _check_header(connection: sqlite3.Connection, path: Path) -> bool:
    """Refuse what is not a ledger of this version; return whether the file is still empty."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (num_objects,) = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()
    if application_id == 0 and version == 0 and num_objects == 0:
        return True
    if application_id != APPLICATION_ID:
        raise LedgerError(f"{path}: is an SQLite file, but not a ledger of specsweep")
    if version != SCHEMA_VERSION:
        raise LedgerError(
            f"{path}: the ledger has schema {version}, this specsweep reads schema {SCHEMA_VERSION}; "
            "use the version of specsweep that wrote it, or another results folder"
        )
    return False


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LedgerError(f"{path}: the ledger is damaged ({verdict})")


def encode_metrics(metrics: Mapping[str, float]) -> str:
    """Write metrics as JSON that SQLite reads too: NaN as null, the infinities as 1e999 and -1e999."""
    values = {name: float(value) for name, value in metrics.items()}
    if all(math.isfinite(value) for value in values.values()):
        return json.dumps(values)
    pairs = (f"{json.dumps(name)}: {_encode_number(value)}" for name, value in values.items())
    return "{" + ", ".join(pairs) + "}"


def _encode_number(value: float) -> str:
    if math.isnan(value):
        return "null"
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return repr(value)


def decode_metrics(text: str) -> dict[str, float]:
    """Read what ``encode_metrics`` wrote."""
    metrics: dict[str, float | None] = json.loads(text)
    return {name: math.nan if value is None else value for name, value in metrics.items()}
