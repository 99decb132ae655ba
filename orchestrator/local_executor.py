"""An executor in the calling process: one trial at a time, no cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.executor import Event, Job
from orchestrator.worker import TERMINAL, Attempt
from specvit.data import Dataset, DataSource


class LocalExecutor:
    """Run jobs one after the other in this process."""

    def __init__(self, datasets: Mapping[DataSource, Dataset]) -> None:
        self._datasets = datasets
        self._attempt: Attempt | None = None

    @property
    def num_slots(self) -> int:
        """Return 1."""
        return 1

    def submit(self, job: Job) -> None:
        """Start ``job``; the last one must have ended."""
        self._attempt = Attempt(job, self._datasets[job.config.data])

    def prune(self, trial_id: str) -> None:
        """Ask the running trial to stop before its next step."""
        if self._attempt is not None and self._attempt.job.trial_id == trial_id:
            self._attempt.stop()

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the next event, if one comes within ``timeout_s``."""
        event = None if self._attempt is None else self._attempt.next_event(timeout_s)
        if event is None:
            return ()
        if isinstance(event, TERMINAL):
            self._attempt = None
        return (event,)

    def close(self) -> None:
        """Ask the running trial to stop; its thread ends after its step."""
        if self._attempt is not None:
            self._attempt.stop()
            self._attempt = None
