"""The worker's side: run one attempt in a thread, and turn all that happens into events.

A trial is never kept waiting: its events go into a queue, and an order to stop is a flag that it reads between
two steps. Every exception becomes a value here, and nowhere else. Where several processes train the trial, one of
them runs the attempt, and the others ``assist``.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from typing import TYPE_CHECKING

from orchestrator.executor import Event, Failed, Finished, Job, Progressed, Pruned, Reported, Started
from orchestrator.worker_files import LocalFiles, local_files
from specvit.config import PROTOCOL_VERSION
from specvit.data import Dataset, DataSource

if TYPE_CHECKING:
    from specvit.training_state import Checkpoint

_SPENT = "spent"
"""Name under which a state's notes hold the wall and CPU seconds up to then."""


class Attempt:
    """Run a job in a thread of its own; also the ``Observer`` that its trial reports to."""

    def __init__(
        self,
        job: Job,
        datasets: Mapping[DataSource, Dataset],
        *,
        together: AbstractContextManager[object] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            job: What to run.
            datasets: What the trials' data sources load.
            together: Context in which this process is the main one of several; None = it is alone.
        """
        self.job = job
        self._datasets = datasets
        self._together = together or nullcontext()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._interrupted = threading.Event()
        self._checkpoint: Checkpoint | None = None
        self._spent_before: tuple[float, float] | None = None
        self._started, self._cpu_started = time.monotonic(), time.process_time()
        self._thread = threading.Thread(target=self._run, name=job.label, daemon=True)
        self._thread.start()

    @property
    def _key(self) -> tuple[str, int]:
        return self.job.trial_id, self.job.attempt

    def next_event(self, timeout_s: float | None = None) -> Event | None:
        """Return the next event, waiting up to ``timeout_s`` (None = as long as it takes); None if none came."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """Ask the trial to end before its next step, for good."""
        self._stop.set()

    def interrupt(self) -> None:
        """Ask the trial to end before its next step, and to save its state first: it is to go on one day."""
        self._interrupted.set()
        self._stop.set()

    def join(self) -> None:
        """Wait until the trial has ended."""
        self._thread.join()

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Pass on how far the trial is."""
        if self._checkpoint is not None:
            notes = self._checkpoint.notes
            if self._spent_before is None:  # the notes are those of a saved state if there is one
                wall, cpu = notes.get(_SPENT, (0.0, 0.0))
                self._spent_before = wall, cpu
            notes[_SPENT] = list(self._spent())
        self._events.put(Progressed(*self._key, step=step, steps=steps, images_per_s=images_per_s))

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on the metrics of a rung."""
        self._events.put(Reported(*self._key, step=step, metrics=dict(metrics)))

    def should_stop(self) -> bool:
        """Return whether the trial has been asked to stop."""
        return self._stop.is_set()

    def _run(self) -> None:
        self._events.put(Started(*self._key, worker=f"{socket.gethostname()}:{os.getpid()}"))
        try:
            from specvit.trial import run_trial

            config = self.job.config
            data = self._datasets[config.data]
            goes_on = self._interrupted.is_set
            with local_files(self.job, goes_on=goes_on) as files, self._together:
                self._checkpoint = _checkpoint(self.job, self._datasets, files=files, at_stop=goes_on)
                result = run_trial(
                    config,
                    data,
                    self,
                    probe_datasets=self._datasets,
                    checkpoint=self._checkpoint,
                    weights=files.weights,
                )
        except BaseException as error:
            # Also SystemExit: it would end this thread in silence, and the sweep would wait for it for ever.
            self._events.put(
                Failed(
                    *self._key,
                    error=f"{type(error).__name__}: {error}".splitlines()[0],
                    traceback=traceback.format_exc(),
                    seconds=self._spent()[0],
                )
            )
            return
        seconds, core_seconds = self._spent()
        if result.stopped_at is not None:
            self._events.put(Pruned(*self._key, step=result.stopped_at, seconds=seconds))
            return
        self._events.put(
            Finished(
                *self._key,
                metrics=dict(result.metrics),
                seconds=seconds,
                core_seconds=core_seconds,
                diagnostics=result.diagnostics,
            )
        )

    def _spent(self) -> tuple[float, float]:
        """Return the wall and CPU seconds so far, with those of the attempts that this one goes on from."""
        wall, cpu = self._spent_before or (0.0, 0.0)
        return wall + time.monotonic() - self._started, cpu + time.process_time() - self._cpu_started


def assist(job: Job, datasets: Mapping[DataSource, Dataset], together: AbstractContextManager[object]) -> float:
    """Compute a job's trial beside the process that runs the attempt, without a word.

    Args:
        job: The same job.
        datasets: What the trials' data sources load.
        together: Context in which this process is one of several, and not the main one.

    Returns:
        The CPU seconds that it took.
    """
    from specvit.trial import run_trial

    started = time.process_time()
    config = job.config
    checkpoint = _checkpoint(job, datasets)
    with together:
        run_trial(config, datasets[config.data], _Nobody(), probe_datasets=datasets, checkpoint=checkpoint)
    return time.process_time() - started


class _Nobody:
    """Observe a trial and keep it to oneself."""

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Hear how far the trial is."""

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Hear the metrics of a rung."""

    def should_stop(self) -> bool:
        """Leave that to the main process."""
        return False


def _checkpoint(
    job: Job,
    datasets: Mapping[DataSource, Dataset],
    *,
    files: LocalFiles | None = None,
    at_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint | None:
    """Say where the trial's state is, and whose: a state from other data or other software would be another trial's.

    Processes that assist have no ``files``: they neither read nor write the state.
    """
    if job.state is None:
        return None
    import timm
    import torch

    from specvit.training_state import Checkpoint

    identity = {
        "trial": job.trial_id,
        "data": [datasets[source].fingerprint for source in job.config.sources],
        "protocol": PROTOCOL_VERSION,
        "specsweep": metadata.version("specsweep"),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
    files = files or LocalFiles(job.state.path, None)
    return Checkpoint(
        files.state or job.state.path,
        json.dumps(identity),
        every_s=job.state.every_s,
        at_stop=at_stop,
        after_save=files.after_save,
    )
