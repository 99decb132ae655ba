"""What asks a cluster for room for the trials that are left: an autoscaler starts nodes, and lets go of others."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.trials.events import END_STATES, Event
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

PERIOD_S = 10.0
"""Least time between two words to the autoscaler."""


class Demand(SweepCallback):
    """The room that the trials of a run could use at once, told whenever it changes; at the end of the run none."""

    def __init__(
        self,
        trials: Sequence[Trial],
        ask_for: Callable[[Mapping[ResourceRequest, int]], None],
        *,
        request_for: Callable[[Trial], ResourceRequest],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the trials.

        Args:
            trials: What is to run.
            ask_for: Called with how many trials of each kind there could be at once.
            request_for: Returns what a trial occupies.
            clock: Seconds, monotonic.
        """
        self._left = {trial.trial_id: trial for trial in trials}
        self._ask_for, self._request_for, self._clock = ask_for, request_for, clock
        self._asked: Counter[ResourceRequest] = Counter()
        self._asked_s = -math.inf

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asked:
            self._ask_for({})

    def on_submit(self, trial: Trial) -> None:
        """Record a trial that is tried again at somebody's command, too."""
        self._left[trial.trial_id] = trial

    def on_event(self, event: Event) -> None:
        """Record the end of a trial."""
        if type(event) in END_STATES:
            self._left.pop(event.trial_id, None)

    def on_skip(self, trials: Sequence[Trial], reason: str) -> None:  # noqa: ARG002
        """Record that trials will not run."""
        for trial in trials:
            self._left.pop(trial.trial_id, None)

    def on_tick(self) -> None:
        """Ask for what is wanted now, if that has changed and it is time."""
        if self._clock() - self._asked_s < PERIOD_S:
            return
        wanted = Counter(map(self._request_for, self._left.values()))
        if wanted != self._asked:
            self._asked, self._asked_s = wanted, self._clock()
            self._ask_for(wanted)
