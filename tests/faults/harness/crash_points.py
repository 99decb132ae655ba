"""The places where a driver can be made to die: around what it commits, and around what it moves or deletes.

Nothing in the program knows of them: SQLite's connection and ``pathlib`` are wrapped from outside, in a process that
was forked for it.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

Place = tuple[str, int]
"""Thread (``driver`` or ``worker``) and number of a point in it, from 1: each thread comes by its points in order."""

DIGITS_OF_ID = 64


class CrashPoints:
    """Count the points that a process comes by, and kill it at one of them."""

    def __init__(self, folder: Path, *, kill_at: Place | None, all_statements: bool = False) -> None:
        """Put the points into this process.

        Args:
            folder: Where files are watched.
            kill_at: Where to die; None = nowhere.
            all_statements: Whether every statement that the ledger executes is a point too.
        """
        self.names: dict[Place, str] = {}
        self._folder = str(folder)
        self._kill_at = kill_at
        self._all_statements = all_statements
        self._counts: Counter[str] = Counter()
        self._watch_connections()
        for method in ("replace", "unlink", "rmdir"):
            self._watch_files(method)

    def _come_by(self, name: str) -> None:
        thread = "driver" if threading.current_thread() is threading.main_thread() else "worker"
        self._counts[thread] += 1
        place = thread, self._counts[thread]
        self.names[place] = name
        if place == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _around(self, name: str, act: Callable[[], Any]) -> Any:
        self._come_by(f"before {name}")
        result = act()
        self._come_by(f"after {name}")
        return result

    def _watch_connections(self) -> None:
        points = self

        class Connection(sqlite3.Connection):
            writes = False

            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                act = super().execute
                verb = sql.split(maxsplit=1)[0]
                if verb == "BEGIN":
                    self.writes = sql == "BEGIN IMMEDIATE"
                if self.writes and (verb == "COMMIT" or (points._all_statements and verb not in ("PRAGMA", "SELECT"))):
                    result: sqlite3.Cursor = points._around(
                        f"{verb} of {_caller()}", lambda: act(sql, *parameters)
                    )
                    return result
                return act(sql, *parameters)

            def __exit__(self, *error: Any) -> Any:
                act = super().__exit__
                if self.in_transaction and error[0] is None:
                    return points._around("COMMIT of the schema", lambda: act(*error))
                return act(*error)

        connect = sqlite3.connect

        def watched(database: Any, **options: Any) -> sqlite3.Connection:
            return connect(database, **options, factory=Connection)

        sqlite3.connect = watched  # type: ignore[assignment]

    def _watch_files(self, method: str) -> None:
        points, act = self, getattr(pathlib.Path, method)

        def watched(path: Path, *arguments: Any, **options: Any) -> Any:
            # What was moved away is "deleted" once more: nothing happens there.
            if not str(path).startswith(points._folder) or not path.exists():
                return act(path, *arguments, **options)
            subject = arguments[0] if method == "replace" else path
            kind = subject.suffix if len(subject.stem) == DIGITS_OF_ID else subject.name
            return points._around(f"{method} {kind}", lambda: act(path, *arguments, **options))

        setattr(pathlib.Path, method, watched)


def _caller() -> str:
    """Return the outermost of the ledger's methods that is at work."""
    frame: FrameType | None = sys._getframe()
    name = "?"
    while frame is not None:
        if frame.f_code.co_filename.endswith("ledger.py"):
            name = frame.f_code.co_name
        frame = frame.f_back
    return name
