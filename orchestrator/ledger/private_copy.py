"""A ledger that nobody writes to, read from a copy in memory, so that no file is left beside it.

SQLite makes two files beside a ledger that it opens, ``-wal`` and ``-shm``, and a reader cannot delete them again. They
are the reader's own: in a folder that a group shares, the next run of the ledger's owner could not write to them. While
a run is going on, its own two files are there, and nothing is made.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

Signature = tuple[tuple[int, int, int] | None, ...]
"""Number, bytes and time of change of the files of a ledger; None for one that is not there."""

_TRIES = 10


def signature_of(path: Path) -> Signature:
    """Return what tells whether a ledger has been written to: of the file, and of its log."""
    return tuple(_stamp(file) for file in (path, _beside(path, "wal")))


def is_open_elsewhere(path: Path) -> bool:
    """Return whether both files are there that SQLite makes: a writer has the ledger open, or was killed."""
    return _beside(path, "wal").exists() and _beside(path, "shm").exists()


def copy_to_memory(path: Path) -> sqlite3.Connection | None:
    """Return a copy of a ledger as it is now, its log read in; None if a writer has it open.

    Raises:
        sqlite3.DatabaseError: If it is no SQLite file.
        OSError: If it cannot be read.
    """
    for _ in range(_TRIES):
        if is_open_elsewhere(path):
            return None
        before = signature_of(path)
        copy = sqlite3.connect(":memory:", isolation_level=None)
        try:
            _fill(copy, path, with_log=before[1] is not None and before[1][1] > 0)
            if signature_of(path) == before:
                return copy
        except BaseException:
            copy.close()
            raise
        copy.close()
    return None


def _fill(copy: sqlite3.Connection, path: Path, *, with_log: bool) -> None:
    if not with_log:
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as source:
            source.backup(copy)
        return
    with tempfile.TemporaryDirectory(prefix="specsweep-ledger-") as folder:
        target = Path(folder, path.name)
        shutil.copyfile(path, target)
        shutil.copyfile(_beside(path, "wal"), _beside(target, "wal"))
        with closing(sqlite3.connect(target)) as source:
            source.backup(copy)


def _beside(path: Path, kind: str) -> Path:
    real = path.resolve()  # SQLite follows a link first
    return real.with_name(f"{real.name}-{kind}")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
