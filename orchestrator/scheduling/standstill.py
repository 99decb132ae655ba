"""A warning for whoever waits: nothing runs, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection

from orchestrator.scheduling.running import RunningAttempt
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

STANDSTILL_S = 60.0
"""Time without a running trial after which a warning says what the next one waits for."""


class Standstill:
    """Since when nothing runs although there is something to do, and when that was last told."""

    def __init__(
        self, clock: Callable[[], float], *, warn: Callable[[str], object], held_by_others: Callable[[], str]
    ) -> None:
        """Start with nothing to tell.

        Args:
            clock: Seconds, monotonic.
            warn: Called with the warnings.
            held_by_others: Returns what others hold of the machines, human-readable; empty if nothing.
        """
        self._clock, self._warn, self._held_by_others = clock, warn, held_by_others
        self._since_s: float | None = None

    def check(
        self,
        attempts: Collection[RunningAttempt],
        *,
        blocked: Trial | None,
        share_of: Callable[[Trial], ResourceRequest],
    ) -> None:
        """Warn, from time to time, of what is waited for, if nothing runs; call it again and again.

        Args:
            attempts: Those that run or are pending.
            blocked: The trial that comes next, if there is no room for it; None = nothing waits for room.
            share_of: Returns what a trial occupies.
        """
        now_s = self._clock()
        waits_for = blocked if not attempts else next(iter(attempts)).trial
        if waits_for is None or any(attempt.started_s is not None for attempt in attempts):
            self._since_s = None
        elif self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s > STANDSTILL_S:
            self._since_s = now_s
            why = "no worker has started for" if attempts else "there is no room for"
            others = self._held_by_others()
            text = f"nothing runs: {why} {waits_for.label}, which takes {share_of(waits_for)}"
            self._warn(f"{text}; {others}" if others else text)
