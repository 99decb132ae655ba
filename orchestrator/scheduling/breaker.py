"""When a run is stopped since everything fails: to go on would only use up what trials are allowed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from orchestrator.trials.events import Failed
from specvit.errors import SpecsweepError

MIN_ATTEMPTS = 10
"""Least number of attempts that have to fail in a row."""

MIN_TRIALS = 3
"""Of how many trials they have to be, at least."""

OUTAGE_S = 300.0
"""How long everything has to fail: what is away for less comes back by itself, and its trials go on."""

_SHOWN = 3


class EverythingFailsError(SpecsweepError):
    """A run in which one attempt after the other failed; the text says how many, and why."""


class Breaker:
    """What counts failures in a row, of all trials everywhere."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start without a failure.

        Args:
            clock: Seconds, monotonic.
        """
        self._clock = clock
        self.add_success()

    def add_failure(self, event: Failed, *, is_given_up: bool) -> None:
        """Record that an attempt failed, and whether its trial is given up."""
        if not self._errors:
            self._since_s = self._clock()
        self._errors[event.error] += 1
        self._trials.add(event.trial_id)
        self._num_given_up += is_given_up

    def add_success(self) -> None:
        """Record that a trial ended well."""
        self._errors: Counter[str] = Counter()
        self._trials: set[str] = set()
        self._num_given_up = 0
        self._since_s = math.inf

    def check(self, *, oldest_s: float) -> None:
        """Raise if everything fails.

        Args:
            oldest_s: When the oldest attempt that runs now was begun; infinite if none runs.

        Raises:
            EverythingFailsError: If so many attempts failed in a row, none that was begun before them still runs,
                and either it has gone on for long, or as many trials have been given up.
        """
        num_failed = self._errors.total()
        if num_failed < MIN_ATTEMPTS or len(self._trials) < MIN_TRIALS or oldest_s < self._since_s:
            return
        if self._num_given_up >= MIN_ATTEMPTS or self._clock() - self._since_s >= OUTAGE_S:
            reasons = [f"{error} ({count} times)" for error, count in self._errors.most_common(_SHOWN)]
            more = len(self._errors) - len(reasons)
            tail = f"; {more} other errors" if more else ""
            raise EverythingFailsError(f"the last {num_failed} attempts all failed: {'; '.join(reasons)}{tail}")
