"""How far a long load is: a line in the log every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LOGGER = logging.getLogger("specvit.data")
"""Where loading is logged, at level INFO."""

INTERVAL_S = 5.0
"""Least time between two lines; a load that takes less is not logged."""


class Progress:
    """A count of items done, logged every few seconds."""

    def __init__(self, what: str, total: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start counting.

        Args:
            what: What the items are, e.g. "images of train".
            total: How many there are; None = not known.
            clock: Seconds, monotonic.
        """
        self._what = what
        self._of = "" if total is None else f" of {total:,}"
        self._clock = clock
        self._started = self._logged_s = clock()

    def update(self, done: int) -> None:
        """Record that ``done`` items are done."""
        now = self._clock()
        if now - self._logged_s < INTERVAL_S:
            return
        self._logged_s = now
        rate = done / (now - self._started)
        LOGGER.info("read %s%s %s, %s a second", f"{done:,}", self._of, self._what, f"{rate:,.0f}")
