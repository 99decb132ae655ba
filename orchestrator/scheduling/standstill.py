"""A warning for whoever waits: nothing runs, and why."""

from __future__ import annotations

from collections.abc import Callable

STANDSTILL_S = 60.0
"""Time without a running trial after which a warning says what the next one waits for."""


class Standstill:
    """Since when nothing runs although trials wait, and when that was last told."""

    def __init__(self, clock: Callable[[], float], *, warn: Callable[[str], object]) -> None:
        """Start with nothing to tell.

        Args:
            clock: Seconds, monotonic.
            warn: Called with the warnings.
        """
        self._clock, self._warn = clock, warn
        self._since_s: float | None = None

    def end(self) -> None:
        """Record that something runs."""
        self._since_s = None

    def warn(self, what: str) -> None:
        """Warn, from time to time, of what is waited for; call it again and again while that lasts."""
        now_s = self._clock()
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._since_s > STANDSTILL_S:
            self._since_s = now_s
            self._warn(f"nothing runs: {what}")
