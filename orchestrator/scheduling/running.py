"""An attempt while it runs, as the scheduler keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.execution.executor import Job, Place
from orchestrator.scheduling.budget import Work
from orchestrator.trials.events import Event, Progressed
from orchestrator.trials.trial import Trial


@dataclass
class RunningAttempt:
    """An attempt that is handed out, where to, and when its first and last events came; None = it is pending."""

    trial: Trial
    job: Job
    submitted_s: float
    place: Place = field(default_factory=Place)
    started_s: float | None = None
    last_event_s: float | None = None
    step: int = 0

    def on_event(self, event: Event, now_s: float) -> None:
        """Record that an event came, and how far the attempt is."""
        self.started_s = now_s if self.started_s is None else self.started_s
        self.last_event_s = now_s
        if isinstance(event, Progressed):
            self.step = event.step

    def elapsed_s(self, now_s: float) -> float:
        """Return how long the attempt has run; 0 while it is pending."""
        return 0.0 if self.started_s is None else now_s - self.started_s

    def work_at(self, now_s: float) -> Work:
        """Return what the attempt has taken so far."""
        return Work(self.elapsed_s(now_s), self.job.share.total_gpus)
