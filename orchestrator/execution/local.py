"""An executor in the calling process: one trial at a time, no cluster."""

from __future__ import annotations

import pdb
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.execution.executor import Job, Machine, Place
from orchestrator.execution.worker import RunningJob
from orchestrator.trials.events import END_STATES, Event
from orchestrator.trials.resources import ResourceRequest
from specvit.data import Dataset, DataSource
from specvit.device import limit_threads

if TYPE_CHECKING:
    from specvit.trial import TrialResult


class LocalExecutor:
    """The executor that runs jobs one after the other in this process."""

    def __init__(self, datasets: Mapping[DataSource, Dataset], *, num_threads: int = 1) -> None:
        """Take the data.

        Args:
            datasets: What the trials' data sources load.
            num_threads: Threads that computations of this process use from now on, at least 1.
        """
        limit_threads(num_threads)
        self._datasets = datasets
        self._running: RunningJob | None = None

    @property
    def num_slots(self) -> int:
        """Return 1."""
        return 1

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        """Return whether the last job has ended; what a job occupies is all of this process."""
        return self._running is None

    def fits(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def least_s(self, work: Mapping[ResourceRequest, float]) -> float:
        """Return the sum: jobs run one after the other."""
        return sum(work.values())

    def held_by_others(self) -> str:
        """Return an empty text."""
        return ""

    def machine(self, share: ResourceRequest) -> Machine:  # noqa: ARG002
        """Return a machine whose memory cannot be reserved."""
        return Machine()

    def submit(self, job: Job) -> Place:
        """Start ``job``; the last one must have ended."""
        self._running = RunningJob(job, self._datasets)
        return Place(has_started=True)

    def prune(self, trial_id: str, why: str = "") -> None:
        """Ask the running trial to stop before its next step."""
        if self._running is not None and self._running.job.trial_id == trial_id:
            self._running.stop(why)

    def kill(self, trial_id: str) -> None:
        """Ask the trial to stop, and drop its events: a thread cannot be killed, and may compute on in vain."""
        if self._running is not None and self._running.job.trial_id == trial_id:
            self._running.stop()
            self._running = None

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events that are there, waiting up to ``timeout_s`` for the first one."""
        if self._running is None:
            time.sleep(timeout_s)
            return []
        events = self._running.next_events(timeout_s)
        if events and type(events[-1]) in END_STATES:
            self._running = None
        return events

    def close(self) -> None:
        """Ask the running trial to save its state and stop; wait until it has, after its step or its last probes."""
        if self._running is not None:
            self._running.interrupt()
            # A process that ends while a thread of it computes is aborted by torch.
            self._running.join()
            self._running = None


class DebugExecutor(LocalExecutor):
    """A local executor that opens the debugger where a trial raised; the trial counts as failed after that."""

    def __init__(self, datasets: Mapping[DataSource, Dataset], *, num_threads: int = 1) -> None:
        """Take the data; for the arguments see ``LocalExecutor``."""
        super().__init__(datasets, num_threads=num_threads)
        self._raised: Exception | None = None

    def submit(self, job: Job) -> Place:
        """Start ``job``; the last one must have ended."""
        self._running = RunningJob(job, self._datasets, runner=self._run_trial)
        return Place(has_started=True)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return events as ``LocalExecutor`` does, after a session with the debugger if the trial raised."""
        events = super().poll(timeout_s)
        if self._raised is not None:
            # Here and not where the trial runs: that is another thread, beside which this one would go on.
            pdb.post_mortem(self._raised.__traceback__)
            self._raised = None
        return events

    def _run_trial(self, *arguments: Any, **named: Any) -> TrialResult:
        from specvit.trial import run_trial

        try:
            return run_trial(*arguments, **named)
        except Exception as error:
            self._raised = error
            raise
