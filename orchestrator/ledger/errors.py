"""What goes wrong with a ledger's file, in words that a user can act on."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specvit.errors import SpecsweepError

_RUN_AGAIN = "and run the same command again; all that was recorded before is there"
_NO_ROOM = f"the disk is full; make room {_RUN_AGAIN}"
_STOPS = {
    sqlite3.SQLITE_FULL: _NO_ROOM,
    sqlite3.SQLITE_IOERR: f"the disk does not take it; see to the disk {_RUN_AGAIN}",
    sqlite3.SQLITE_READONLY: f"the file is read-only, or its folder is; make both writable {_RUN_AGAIN}",
    sqlite3.SQLITE_PERM: f"the file is read-only, or its folder is; make both writable {_RUN_AGAIN}",
    sqlite3.SQLITE_CANTOPEN: f"the file, or one beside it, cannot be opened; make both writable {_RUN_AGAIN}",
    sqlite3.SQLITE_BUSY: f"another program keeps it locked; end that program {_RUN_AGAIN}",
}
"""SQLite's primary result code to what happened and what to do."""

_PRIMARY_CODE = 0xFF
"""The part of SQLite's extended result codes that names the kind."""

_LITTLE_ROOM_BYTES = 1 << 16


class LedgerError(SpecsweepError):
    """A ledger that cannot be used; the text names the file and what is wrong with it."""


class LedgerWriteError(LedgerError):
    """A record that could not be written; the text names the file, the cause and what to do.

    What was recorded before is in the file. The ledger itself is sound: the same command goes on once the
    cause is gone.
    """


class UnfitValueError(ValueError):
    """A value that its column is not for; ``translate_sqlite_errors`` says in which ledger."""


def damaged(path: Path, finding: str) -> LedgerError:
    """Return the error that tells of a damaged ledger and what can be done."""
    return LedgerError(
        f"{path}: the ledger is damaged, or was changed by another program: {finding}. "
        "Bring back a copy of the file, or move it away and run the sweep again"
    )


@contextmanager
def translate_sqlite_errors(path: Path, *, writing: bool = False) -> Iterator[None]:
    """Turn what SQLite raises in this context into a LedgerError that names ``path``.

    Args:
        path: The ledger.
        writing: Whether the context writes: what keeps it from that is a LedgerWriteError.
    """
    try:
        yield
    except UnicodeDecodeError as error:  # what SQLite says of a damaged schema quotes it, byte by byte
        raise LedgerError(f"{path}: the ledger cannot be used (malformed database schema)") from error
    except UnfitValueError as error:
        raise LedgerError(f"{path}: the ledger cannot be used: {error}") from error
    except (sqlite3.DatabaseError, OverflowError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
        if not writing or code not in _STOPS:
            raise LedgerError(f"{path}: the ledger cannot be used ({error})") from error
        # The index of the log is a mapped file: where there is no room for it, SQLite tells of bad input and output.
        text = _NO_ROOM if code == sqlite3.SQLITE_IOERR and not _has_room(path) else _STOPS[code]
        raise LedgerWriteError(f"{path}: cannot be written ({error}): {text}") from error


def _has_room(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return True
    return disk.f_bavail * disk.f_frsize > _LITTLE_ROOM_BYTES
