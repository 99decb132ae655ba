"""An attempt while it runs, as the scheduler keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.execution.executor import Job, Place
from orchestrator.scheduling.budget import Work
from orchestrator.trials.events import Event, Progressed
from orchestrator.trials.trial import Trial


@dataclass
class RunningAttempt:
    """A running attempt, where it runs, and when its last event came; None = its worker has not begun."""

    trial: Trial
    job: Job
    submitted_s: float
    place: Place = field(default_factory=Place)
    last_event_s: float | None = None
    step: int = 0

    def on_event(self, event: Event, now_s: float) -> None:
        """Record that an event came, and how far the attempt is."""
        self.last_event_s = now_s
        if isinstance(event, Progressed):
            self.step = event.step

    def work_at(self, now_s: float) -> Work:
        """Return what the attempt has taken so far."""
        return Work(now_s - self.submitted_s, self.job.share.total_gpus)
