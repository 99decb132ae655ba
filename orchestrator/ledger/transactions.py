"""How things are put on record: all that belongs together at once, or nothing of it, and in the file that was opened.

SQLite goes on writing, in silence, into a file that was deleted: a guard looks before and after every transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.ledger.errors import LedgerWriteError, translate_sqlite_errors
from orchestrator.ledger.progress_buffer import ProgressBuffer
from orchestrator.ledger.reader import LedgerReader

_Identity = tuple[int, int] | None

LEFT_LOG_SUFFIX = ".left"
"""Appended to the name of a log whose ledger was replaced by another file."""


class FileGuard:
    """The files that a writer has opened, and whether others stand in their places."""

    def __init__(self, path: Path) -> None:
        """Look at the ledger and the files beside it, which must be open already."""
        self._path = path
        self._files = [path, *(path.with_name(f"{path.name}-{kind}") for kind in ("wal", "shm"))]
        self._opened = [_identity(file) for file in self._files]

    def check(self) -> None:
        """Make sure that what is written goes into the files that others see.

        A log that would now lie beside a ledger that is not its own is set aside: SQLite would read it into that one.

        Raises:
            LedgerWriteError: If one of the files was deleted, moved or replaced.
        """
        found = [_identity(file) for file in self._files]
        if found == self._opened:
            return
        if found[0] is not None and found[0] != self._opened[0] and found[1] == self._opened[1] is not None:
            log = self._files[1]
            with suppress(OSError):
                log.rename(log.with_name(log.name + LEFT_LOG_SUFFIX))
        number = next(number for number, identity in enumerate(self._opened) if found[number] != identity)
        happened = "was deleted or moved" if found[number] is None else "was replaced by another file"
        raise LedgerWriteError(
            f"{self._files[number]}: {happened} while the sweep was running, which therefore stops; nothing was "
            f"written to what is there now. Bring the file back, if there is a copy, and run the same command again"
        )


class LedgerTransactions(LedgerReader):
    """Write to the record of one sweep in transactions; what is written is said in ``orchestrator.ledger.ledger``."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, follows: bool = False) -> None:
        super().__init__(connection, path, follows=follows)
        self._place = FileGuard(path)
        self._is_stopped = False
        self._progress = ProgressBuffer()

    def close(self) -> None:
        """Write what is pending and close the file. Safe to call twice."""
        try:
            if not self._is_stopped:  # what could not be written before is not tried again, to fail another time
                self._flush_progress()
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _before_reading(self) -> None:
        self._flush_progress()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Put everything that is recorded in this context on record at its end, at once or not at all.

        Raises:
            LedgerWriteError: If the disk is full, the file is read-only or not the one that was opened, or the like.
            LedgerError: If it cannot be put on record for another reason.
        """
        if self._connection.in_transaction:
            yield
            return
        with self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make the statements in this context one transaction; pending progress goes along."""
        try:
            with translate_sqlite_errors(self._path, writing=True):
                self._place.check()
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._progress.write(self._connection)
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise
            self._place.check()
        except LedgerWriteError:
            self._is_stopped = True
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            # A disk that did not take the transaction may refuse this too; nothing of it is on record either way.
            with suppress(sqlite3.OperationalError):
                self._connection.execute("ROLLBACK")

    def _flush_progress(self) -> None:
        if self._progress:
            with self.transaction():
                pass


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
