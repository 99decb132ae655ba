"""Seals: what the tables of a ledger must add up to, so that no damaged number is ever read as a number.

SQLite checks the structure of its pages, not the values in them: a flipped bit in a metric, or a page of an hour ago
in the place of the newest, is read without a word. The table ``seals`` therefore holds, for every table, the number
of its rows and the sum of their digests. Triggers of the writer's connection keep the sums, in the transaction that
changes the rows; they are temporary, so the file stays one that any SQLite tool reads. A sum, and not a digest in
every row, because it also notices a row that is missing, one that is there twice, and one that is whole but of before.

The digest of a row is 62 bits of BLAKE2b over its values as JSON, which tells texts, integers, reals and NULL
apart: two states of a table have the same sum with a probability of 2^-62, and sums stay inside the integers of SQLite.
The SQL of the tables and views has a seal too, since a changed view would answer another question.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from pathlib import Path

from orchestrator.ledger.errors import LedgerError
from orchestrator.ledger.schema import PROTECTED_TABLES, SCHEMA

_BITS = (1 << 62) - 1
_SCHEMA_SEAL = "sqlite_schema"


def maintain_checksums(connection: sqlite3.Connection) -> None:
    """Make ``connection`` update the seals with every row that it inserts, updates or deletes.

    Args:
        connection: To a ledger with all its tables, open for writing, outside any transaction.
    """
    connection.create_function("row_digest", -1, _row_digest, deterministic=True)
    # So that the rows that INSERT OR REPLACE takes away are seen by the triggers of DELETE.
    connection.execute("PRAGMA recursive_triggers = ON")
    for table in PROTECTED_TABLES:
        columns = _columns(connection, table)
        new, old = (
            f"row_digest('{table}', {', '.join(f'{row}.{name}' for name in columns)})" for row in ("new", "old")
        )
        changes = {"INSERT": ("+ 1", f"+ {new}"), "DELETE": ("- 1", f"- {old}"), "UPDATE": ("+ 0", f"- {old} + {new}")}
        for event, (num_rows, digest) in changes.items():
            connection.execute(
                f"CREATE TEMP TRIGGER seal_{event}_{table} AFTER {event} ON main.{table} BEGIN "
                f"UPDATE seals SET num_rows = num_rows {num_rows}, digest = (digest {digest}) & {_BITS} "
                f"WHERE table_name = '{table}'; END"
            )


def create_checksums(connection: sqlite3.Connection) -> None:
    """Write the seals of tables that have none, inside the caller's transaction."""
    for table in (*PROTECTED_TABLES, _SCHEMA_SEAL):
        connection.execute("INSERT INTO seals VALUES (?, ?, ?)", (table, *_add_up(connection, table)))


def verify_checksums(connection: sqlite3.Connection, path: Path) -> None:
    """Compare every table with its seal, inside the caller's transaction.

    Args:
        connection: To a ledger.
        path: Its file, for messages.

    Raises:
        LedgerError: If a table is not what was recorded; the text names it.
    """
    seals = {name: (num_rows, digest) for name, num_rows, digest in connection.execute("SELECT * FROM seals")}
    for table in (_SCHEMA_SEAL, *PROTECTED_TABLES):
        num_rows, digest = _add_up(connection, table)
        if seals.get(table) == (num_rows, digest):
            continue
        sealed, _ = seals.get(table, (None, None))
        number = f"has {num_rows} rows" + ("" if num_rows == sealed else f" where {sealed} were recorded")
        raise damaged(path, f"its table {table} {number} and does not have the content that was recorded")


def damaged(path: Path, finding: str) -> LedgerError:
    """Return the error that tells of a damaged ledger and what can be done."""
    return LedgerError(
        f"{path}: the ledger is damaged, or was changed by another program: {finding}. "
        "Bring back a copy of the file, or move it away and run the sweep again"
    )


def _add_up(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    """Return the number of rows of ``table`` and the sum of their digests."""
    rows: Iterable[tuple[object, ...]]
    if table == _SCHEMA_SEAL:
        # Views and indexes that users have added are theirs; places in the file change with VACUUM.
        rows = connection.execute("SELECT ?, type, name, tbl_name, sql FROM sqlite_schema", (table,))
        rows = (row for row in rows if row[2] in _own_objects())
    else:
        rows = connection.execute(f"SELECT '{table}', {', '.join(_columns(connection, table))} FROM {table}")
    num_rows = total = 0
    for row in rows:
        num_rows += 1
        total += _row_digest(*row)
    return num_rows, total & _BITS


def _row_digest(*values: object) -> int:
    return int.from_bytes(blake2b(_to_json(values).encode(), digest_size=8).digest()) & _BITS


def _blob(value: bytes) -> list[str]:
    """Write the one type of SQLite's that JSON lacks as what no value is; no column of ours holds it."""
    return [value.hex()]


_to_json = json.JSONEncoder(default=_blob).encode


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})")]


@cache
def _own_objects() -> frozenset[str]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(SCHEMA)
        return frozenset(name for (name,) in connection.execute("SELECT name FROM sqlite_schema"))
    finally:
        connection.close()
