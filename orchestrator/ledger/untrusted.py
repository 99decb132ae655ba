"""What a ledger that came from others may bring along and must not: SQL that would run, and files to be led astray by.

SQLite runs the SQL that lies in a file: triggers with every change of a row, views whenever they are read, expressions
with every row. None of it can start a program here, for extensions are not loaded; it could change what is recorded.
The files beside a ledger are opened, and written to, without a word; a rollback journal names a file to delete.
Source: SQLite's documentation, "Defense Against The Dark Arts", and of its file format, section 3.
"""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.schema import PROTECTED_TABLES, SCHEMA

_MOST_BYTES_OF_A_VALUE = 1 << 26
"""Of a value of a row: room for any traceback, none for a ``zeroblob`` that fills the memory."""


def harden_connection(connection: sqlite3.Connection) -> None:
    """Keep the SQL that lies in a file from calling functions that could do harm, and from making huge values."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES_OF_A_VALUE)


def use_own_views(connection: sqlite3.Connection) -> None:
    """Read the views of today's schema as they are defined here, whatever the file defines by their names."""
    for view in SCHEMA.split("CREATE VIEW")[1:]:
        connection.execute(f"CREATE TEMP VIEW {view.partition(';')[0]}")


def refuse_foreign_files(path: Path, *, writing: bool = False) -> None:
    """Make sure that what SQLite would open beside a ledger is its own, or not there.

    Args:
        path: The ledger, which need not be there.
        writing: Whether it is to be written to; a link to a ledger may be read.

    Raises:
        LedgerError: If a file is a link or no file, or if there is a rollback journal.
    """
    if writing:
        _refuse_irregular(path)
    # SQLite follows a link first, and looks beside the file behind it.
    real = path.resolve()
    for kind in ("wal", "shm"):
        _refuse_irregular(real.with_name(f"{real.name}-{kind}"))
    # A ledger has a log, never a journal; SQLite would undo by it what was checked, and delete the file it names.
    journal = real.with_name(f"{real.name}-journal")
    if _mode(journal) is not None:
        raise LedgerError(
            f"{journal}: is no file of a ledger, which has none of this name; delete it"
        )


def refuse_foreign_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a ledger with triggers, or with something else in the place of a table of ours.

    Views and indexes that people have added for themselves are left alone: nothing here reads the ones
    (``use_own_views``), and the others hold no statements.

    Args:
        connection: To the ledger.
        path: Its file, for messages.

    Raises:
        LedgerError: If there is any; the text names it.
    """
    for kind, name, table, sql in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"):
        if kind == "trigger":
            raise LedgerError(
                f"{path}: has a trigger {name!r} on {table!r}, which would run with every change and is not "
                "specsweep's; drop it by a tool for SQLite, or use another copy of the ledger"
            )
        is_virtual = sql is not None and sql.split(None, 2)[1:2] == ["VIRTUAL"]
        if name in PROTECTED_TABLES and (kind != "table" or is_virtual):
            raise LedgerError(f"{path}: has a {'virtual table' if is_virtual else kind} in the place of table {name}")
    for table in PROTECTED_TABLES:
        # Of a generated column, the last field is not 0.
        if any(column[-1] for column in connection.execute(f"PRAGMA main.table_xinfo({table})")):
            raise LedgerError(f"{path}: has values in its table {table} that are made by SQL, not recorded")


def _refuse_irregular(path: Path) -> None:
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        what = f"a link to {path.readlink()}" if stat.S_ISLNK(mode) else "no file, but a folder, a pipe or the like"
        raise LedgerError(f"{path}: is {what}; a ledger and what lies beside it must be files of their own")


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except OSError:
        return None
