"""An observer of a run that stops it, and what it may wait for."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.trials.events import Event, Progressed, Reported
from orchestrator.trials.trial import Trial


class Watcher(SweepCallback):
    """An observer that keeps the events and asks to stop once ``stop_after`` holds for one of them."""

    def __init__(self, stop_after: Callable[[Event], bool]) -> None:
        self._stop_after = stop_after
        self.wants_to_stop = False
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self.wants_to_stop |= self._stop_after(event)

    def first_step(self, trial: Trial) -> int:
        """Return the first step of a trial that was heard of."""
        return next(e.step for e in self.events if isinstance(e, Progressed) and e.trial_id == trial.trial_id)


def rung_of(trial: Trial) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Reported) and event.trial_id == trial.trial_id
