"""Whether, when and where a trial that failed is tried again: with more memory, or as often as the limits allow."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.execution.executor import Job, Machine, Place
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.faulty_places import FaultyPlaces
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import Failed
from orchestrator.trials.records import WHY_NOT_AGAIN, Cause
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

MAX_NODE_LOSSES = 20
"""How often a trial is tried again because its machine was lost: it may be the trial that brings machines down."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""How long a trial waits before it is tried again, at first and at most."""

PAUSE_FACTOR = 4.0
"""By how much longer it waits every further time."""

ELSEWHERE_S = 600.0
"""How long a trial that failed on a node waits for another one, if that is occupied."""

_MEMORY = (Cause.GPU_MEMORY, Cause.HOST_MEMORY)


@dataclass(frozen=True)
class Decision:
    """Whether a trial is tried again, and why, or why not, human-readable."""

    again: bool
    why: str


class RetryPolicy:
    """What decides on a failed trial. Losses of machines are counted apart: they are seldom the trial's fault."""

    def __init__(
        self, allocator: Allocator, limits: Limits, *, clock: Callable[[], float], warn: Callable[[str], object]
    ) -> None:
        """Take what the decisions rest on.

        Args:
            allocator: What gives trials more memory.
            limits: How often they may fail.
            clock: Seconds, monotonic.
            warn: Called with a line on each slot or node that is not used from now on.
        """
        self._allocator, self._limits, self._clock = allocator, limits, clock
        self._places = FaultyPlaces(clock, warn=warn)
        self._failures: defaultdict[str, set[int]] = defaultdict(set)
        self._raised: dict[str, str] = {}
        self._node_losses: Counter[str] = Counter()
        self._ready_s: dict[str, float] = {}
        self._failed_on: defaultdict[str, frozenset[str]] = defaultdict(frozenset)

    def decide(
        self,
        trial: Trial,
        job: Job,
        event: Failed,
        *,
        place: Place,
        machine_for: Callable[[ResourceRequest], Machine],
    ) -> Decision:
        """Return whether a trial that failed is tried again, and why.

        Args:
            trial: The trial.
            job: The attempt that failed.
            event: How it failed.
            place: Where.
            machine_for: Returns the machine on which trials run that occupy so much.
        """
        trial_id = event.trial_id
        if event.cause in _MEMORY:
            more = self._allocator.grow(
                trial, ran_with=job.share, ran_config=job.config, cause=event.cause, machine=machine_for(job.share)
            )
            if more:
                return Decision(True, f"with {more}")
        if event.cause is Cause.NODE:
            self._node_losses[trial_id] += 1
            number = self._node_losses[trial_id]
            return Decision(number <= MAX_NODE_LOSSES, _count(number, MAX_NODE_LOSSES))
        if event.cause in WHY_NOT_AGAIN:
            return Decision(False, WHY_NOT_AGAIN[event.cause])
        self._failures[trial_id].add(event.attempt)
        self._failed_on[trial_id] |= place.nodes
        for other_id, attempt in self._places.add_failure((trial_id, event.attempt), place, error=event.error):
            self._failures[other_id].discard(attempt)
        is_own = event.attempt in self._failures[trial_id]
        is_same = event.cause is Cause.RAISED and self._raised.get(trial_id) == event.error
        self._raised[trial_id] = event.error
        if is_own and is_same:
            return Decision(False, "it failed in the same way before")
        number, allowed = len(self._failures[trial_id]), self._limits.max_retries
        if number > allowed:
            return Decision(False, _count(number, allowed))
        pause_s = min(FIRST_PAUSE_S * PAUSE_FACTOR ** max(0, number - 1), LONGEST_PAUSE_S)
        self._ready_s[trial_id] = self._clock() + pause_s
        if not is_own:
            return Decision(True, "not counted as a retry, since others failed there too")
        return Decision(True, _count(number, allowed))

    def succeeded(self, place: Place) -> None:
        """Record that a trial ended well somewhere."""
        self._places.add_success(place)

    def is_ready(self, trial_id: str) -> bool:
        """Return whether a trial need not wait any longer before it is tried again."""
        return self._ready_s.get(trial_id, -math.inf) <= self._clock()

    def closed(self) -> frozenset[str]:
        """Return the ids of the slots and nodes that are not used now, since trial after trial failed there."""
        return self._places.closed()

    def failed_on(self, trial_id: str) -> frozenset[str]:
        """Return the ids of the nodes on which a trial failed: the next try goes to another one if it can."""
        is_long_ago = self._ready_s.get(trial_id, -math.inf) + ELSEWHERE_S <= self._clock()
        return frozenset() if is_long_ago else self._failed_on[trial_id]

    def next_s(self) -> float:
        """Return when a trial becomes ready, or a place is used again; infinite if nothing waits for that."""
        now_s = self._clock()
        return min((s for s in (*self._ready_s.values(), self._places.next_s()) if s > now_s), default=math.inf)

    def forget(self, trial_id: str) -> None:
        """Forget the failures of a trial: somebody asked for it again."""
        for known in (self._failures, self._raised, self._node_losses, self._ready_s, self._failed_on):
            known.pop(trial_id, None)


def _count(number: int, allowed: int) -> str:
    return f"retry {number} of {allowed}" if number <= allowed else f"it failed {number} times"
