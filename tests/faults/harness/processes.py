"""Processes of this machine, from Linux's /proc: who runs, of whom they are children, and what they are called."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def command_of(pid: int) -> str:
    """Return a process's command line, or the title that it has given itself; empty if it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Tell whether a process runs, or could: one that has ended and is not yet waited for does not."""
    return _stat(pid)[0] not in ("", "Z", "X")


def parent_of(pid: int) -> int:
    """Return the id of a process's parent; 0 if the process is gone."""
    return int(_stat(pid)[1] or 0)


def descendants_of(pid: int) -> set[int]:
    """Return the ids of the processes that a process has started, and that these have started."""
    parents = {other: parent_of(other) for other in _all()}
    found: set[int] = set()
    new = {pid}
    while new:
        new = {other for other, parent in parents.items() if parent in new} - found
        found |= new
    return found


def named(text: str) -> set[int]:
    """Return the ids of the processes whose command line contains a text."""
    return {pid for pid in _all() if text in command_of(pid)}


def kill(pid: int) -> None:
    """End a process at once, if it is there still."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _all() -> list[int]:
    return [int(path.name) for path in PROC.glob("[0-9]*")]


def _stat(pid: int) -> tuple[str, str]:
    """Return a process's state and the id of its parent; empty if it is gone."""
    try:
        # The name, in brackets, can hold anything.
        state, parent, *_ = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return state, parent
