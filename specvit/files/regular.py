"""Files that others may have put there: read only where they are files, and not pipes or devices.

Opening a named pipe waits until somebody writes to it, and a device may never end: a program that reads either where
it expected a file hangs. A folder that came from elsewhere can hold both, or links to them.

A link in a results folder could point anywhere, and what a run does to the files in such a place it would do there:
files of the user's would be emptied, replaced or deleted. The results folder itself may be a link, since its path is
the user's own.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from specvit.errors import SpecsweepError


def reject_symlink(path: Path) -> None:
    """Raise if a place that is written to and deleted from is a link; it need not exist.

    Raises:
        SpecsweepError: If it is one; the text names it and where it leads.
    """
    if path.is_symlink():
        raise SpecsweepError(
            f"{path}: must not be a link (it leads to {path.readlink()}), for this place is written to and deleted "
            "from; delete the link, or link the whole results folder"
        )


def open_regular(path: Path, flags: int, *, follow: bool = True) -> int:
    """Open a file, never waiting for anything; one that ``flags`` make is readable for all.

    Args:
        path: The file.
        flags: As of ``os.open``.
        follow: Whether a link in its place is followed; else it is refused.

    Returns:
        The descriptor, which the caller closes.

    Raises:
        OSError: If it cannot be opened, or is a folder, a pipe, a device or the like.
    """
    # Without O_NONBLOCK, opening a pipe would wait; of a file it changes nothing.
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, 0o644)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def read_regular(path: Path, *, most_bytes: int | None = None) -> bytes:
    """Return the content of a file; links to files are followed.

    Args:
        path: The file.
        most_bytes: Bytes that it may have; None = any number.

    Raises:
        OSError: If it cannot be read, is no file, or is larger.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        if most_bytes is None:
            return file.read()
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, "File too large", str(path))
    return content
