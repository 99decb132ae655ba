"""What a ledger that came from others may bring along and must not: SQL that would run, and files to be led astray by.

SQLite runs the SQL that lies in a file: triggers with every change of a row, views whenever they are read, expressions
with every row. None of it can start a program here, for extensions are not loaded; it could change what is recorded.
The files beside a ledger are opened, and written to, without a word; a rollback journal names a file to delete.
Source: SQLite's documentation, "Defense Against The Dark Arts", and of its file format, section 3.
"""

from __future__ import annotations

import json
import re
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from hashlib import blake2b
from pathlib import Path

from orchestrator.ledger.errors import LedgerError, damaged
from orchestrator.ledger.schema import PROTECTED_TABLES, SCHEMA

_MOST_BYTES_OF_A_VALUE = 1 << 26
"""Of a value of a row: room for any traceback, none for a ``zeroblob`` that fills the memory."""

_NAMES = frozenset(
    {
        *PROTECTED_TABLES,
        *("checksums", "one_running_attempt", "newest_attempts", "final_metrics", "rung_metrics"),
        *("seals", "left_out", "larger_shares"),
    }
)
"""Names of tables, indexes and views in ledgers, those of older schemas too."""

_OLD_DIGESTS: Mapping[int, tuple[str, ...]] = {
    1: ("740f7a065109541f2df40b5f588f3e30", "cd563008e0fd30b8b7dc3fb22b6fba41"),
    2: ("c4b0a637f0117ebda6e867beb49c70f0",),
    3: ("16c397128a93d19f8490d97ca8e3ba89",),
    4: ("7ab1f9faed36b06f7c0404f1398fbe1f",),
    5: ("07fcdfd090544e0c3b50bb5a9e714546",),
    6: ("857df4b76dee9f7b960b5160078c9319",),
    7: ("fe8094580854aa75f17ab203ac65534c",),
    8: ("fe9646209d829d189138674f16e80a78",),
}
"""What older versions have made: schema to digest; diagnostics were added to schema 1 when the first were measured."""

_COMMENT = re.compile(r"--[^\n]*")


def harden_connection(connection: sqlite3.Connection) -> None:
    """Keep the SQL that lies in a file from calling functions that could do harm, and from making huge values."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES_OF_A_VALUE)


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


def refuse_foreign_schema(connection: sqlite3.Connection, path: Path, schema: int) -> None:
    """Refuse a ledger with triggers, or whose tables, views and indexes are not the ones that specsweep makes.

    Views, indexes and tables that people have added for themselves are left alone: nothing here reads them.

    Args:
        connection: To the ledger.
        path: Its file, for messages.
        schema: The version that it says it has.

    Raises:
        LedgerError: If it is not the schema of that version.
    """
    trigger = connection.execute("SELECT name, tbl_name FROM sqlite_schema WHERE type = 'trigger'").fetchone()
    if trigger is not None:
        raise LedgerError(
            f"{path}: has a trigger {trigger[0]!r} on {trigger[1]!r}, which would run with every change and is not "
            "specsweep's; drop it by a tool for SQLite, or use another copy of the ledger"
        )
    if _digest(connection) not in (_OLD_DIGESTS.get(schema) or (_own_digest(),)):
        raise damaged(path, f"its tables, views and indexes are not those of schema {schema}")


def _digest(connection: sqlite3.Connection) -> str:
    """Return the digest of the SQL of all objects that have names of ours, without comments and line ends."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    own = sorted((*row[:3], " ".join(_COMMENT.sub("", row[3]).split())) for row in rows if row[1].lower() in _NAMES)
    return blake2b(json.dumps(own).encode(), digest_size=16).hexdigest()


@cache
def _own_digest() -> str:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _digest(connection)


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
