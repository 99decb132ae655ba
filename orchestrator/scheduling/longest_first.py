"""Which waiting trials must not wait any longer, if the run is to end as soon as its work allows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from orchestrator.scheduling.durations import TrialDurations
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

_SPREAD = 0.5
"""Trials may turn out longer than expected by this part: they count as urgent earlier by that, which costs nothing."""

_ALIKE = 1.2
"""Trials whose lengths differ by no more than this factor keep their order: noise is no reason to mix seeds."""

_FEW_SLOTS = 8
"""With fewer trials at once the end of a run is short as it is, and the order is kept to the last trial."""

_LEAST_STEP, _MOST_STEP = 0.01, 0.1
"""Parts of the time that is left after which to look again, at least and at most."""


class LongestFirst:
    """An order in which trials move forward that would end after all others if they waited any longer.

    Trials start in their order: seed after seed, so that there are tables early. Near the end that costs time: the
    last seed's long trials run on while most slots are idle. So a trial that may take as long as all that is left,
    by as many at once as there is room for, starts next. Until then, and among trials of about the same length, the
    order is kept.
    """

    def __init__(self, durations: TrialDurations, *, clock: Callable[[], float]) -> None:
        """Take what is known.

        Args:
            durations: How long trials take; it learns while the run goes on.
            clock: Seconds, monotonic.
        """
        self._durations, self._clock = durations, clock
        self._look_s = -math.inf

    @property
    def is_due(self) -> bool:
        """Return whether it is time to look: before, hardly a trial can have become urgent."""
        return self._clock() >= self._look_s

    def sorted(
        self,
        waiting: Sequence[Trial],
        *,
        running: Iterable[tuple[Trial, float]],
        share_of: Callable[[Trial], ResourceRequest],
        least_s: Callable[[Mapping[ResourceRequest, float]], float],
    ) -> Sequence[Trial]:
        """Return waiting trials in the order in which to start them: the urgent ones first, the longest first.

        Args:
            waiting: Those that may start, in their order.
            running: Those that run, and the seconds they have taken so far.
            share_of: Returns what a trial occupies.
            least_s: Returns how long work takes at least (see ``Executor``); only asked once all lengths are known.

        Returns:
            The trials; ``waiting`` itself if none is urgent.
        """
        lengths_s: list[float] = []
        for trial in waiting:
            length_s = self._durations.estimate(trial.group_id, trial.role, trial.arm_id)
            if length_s is None:
                return waiting
            lengths_s.append(length_s)
        work = self._work(waiting, lengths_s, list(running), share_of)
        left_s = least_s(work)
        if sum(work.values()) < _FEW_SLOTS * left_s:
            return waiting
        # Once there is no more room, a run ends after its work by as many as there is room for; a trial that takes
        # longer must not wait, since it alone would run on in the end. What is shorter can be fitted in anywhere.
        bound_s = left_s / (1 + _SPREAD)
        next_s = max((length_s for length_s in lengths_s if length_s < bound_s), default=0.0)
        # A trial becomes urgent when what is left falls below its length, so the longest that is not decides when to
        # look again: sorting thousands of trials with every event would take most of the driver's time.
        # What is left shrinks no faster than time passes; but a trial may turn out to be longer than its like.
        step_s = min(left_s - next_s * (1 + _SPREAD), left_s * _MOST_STEP)
        self._look_s = self._clock() + max(step_s, left_s * _LEAST_STEP)
        longest_s = max(lengths_s, default=0.0)
        if longest_s < bound_s or not longest_s:
            return waiting
        # Sorting is stable: what is not urgent follows in its order.
        ranks = [_rank(longest_s / length_s) if length_s >= bound_s else math.inf for length_s in lengths_s]
        return [waiting[place] for place in sorted(range(len(waiting)), key=ranks.__getitem__)]

    def _work(
        self,
        waiting: Sequence[Trial],
        lengths_s: list[float],
        running: Sequence[tuple[Trial, float]],
        share_of: Callable[[Trial], ResourceRequest],
    ) -> Mapping[ResourceRequest, float]:
        """Return the seconds that are left by share; learn from what runs that its arms take at least so long."""
        known_s: dict[str, float] = {}
        work: defaultdict[ResourceRequest, float] = defaultdict(float)
        for trial, done_s in running:
            known_s[trial.arm_id] = max(done_s, known_s.get(trial.arm_id, 0.0))
            length_s = self._durations.estimate(trial.group_id, trial.role, trial.arm_id) or 0.0
            work[share_of(trial)] += max(0.0, length_s - done_s)
        for place, trial in enumerate(waiting):
            lengths_s[place] = max(lengths_s[place], known_s.get(trial.arm_id, 0.0))
            work[share_of(trial)] += lengths_s[place]
        return work


def _rank(shorter: float) -> int:
    """Return the place among the urgent trials of one that is shorter than the longest by a factor."""
    return math.floor(math.log(shorter) / math.log(_ALIKE))
