"""Checksums: what the tables of a ledger must add up to, so that no damaged number is ever read as a number.

SQLite checks the structure of its pages, not the values in them: a flipped bit in a metric, or a page of an hour ago
in the place of the newest, is read without a word. The table ``checksums`` therefore holds, for every table, the number
of its rows and the sum of their digests. Triggers of the writer's connection keep the sums, in the transaction that
changes the rows; they are temporary, so the file stays one that any SQLite tool reads. A sum, and not a digest in
every row, because it also notices a row that is missing, one that is there twice, and one that is whole but of before.

The digest of a row is 62 bits of BLAKE2b over its values as JSON, which tells texts, integers, reals and NULL
apart: two states of a table have the same sum with a probability of 2^-62, and sums stay inside the integers of SQLite.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from orchestrator.ledger.errors import damaged
from orchestrator.ledger.schema import PROTECTED_TABLES

_BITS = (1 << 62) - 1


def maintain_checksums(connection: sqlite3.Connection) -> None:
    """Make ``connection`` update the checksums with every row that it inserts, updates or deletes.

    Args:
        connection: To a ledger with all its tables, open for writing, outside any transaction.
    """
    connection.create_function("row_digest", -1, _row_digest, deterministic=True)
    # So that the rows that INSERT OR REPLACE takes away are seen by the triggers of DELETE.
    connection.execute("PRAGMA recursive_triggers = ON")
    for table in PROTECTED_TABLES:
        columns = columns_of(connection, table)
        new, old = (
            f"row_digest('{table}', {', '.join(f'{row}.{name}' for name in columns)})" for row in ("new", "old")
        )
        changes = {"INSERT": ("+ 1", f"+ {new}"), "DELETE": ("- 1", f"- {old}"), "UPDATE": ("+ 0", f"- {old} + {new}")}
        for event, (num_rows, digest) in changes.items():
            connection.execute(
                f"CREATE TEMP TRIGGER checksum_{event}_{table} AFTER {event} ON main.{table} BEGIN "
                f"UPDATE checksums SET num_rows = num_rows {num_rows}, digest = (digest {digest}) & {_BITS} "
                f"WHERE table_name = '{table}'; END"
            )


def create_checksums(connection: sqlite3.Connection) -> None:
    """Write the checksums of tables that have none, inside the caller's transaction."""
    for table in PROTECTED_TABLES:
        connection.execute("INSERT INTO checksums VALUES (?, ?, ?)", (table, *_add_up(connection, table)))


def verify_checksums(
    connection: sqlite3.Connection, path: Path, *, tables: Iterable[str] = PROTECTED_TABLES, kept_in: str = "checksums"
) -> None:
    """Compare every table with its checksum, inside the caller's transaction.

    Args:
        connection: To a ledger.
        path: Its file, for messages.
        tables: The tables, by their names in this ledger.
        kept_in: The table of the checksums, likewise.

    Raises:
        LedgerError: If a table is not what was recorded; the text names it.
    """
    recorded = {name: tuple(sums) for name, *sums in connection.execute(f"SELECT * FROM {kept_in}")}
    for table in tables:
        num_rows, digest = _add_up(connection, table)
        num_recorded, _ = recorded.get(table, (None, None))
        if recorded.get(table) != (num_rows, digest):
            where = "" if num_rows == num_recorded else f" where {num_recorded} were recorded"
            what = f"has {num_rows} rows{where} and does not have the content that was recorded"
            raise damaged(path, f"its table {table} {what}")


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the names of a table's columns; none if there is no such table."""
    return [name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})")]


def _add_up(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    """Return the number of rows of ``table`` and the sum of their digests."""
    num_rows = total = 0
    for row in connection.execute(f"SELECT '{table}', {', '.join(columns_of(connection, table))} FROM {table}"):
        num_rows += 1
        total += _row_digest(*row)
    return num_rows, total & _BITS


def _row_digest(*values: object) -> int:
    return int.from_bytes(blake2b(_to_json(values).encode(), digest_size=8).digest()) & _BITS


def _blob(value: bytes) -> list[str]:
    """Write the one type of SQLite's that JSON lacks as what no value is; no column of ours holds it."""
    return [value.hex()]


_to_json = json.JSONEncoder(default=_blob).encode
