"""Where a ledger lies while its writer runs: SQLite goes on writing, in silence, into a file that was deleted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from orchestrator.ledger.errors import LedgerWriteError

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


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
