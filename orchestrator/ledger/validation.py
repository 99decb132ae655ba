"""What the values of a ledger must be: checked as it is opened, so that whatever reads them can rely on it.

SQLite keeps any value in any column, and seals only tell that a value is the one that was written. A ledger that came
from others may hold text where numbers belong, or JSON of another shape, and every command would end in a trace.
Metrics and configurations, of which there are many, are checked as they are read.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import fields
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from orchestrator.ledger.errors import LedgerError, UnfitValueError
from orchestrator.ledger.provenance import Provenance
from orchestrator.ledger.schema import PROTECTED_TABLES, SCHEMA
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Role

_KINDS = {"INTEGER": ("integer",), "REAL": ("real", "integer"), "TEXT": ("text",)}
"""Declared type to the types of values that may be there."""

_METRIC_TYPES = frozenset({float, int, type(None)})
_DEEPEST = 50
_SHOWN = 60
_ENDS = ("running", "done", "pruned", "failed", "lost")
_INFINITE_VALUES = ("diagnostics",)
"""Tables in which a number may be infinite, because it was measured so."""


def decode_metrics(text: str) -> dict[str, float]:
    """Read what ``encode_metrics`` wrote.

    Raises:
        UnfitValueError: If it is anything else.
    """
    try:
        metrics = json.loads(text)
        if all(type(value) in _METRIC_TYPES for value in metrics.values()):
            return {name: math.nan if value is None else float(value) for name, value in metrics.items()}
    except (ValueError, AttributeError, OverflowError, RecursionError):
        pass
    raise UnfitValueError(f"metrics must be numbers by name, not {text[:_SHOWN]!r}")


def decode_config(text: str) -> dict[str, Any]:
    """Read a trial's configuration as the ledger keeps it.

    Raises:
        UnfitValueError: If it is none.
    """
    try:
        config = json.loads(text)
        if _is_plain(config) and _are_texts(config.get("rungs", {}).get("probes", [])):
            return dict(config)
    except (ValueError, AttributeError, RecursionError):
        pass
    raise UnfitValueError(f"config must be a trial's configuration, not {text[:_SHOWN]!r}")


def check_values(connection: sqlite3.Connection, path: Path) -> None:
    """Check the type of every value, and the shape of those that hold more than one.

    Args:
        connection: To a ledger of today's schema, inside the caller's transaction or outside any.
        path: Its file, for messages.

    Raises:
        LedgerError: If a value is not what its column is for; the text names the column.
    """
    for table in PROTECTED_TABLES:
        for column, declared, not_null, is_key in _columns()[table]:
            kinds = _KINDS[declared] + (() if not_null or is_key else ("null",))
            rule = f"typeof({column}) IN ({', '.join(map(repr, kinds))})"
            if declared == "REAL" and table not in _INFINITE_VALUES:
                rule += f" AND ({column} IS NULL OR abs({column}) < 9e999)"
            _require(connection, path, table, column, rule)
    connection.create_function("is_fit", 2, _is_fit, deterministic=True)
    for table, column in (place.split(".") for place in _SHAPES):
        _require(connection, path, table, column, f"({column} IS NULL OR is_fit('{table}.{column}', {column}))")


@cache
def _columns() -> Mapping[str, list[tuple[str, str, int, int]]]:
    """Return name, type, and whether NULL is refused, of the columns of our tables, not of those in a file."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        found = {table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in PROTECTED_TABLES}
    return {table: [(row[1], row[2], row[3], row[5]) for row in rows] for table, rows in found.items()}


def _require(connection: sqlite3.Connection, path: Path, table: str, column: str, rule: str) -> None:
    query = f"SELECT substr(CAST({column} AS TEXT), 1, {_SHOWN}) FROM main.{table} WHERE NOT ({rule}) LIMIT 1"
    found = connection.execute(query).fetchone()
    if found is not None:
        raise LedgerError(
            f"{path}: the ledger cannot be used: {column} in its table {table} is {found[0]!r}, "
            "which specsweep never writes there"
        )


@lru_cache(maxsize=256)  # few shares, roles and states are there, each of them often
def _is_fit(place: str, text: str) -> bool:
    try:
        return _SHAPES[place](text)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError):
        return False


def _is_time(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of(kind: type, text: str) -> bool:
    values = json.loads(text)
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _is_plain(value: Any) -> bool:
    """Tell whether a value is an object that can be written as JSON again, and is not deep."""
    json.dumps(value, allow_nan=False)
    return isinstance(value, dict) and _depth(value) <= _DEEPEST


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _is_provenance(text: str) -> bool:
    values: Mapping[str, Any] = json.loads(text)
    rules: dict[str, Callable[[Any], bool]] = {
        "argv": _are_texts,
        "gpus": _are_texts,
        "versions": lambda value: _are_texts(list(value.values())),
        "git_sha": lambda value: value is None or isinstance(value, str),
        "git_dirty": lambda value: value is None or isinstance(value, bool),
        "num_cores": _is_number,
        "memory_gib": lambda value: value is None or _is_number(value),
    }
    names = {field.name for field in fields(Provenance)}
    return values.keys() == names and all(
        rules.get(name, lambda value: isinstance(value, str))(value) for name, value in values.items()
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


_SHAPES: Mapping[str, Callable[[str], bool]] = {
    "sweep.metrics": lambda text: _is_list_of(str, text),
    "sweep.seeds": lambda text: _is_list_of(int, text),
    "runs.provenance": _is_provenance,
    "trials.role": lambda text: text in tuple(Role),
    "attempts.state": lambda text: text in _ENDS,
    "attempts.begun_at": _is_time,
    "attempts.started_at": _is_time,
    "attempts.ended_at": _is_time,
    "attempts.cause": lambda text: text in tuple(Cause),
    "attempts.share": lambda text: _is_plain(json.loads(text)),
}
"""What the text of a column must be, beyond text, by ``table.column``."""
