"""Making the tables of a ledger, and moving those of older schemas into the ones of today.

Schema 1 had no causes, shares and checksums; schema 2 no ``CHECK`` of every column, and other names; schema 3 fewer
causes; schema 4 no devices, and no results that others have superseded; schema 5 no costs of trainings; schema 6
no kept weights, and no results that rest on another trial's training; schema 7 no controls;
schema 8 one way alone to compare arms.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from orchestrator.ledger.checksums import columns_of, create_checksums, verify_checksums
from orchestrator.ledger.schema import APPLICATION_ID, PROTECTED_TABLES, SCHEMA, SCHEMA_VERSION

_OLD_VIEWS = ("newest_attempts", "final_metrics", "rung_metrics")
_OLD_TABLES = {"skipped": "left_out", "resource_floors": "larger_shares"}
_OLD_COLUMNS = {"begun_at": "submitted_at"}
_OLD_CHECKSUMS = "seals"


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a ledger in an empty file, in one transaction."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        _create_tables(connection)
        create_checksums(connection)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a ledger of an older schema to that of today, in one transaction.

    Tables are made anew, so that their SQL is that of a ledger made today, and checks every row. What they held goes
    along by the names of the columns; a column that was added since has its default, a table that was added is empty.

    Args:
        connection: Open for writing, outside any transaction, without foreign keys and checksums.
    """
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        columns = {old: columns_of(connection, old) for old in (*PROTECTED_TABLES, *_OLD_TABLES.values())}
        # Each by its name of today, or else by that of before.
        old_of = {table: table if columns[table] else _OLD_TABLES.get(table, table) for table in PROTECTED_TABLES}
        kept = {table: columns[old] for table, old in old_of.items() if columns[old]}
        for view in _OLD_VIEWS:
            connection.execute(f"DROP VIEW IF EXISTS main.{view}")
        for table in kept:
            old = old_of[table]
            connection.execute(f"CREATE TEMP TABLE kept_{table} AS SELECT * FROM main.{old}")
            connection.execute(f"DROP TABLE main.{old}")
        for checksums in (_OLD_CHECKSUMS, "checksums"):
            connection.execute(f"DROP TABLE IF EXISTS main.{checksums}")
        _create_tables(connection)
        for table, names in kept.items():
            into = ", ".join(_OLD_COLUMNS.get(name, name) for name in names)
            connection.execute(f"INSERT INTO main.{table} ({into}) SELECT {', '.join(names)} FROM temp.kept_{table}")
            connection.execute(f"DROP TABLE temp.kept_{table}")
        create_checksums(connection)


def verify_old_checksums(connection: sqlite3.Connection, path: Path) -> None:
    """Compare the tables of a ledger of schema 2 with their checksums, inside the caller's transaction.

    Raises:
        LedgerError: If a table is not what was recorded; the text names it.
    """
    tables = [_OLD_TABLES.get(table, table) for table in PROTECTED_TABLES]
    verify_checksums(connection, path, tables=tables, kept_in=_OLD_CHECKSUMS)


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    for statement in _statements(SCHEMA):
        connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """Split a script; ``executescript`` would end the transaction that is under way."""
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
