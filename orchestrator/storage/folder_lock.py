"""One driver to a results folder: a lock that the kernel gives back, however its holder ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from specvit.errors import SpecsweepError
from specvit.files.regular import open_regular, read_regular
from specvit.messages import one_line

LOCK_NAME = "lock"
"""The file, in the folder of a sweep's results."""

_ASKED_S = 5.0
"""Longest wait for processes that only ask whether a folder is held: each takes a moment."""

_MOST_BYTES = 4096
"""Room for what a holder writes about itself, and for more."""

_LONGEST_TEXT = 100


class LockedError(SpecsweepError):
    """A folder that another process is working on; the text says which process."""


class CannotLockError(LockedError):
    """A folder on a file system that has no locks."""


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Lock ``folder`` for this process as long as the context is open.

    The file ``lock`` says who holds it; it stays behind, and alone it locks nothing. The lock is
    ``flock``'s: it ends with the process, also after kill -9, and programs that the process starts do not
    inherit it.

    Args:
        folder: Folder to hold; made if it does not exist.

    Raises:
        LockedError: If another process holds it, or if the folder cannot be locked at all; a ``CannotLockError`` if its
            file system has no locks.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The file is emptied below: behind a link, that would be a file of the user's own.
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, follow=False)
    except OSError as error:
        if path.is_symlink():
            raise LockedError(f"{path}: must not be a link (it leads to {path.readlink()}); delete it") from error
        raise LockedError(f"{path}: cannot be opened for writing ({error.strerror})") from error
    try:
        _acquire(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _holder(), 0)
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Return whether a process holds ``folder`` now; True where that cannot be found out."""
    try:
        descriptor = open_regular(folder / LOCK_NAME, os.O_RDONLY, follow=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(descriptor: int, path: Path) -> None:
    until_s = time.monotonic() + _ASKED_S
    try:
        while not _is_granted(descriptor, fcntl.LOCK_EX):
            # Whoever asks (``is_held``) shares the lock for a moment; with a holder nobody can share it.
            if not _is_granted(descriptor, fcntl.LOCK_SH) or time.monotonic() > until_s:
                raise LockedError(f"{path.parent} is in use by {_describe(path)}; wait for it or stop it")
            time.sleep(0.001)
    except OSError as error:
        raise CannotLockError(f"{path}: this file system cannot lock files ({error.strerror})") from error


def _is_granted(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder() -> bytes:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()


def _describe(path: Path) -> str:
    """Return who holds the lock, from what the holder wrote about itself."""
    try:
        holder = json.loads(read_regular(path, most_bytes=_MOST_BYTES))
        # Anyone who can write to the folder can write this: it has to stay one message.
        pid, host, since = (one_line(str(holder[key]))[:_LONGEST_TEXT] for key in ("pid", "host", "since"))
        return f"process {pid} on {host} (since {since})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process that has not yet said who it is"
