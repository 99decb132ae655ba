"""The file under the ledger: how it is opened and recognised.

SQLite in WAL mode: one writer, any number of readers at the same time, and a transaction is on record when
its call returns. ``synchronous`` is FULL: what is committed survives the death of the process and a power cut.

Whoever opens a ledger checks its structure (SQLite's ``integrity_check``), what it holds (the checksums) and of what
kind that is, before anything is written to it or read from it: a writer all of it, a reader what it reads, since the
rows of ``LAZY_TABLES`` are most of a ledger, and few commands ask for them.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from orchestrator.ledger.checksums import maintain_checksums, verify_checksums
from orchestrator.ledger.errors import LedgerError, damaged, translate_sqlite_errors
from orchestrator.ledger.migrations import create, migrate, verify_old_checksums
from orchestrator.ledger.private_copy import copy_to_memory
from orchestrator.ledger.schema import APPLICATION_ID, PROTECTED_TABLES, SCHEMA_VERSION
from orchestrator.ledger.untrusted import harden_connection, refuse_foreign_files, refuse_foreign_schema
from orchestrator.ledger.validation import check_values
from orchestrator.ledger.wal import count_lost_transactions
from specvit.files.atomic import replacing

_LOG = logging.getLogger(__name__)

_BUSY_TIMEOUT_S = 30.0
_HEADER_BYTES = 100
LAZY_TABLES = ("diagnostics", "logs")
"""Tables of which a reader checks the rows before it reads them first; see ``verify_tables``."""
_EMPTY = 0
"""The schema of a file in which nothing is yet."""
_WITH_OLD_CHECKSUMS = 2


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the ledger at ``path`` for writing; make it, and its folder, if it is not there.

    A ledger of an older schema becomes one of today's. The file is checked, and its migration tried in memory, before
    a connection that can write is made: closing one would fold the log into the file, also into one that is refused.

    Raises:
        LedgerError: If the file is damaged, of a newer version, or not a ledger; it is left as it is.
        LedgerWriteError: If there is no room, or no right to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"{path.parent}: cannot be made ({error.strerror})") from error
    refuse_foreign_files(path, writing=True)
    if path.is_file():
        with closing(_connect_read_only(path)) as connection, translate_sqlite_errors(path):
            if _EMPTY < _check(connection, path) < SCHEMA_VERSION:
                _migrated_copy(connection).close()
    if not path.is_file() or path.stat().st_size == 0:
        _make(path)
    with translate_sqlite_errors(path, writing=True):
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            harden_connection(connection)
            schema = _schema_of(connection, path)
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                # A new ledger: if the process dies here, no journal is left beside it, which would be a foreign file.
                connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if schema < SCHEMA_VERSION:
                migrate(connection)
            # Into the file itself, so that a ledger whose log is lost is still a ledger.
            _, num_frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            _warn_of_lost(path, num_frames)
            connection.execute("PRAGMA foreign_keys = ON")
            maintain_checksums(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _make(path: Path) -> None:
    """Make an empty ledger, whole or not at all: whenever a process dies here, no half of one is left in its place."""
    with (
        translate_sqlite_errors(path, writing=True),
        replacing(path) as temporary,
        closing(sqlite3.connect(temporary, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = MEMORY")  # no file beside it
        create(connection)


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the ledger at ``path`` for reading only, also while a sweep writes to it. It makes no file beside it.

    A ledger that nobody writes to, or of an older schema, is left as it is, and read as it was at this moment.

    Raises:
        LedgerError: If the file is absent, damaged, of a newer version, or not a ledger.
    """
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger; run the sweep first")
    refuse_foreign_files(path)
    connection = _connect_read_only(path)
    try:
        with translate_sqlite_errors(path):
            schema = _check(connection, path, unread=LAZY_TABLES)
            if schema == _EMPTY:
                raise LedgerError(f"{path}: the ledger is empty; run the sweep first")
            if schema < SCHEMA_VERSION:
                connection = _migrated_copy(connection)
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_read_only(path: Path) -> sqlite3.Connection:
    _refuse_stump(path)
    address = f"{path.resolve().as_uri()}?mode=ro"
    with translate_sqlite_errors(path):
        connection = copy_to_memory(path) or sqlite3.connect(
            address, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None
        )
        try:
            harden_connection(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _warn_of_lost(path: Path, num_read_frames: int) -> None:
    num_lost = count_lost_transactions(path, num_read_frames)
    if num_lost:
        _LOG.warning(
            "%s-wal: is damaged, as by a power cut: the last %d transactions cannot be read, and what they recorded "
            "is missing; all that was recorded before is there, and what is missing is run again",
            path,
            num_lost,
        )


def _has_pending_writes(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _refuse_stump(path: Path) -> None:
    """Refuse what is left of a ledger where SQLite would see a new file, and delete the log beside it."""
    size = path.stat().st_size
    if 0 < size < _HEADER_BYTES or (size == 0 and _has_pending_writes(path)):
        raise damaged(path, f"it is cut off after {size} bytes")


def _migrated_copy(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Return a ledger of today's schema in memory, in the place of an older one; that one is closed."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with closing(connection):
            connection.backup(copy)
        harden_connection(copy)
        migrate(copy)
        check_values(copy)
    except BaseException:
        copy.close()
        raise
    return copy


def verify_tables(connection: sqlite3.Connection, path: Path, tables: Collection[str]) -> None:
    """Refuse tables of a ledger of today's schema that are not as they were written, inside the caller's transaction.

    Raises:
        LedgerError: If a table is not what was recorded; the text names it.
    """
    verify_checksums(connection, path, tables=tables)
    check_values(connection, [*tables, "checksums"])


def _check(connection: sqlite3.Connection, path: Path, *, unread: Collection[str] = ()) -> int:
    """Refuse what is not a ledger, or not the one that was written; return its schema.

    Args:
        connection: To the ledger.
        path: Its file, for messages.
        unread: Tables whose rows are not to be checked yet, if it is of today's schema.
    """
    # One transaction, so that a writer's rows and their sums are of the same moment.
    connection.execute("BEGIN")
    try:
        schema = _schema_of(connection, path)
        if schema != _EMPTY:
            refuse_foreign_schema(connection, path, schema)
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise damaged(path, verdict)
        if schema == SCHEMA_VERSION:
            verify_tables(connection, path, [table for table in PROTECTED_TABLES if table not in unread])
        elif schema > _WITH_OLD_CHECKSUMS:
            verify_checksums(connection, path)
        elif schema == _WITH_OLD_CHECKSUMS:
            verify_old_checksums(connection, path)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return schema


def _schema_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of the ledger's schema; refuse what is newer, or no ledger."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id == 0 and version == 0 and connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is None:
        return _EMPTY
    if application_id != APPLICATION_ID:
        raise LedgerError(f"{path}: is an SQLite file, but not a ledger of specsweep")
    if not 1 <= version <= SCHEMA_VERSION:
        raise LedgerError(
            f"{path}: the ledger has schema {version}, this specsweep reads schema {SCHEMA_VERSION}; "
            "use the version of specsweep that wrote it, or another results folder"
        )
    return int(version)
