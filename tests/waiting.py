"""Waiting in tests for what others do, on machines that are busy.

A machine with other things to do is slower by any factor, so no test may wait for a number of seconds by the clock on
the wall. It waits for as long as something moves, by one of these:

* ``wait_for(condition)`` for a condition that another process or thread brings about;
* ``wait_for_end(process)`` for a process that was started, and what it prints into pipes;
* ``run_to_end(command, ..)`` in place of ``subprocess.run(.., timeout=..)``;
* ``event.wait(LIMIT_S)`` for an event of ``threading``.

All fail if nothing moves for ``PATIENCE_S``. What moves is told by ``making_progress``: a function whose value changes
with progress, for example a count of rows, of events or of files. Without it the CPU time of the other threads of this
process and of all processes below it counts, if it grows by a few percent of a core; say what moves where processes
that do nothing use up more than that, or where those that are waited for are no descendants.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0
"""Seconds without progress after which a wait fails."""

LEAST_CPU_S = 2.0
"""CPU seconds within ``PATIENCE_S`` that are progress: more than idle daemons take, less than what a process gets that
shares a core with twenty others."""

LIMIT_S = 1200.0
"""Seconds after which a wait fails whatever moves: what is waited for runs round in circles."""

LOOK_PERIOD_S = 1.0
_CPU_FIELDS = slice(11, 15)
"""Of ``/proc/PID/stat``, counted behind the name: user and system time, own and of children that have ended."""


class StalledError(AssertionError):
    """A wait during which nothing moved."""


def wait_for(
    condition: Callable[[], T],
    *,
    making_progress: Callable[[], object] | None = None,
    patience_s: float | None = None,
    period_s: float = 0.01,
) -> T:
    """Return what ``condition`` returns as soon as that is true.

    Args:
        condition: Looks whether what is waited for has come; may fail an assertion that rules it out.
        making_progress: Returns a value that changes as long as it may still come; None = CPU time is looked at.
        patience_s: Seconds without progress after which the wait fails, more than it itself may take for a time-out of
            what is waited for; None = ``PATIENCE_S``.
        period_s: Seconds between two looks.

    Raises:
        StalledError: If nothing has moved for too long.
    """
    progress = _Progress(making_progress, patience_s)
    while not (value := condition()):
        progress.check()
        time.sleep(period_s)
    return value


def wait_for_end(
    process: subprocess.Popen[Any], *, making_progress: Callable[[], object] | None = None
) -> tuple[Any, Any]:
    """Return what a process wrote into its pipes by its end; None for a stream that is no pipe."""
    progress = _Progress(making_progress)
    while True:
        try:
            return process.communicate(timeout=LOOK_PERIOD_S)
        except subprocess.TimeoutExpired:
            progress.check()


def run_to_end(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and return how it ended and what it printed; ``options`` are those of ``Popen``."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*map(str, command)], **pipes | options) as process:
        try:
            out, err = wait_for_end(process)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class _Progress:
    """What has moved since when."""

    def __init__(self, making_progress: Callable[[], object] | None, patience_s: float | None = None) -> None:
        self._read = making_progress
        self._patience_s = patience_s or PATIENCE_S
        self._begun_s = self._moved_s = self._looked_s = time.monotonic()
        self._last: object = None if making_progress is None else making_progress()
        self._cpu_s = cpu_seconds() if making_progress is None else 0.0

    def check(self) -> None:
        """Raise if nothing has moved for too long."""
        now_s = time.monotonic()
        if now_s < self._looked_s + LOOK_PERIOD_S:
            return
        self._looked_s = now_s
        if self._has_moved():
            self._moved_s = now_s
        if now_s > min(self._moved_s + self._patience_s, self._begun_s + LIMIT_S):
            raise StalledError(
                f"it did not come: waited for {now_s - self._begun_s:.0f} s, and saw nothing move for "
                f"{now_s - self._moved_s:.0f} s; last seen: {self._last if self._read else f'{self._cpu_s:.1f} CPU s'}"
            )

    def _has_moved(self) -> bool:
        if self._read is not None:
            before, self._last = self._last, self._read()
            return self._last != before
        cpu_s = cpu_seconds()
        # Processes that have ended are gone from the sum, so any change counts.
        has_moved = abs(cpu_s - self._cpu_s) >= LEAST_CPU_S
        if has_moved:
            self._cpu_s = cpu_s
        return has_moved


def cpu_seconds() -> float:
    """Return the CPU time of all threads of this process but this one, and of all processes below it."""
    ticks: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        children[int(fields[1])].append(int(path.name))
        ticks[int(path.name)] = sum(map(int, fields[_CPU_FIELDS]))
    below, left = 0, list(children[os.getpid()])
    while left:
        pid = left.pop()
        below += ticks[pid]
        left += children[pid]
    return below / os.sysconf("SC_CLK_TCK") + time.process_time() - time.thread_time()
