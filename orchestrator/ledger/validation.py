"""What the values of a ledger must be: checked as it is opened, so that whatever reads them can rely on it.

A ledger that came from others may hold text where numbers belong, or JSON of another shape, and every command would end
in a trace. Metrics and configurations, of which there are many, are checked as they are read.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Collection, Mapping

from orchestrator.ledger.encoding import decode_names, decode_provenance, decode_seeds, decode_share
from orchestrator.ledger.errors import UnfitValueError
from orchestrator.ledger.schema import PROTECTED_TABLES, SCHEMA

_SHOWN = 60
_TABLE = re.compile(r"CREATE TABLE (\w+) \((.*?)^\)", re.DOTALL | re.MULTILINE)
_COLUMN = re.compile(r"^    (\w+) .*CHECK (\(.*\))", re.MULTILINE)
_LISTS: Mapping[str, Callable[[str], object]] = {
    "metrics FROM sweep": decode_names,
    "seeds FROM sweep": decode_seeds,
    "provenance FROM runs": decode_provenance,
    "share FROM attempts": decode_share,
}


def check_values(connection: sqlite3.Connection, tables: Collection[str] = (*PROTECTED_TABLES, "checksums")) -> None:
    """Check every value of a ledger by the rule of its column, and lists by what is in them.

    Args:
        connection: To a ledger of today's schema, inside the caller's transaction or outside any.
        tables: The tables whose values are checked.

    Raises:
        UnfitValueError: If a value is not what its column is for; the text names the column.
    """
    for table, columns in _TABLE.findall(SCHEMA):
        for column, rule in _COLUMN.findall(columns) if table in tables else ():
            shown = f"substr(CAST({column} AS TEXT), 1, {_SHOWN})"
            found = connection.execute(f"SELECT {shown} FROM main.{table} WHERE NOT {rule} LIMIT 1").fetchone()
            if found is not None:
                raise UnfitValueError(
                    f"{column} in its table {table} is {found[0]!r}, which specsweep never writes there"
                )
    for place, decode in _LISTS.items():
        if place.rpartition(" ")[2] not in tables:
            continue
        for (text,) in connection.execute(f"SELECT DISTINCT {place}"):
            decode(text)
