"""The worker's side: run one attempt in a thread, and turn all that happens into events.

A trial is never kept waiting: its events go into a queue, and an order to stop is a flag that it reads between
two steps. Every exception becomes a value here, and nowhere else.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Mapping

from orchestrator.executor import Event, Failed, Finished, Job, Progressed, Pruned, Reported, Started
from specvit.data import Dataset, DataSource


class Attempt:
    """Run a job in a thread of its own; also the ``Observer`` that its trial reports to."""

    def __init__(self, job: Job, datasets: Mapping[DataSource, Dataset]) -> None:
        self.job = job
        self._datasets = datasets
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
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
        """Ask the trial to end before its next step."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the trial has ended."""
        self._thread.join()

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Pass on how far the trial is."""
        self._events.put(Progressed(*self._key, step=step, steps=steps, images_per_s=images_per_s))

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Pass on the metrics of a rung."""
        self._events.put(Reported(*self._key, step=step, metrics=dict(metrics)))

    def should_stop(self) -> bool:
        """Return whether the trial has been asked to stop."""
        return self._stop.is_set()

    def _run(self) -> None:
        started, cpu_started = time.monotonic(), time.process_time()
        self._events.put(Started(*self._key, worker=f"{socket.gethostname()}:{os.getpid()}"))
        try:
            from specvit.trial import run_trial

            config = self.job.config
            result = run_trial(config, self._datasets[config.data], self, probe_datasets=self._datasets)
        except BaseException as error:
            # Also SystemExit: it would end this thread in silence, and the sweep would wait for it for ever.
            self._events.put(
                Failed(
                    *self._key,
                    error=f"{type(error).__name__}: {error}".splitlines()[0],
                    traceback=traceback.format_exc(),
                    seconds=time.monotonic() - started,
                )
            )
            return
        seconds = time.monotonic() - started
        if result.stopped_at is not None:
            self._events.put(Pruned(*self._key, step=result.stopped_at, seconds=seconds))
            return
        self._events.put(
            Finished(
                *self._key,
                metrics=dict(result.metrics),
                seconds=seconds,
                core_seconds=time.process_time() - cpu_started,
                diagnostics=result.diagnostics,
            )
        )
