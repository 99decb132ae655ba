"""Commands on results that came from strangers, and what strangers write into them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from orchestrator.ledger.checksums import create_checksums

HOSTILE = "[red]x[/red] \x1b[31m\x1b]0;title\x07 \x9b2J | `touch mark` <script>f()</script> \u202e $\\frac{$ [a](b)"
LOOKS: tuple[tuple[str, ...], ...] = (
    *(("status",), ("table",), ("logs",), ("logs", "@"), ("events",), ("curves",)),
    ("report", "--no-figures"),
    *(("table", "--format", form) for form in ("md", "latex", "html", "csv", "json")),
)
"""Commands that look at results; ``@`` stands for the trial's id."""

Command = Callable[..., subprocess.CompletedProcess[str]]


def run_sweep(command: Command) -> subprocess.CompletedProcess[str]:
    return command("run", "tiny.yaml", "--executor", "local")


def look(command: Command, results: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run every command that looks at results."""
    # Not as any of our connections: this one looks at nothing beside the file.
    address = f"{(results / 'ledger.sqlite').as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            (trial_id,) = connection.execute("SELECT trial_id FROM trials").fetchone()
    except (sqlite3.Error, TypeError):
        trial_id = "none"
    asked = [(look[0], results, *(str(trial_id) if part == "@" else part for part in look[1:])) for look in LOOKS]
    asked += [("export", "optuna", results, f"{os.urandom(4).hex()}.db"), ("plan", "tiny.yaml")]
    return [command(*arguments) for arguments in asked]


def forge(path: Path, *statements: str, sealed: bool = True) -> None:
    """Change a ledger as a stranger can, who knows how checksums are made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement)
        if sealed:
            connection.execute("DELETE FROM checksums")
            create_checksums(connection)
