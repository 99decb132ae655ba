"""Making the tables of a ledger, and moving those of older schemas into the ones of today."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from orchestrator.ledger.checksums import create_checksums
from orchestrator.ledger.schema import APPLICATION_ID, PROTECTED_TABLES, SCHEMA, SCHEMA_VERSION

_OLD_VIEWS = ("newest_attempts", "final_metrics", "rung_metrics")


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a ledger in an empty file, in one transaction."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        _create_tables(connection)
        create_checksums(connection)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a ledger of schema 1 to that of today, in one transaction.

    Tables are made anew, so that their SQL is that of a ledger made today. What they held goes along by the names
    of the columns; a column that was added since has its default, a table that was added since is empty.

    Args:
        connection: Open for writing, outside any transaction, without foreign keys and seals.
    """
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        columns = {table: _columns(connection, table) for table in PROTECTED_TABLES}
        kept = {table: names for table, names in columns.items() if names}
        for table in kept:
            connection.execute(f"CREATE TEMP TABLE kept_{table} AS SELECT * FROM main.{table}")
        for view in _OLD_VIEWS:
            connection.execute(f"DROP VIEW IF EXISTS main.{view}")
        for table in kept:
            connection.execute(f"DROP TABLE main.{table}")
        _create_tables(connection)
        for table, names in kept.items():
            connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM temp.kept_{table}")
            connection.execute(f"DROP TABLE temp.kept_{table}")
        create_checksums(connection)


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    for statement in _statements(SCHEMA):
        connection.execute(statement)


def _columns(connection: sqlite3.Connection, table: str) -> str:
    return ", ".join(name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})"))


def _statements(script: str) -> Iterator[str]:
    """Split a script; ``executescript`` would end the transaction that is under way."""
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
