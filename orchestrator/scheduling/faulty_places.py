"""Which slots and nodes are not used for a while, since trial after trial failed there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from orchestrator.execution.executor import Place

SLOT_FAILURES, NODE_FAILURES = 2, 3
"""Different trials that have to fail in a row, on a slot and on a node, before it is not used for a while."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""For how long at first, and at most: every further failure, once it is used again, doubles the time."""

Failure = tuple[str, int]
"""A trial, and the number of its attempt."""


@dataclass
class _Streak:
    """The failures on a slot or node since a trial ended well there.

    Attributes:
        trials: The trials that failed.
        failures: Those of their failures that are not known to be the place's fault.
        pause_s: For how long the place is not used next.
        until_s: Until when it is not used now.
    """

    trials: set[str] = field(default_factory=set)
    failures: set[Failure] = field(default_factory=set)
    pause_s: float = FIRST_PAUSE_S
    until_s: float = -math.inf


class FaultyPlaces:
    """The slots and nodes on which trials fail one after the other: a broken driver, a full disk, a lost mount.

    A place that was not used for a while gets another chance, for what it lacked may be back.
    """

    def __init__(self, clock: Callable[[], float], *, warn: Callable[[str], object]) -> None:
        """Start without a failure.

        Args:
            clock: Seconds, monotonic.
            warn: Called with a line on each place that is not used from now on.
        """
        self._clock, self._warn = clock, warn
        self._streaks: dict[str, _Streak] = {}

    def add_failure(self, failure: Failure, place: Place, *, error: str) -> frozenset[Failure]:
        """Record that an attempt failed.

        Args:
            failure: The attempt.
            place: Where it ran.
            error: Why, in a line.

        Returns:
            Failures, this one perhaps among them, that turn out to be the fault of a place, not of the trials.
        """
        found: set[Failure] = set()
        for name, limit in _limits(place):
            streak = self._streaks.setdefault(name, _Streak())
            streak.trials.add(failure[0])
            streak.failures.add(failure)
            if len(streak.trials) < limit:
                continue
            if streak.until_s <= self._clock():
                what = name if name == place.slot else f"node {name[:12]}"
                self._warn(
                    f"{what} is not used for {streak.pause_s:g} s: the last {len(streak.trials)} trials failed there, "
                    f"at last by {error}"
                )
                streak.until_s = self._clock() + streak.pause_s
                streak.pause_s = min(2 * streak.pause_s, LONGEST_PAUSE_S)
            found |= streak.failures
            streak.failures.clear()
        return frozenset(found)

    def add_success(self, place: Place) -> None:
        """Record that a trial ended well."""
        for name, _ in _limits(place):
            self._streaks.pop(name, None)

    def closed(self) -> frozenset[str]:
        """Return the ids of the slots and nodes that are not used now."""
        now_s = self._clock()
        return frozenset(name for name, streak in self._streaks.items() if streak.until_s > now_s)

    def next_s(self) -> float:
        """Return when one of them is used again; infinite if all are."""
        now_s = self._clock()
        return min((streak.until_s for streak in self._streaks.values() if streak.until_s > now_s), default=math.inf)


def _limits(place: Place) -> Iterator[tuple[str, int]]:
    if place.slot:
        yield place.slot, SLOT_FAILURES
    for node in place.nodes:
        yield node, NODE_FAILURES
