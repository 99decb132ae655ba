"""How far running attempts are: what changes too often to be written to the ledger each time."""

from __future__ import annotations

import sqlite3
import time

from orchestrator.trials.events import Progressed

PERIOD_S = 1.0
"""Time after which progress is written although nothing else is."""


class ProgressBuffer:
    """The newest progress of every running attempt, and since when a worker runs it by this process's clock."""

    def __init__(self) -> None:
        """Make an empty buffer."""
        self._newest: dict[str, Progressed] = {}
        self._begun_s: dict[str, float] = {}
        self._written_s = time.monotonic()

    def __bool__(self) -> bool:
        """Return whether there is something to write."""
        return bool(self._newest)

    def begin(self, trial_id: str) -> None:
        """Record that a worker has started an attempt at a trial."""
        self._begun_s[trial_id] = time.monotonic()

    def forget(self, trial_id: str) -> None:
        """Record that another attempt at a trial is to come."""
        self._begun_s.pop(trial_id, None)

    def held_s(self, trial_id: str) -> float:
        """Return the seconds since a worker started the attempt at a trial; 0 if none has, or another process knows."""
        begun_s = self._begun_s.get(trial_id)
        return 0.0 if begun_s is None else time.monotonic() - begun_s

    def note(self, event: Progressed) -> bool:
        """Record progress; return whether it is time to write."""
        self._newest[event.trial_id] = event
        return time.monotonic() - self._written_s >= PERIOD_S

    def write(self, connection: sqlite3.Connection) -> None:
        """Write what is pending, inside the caller's transaction."""
        connection.executemany(
            "UPDATE attempts SET step = ?, steps = ?, images_per_s = ?, held_s = ? "
            "WHERE trial_id = ? AND attempt = ? AND state = 'running'",
            [
                (e.step, e.steps, e.images_per_s, self.held_s(e.trial_id), e.trial_id, e.attempt)
                for e in self._newest.values()
            ],
        )
        self._newest.clear()
        self._written_s = time.monotonic()
