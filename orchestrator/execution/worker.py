"""The worker's side: run a job in a thread, and turn all that happens into events.

A trial is never kept waiting: its events go into a queue, and a command to stop is a flag that it reads between two
steps. Every exception becomes a value here, and nowhere else. Where several processes train the trial, one of them runs
the job, and the others ``assist``.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.execution.causes import cause_of
from orchestrator.execution.executor import Job
from orchestrator.execution.trial_log import event_text, forward_logs
from orchestrator.execution.worker_files import LocalFiles, local_files, make_checkpoint
from orchestrator.ledger.provenance import cpu_name
from orchestrator.trials.events import (
    END_STATES,
    Event,
    Failed,
    Finished,
    Logged,
    Progressed,
    Pruned,
    Reported,
    Started,
)
from orchestrator.trials.records import Cause
from specvit.data import Dataset, DataSource
from specvit.data.encoded import SKIPPED_METRIC
from specvit.errors import SpecsweepError
from specvit.kept_weights import WeightsFile

if TYPE_CHECKING:
    from specvit.training.checkpoint import Checkpoint
    from specvit.trial import TrialResult

_MOMENT_S = 0.02
"""Longest wait for one more event, to send it along with those before."""

Runner = Callable[..., "TrialResult"]
"""What computes a trial: ``specvit.trial.run_trial``, or a stand-in."""

_ELAPSED = "spent"
"""Name under which a state's notes hold the wall and CPU seconds up to then."""


class _StoppedError(Exception):
    """The trial was asked to stop between two probes."""


class RunningJob:
    """A job in a thread of its own; also the ``Observer`` that its trial reports to."""

    def __init__(
        self,
        job: Job,
        datasets: Mapping[DataSource, Dataset],
        *,
        process_group: AbstractContextManager[object] | None = None,
        runner: Runner | None = None,
        write_line: Callable[[str], None] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            job: What to run.
            datasets: What the trials' data sources load.
            process_group: Context in which this process is the main one of several; None = it is alone.
            runner: What computes the trial, called as ``specvit.trial.run_trial`` is; None = that.
            write_line: Called with what happens, as text for people; None = nobody reads that here.
        """
        self.job = job
        self._write_line = write_line
        self._runner = runner
        self._datasets = datasets
        self._process_group = process_group or nullcontext()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._why = ""
        self._interrupted = threading.Event()
        self._checkpoint: Checkpoint | None = None
        self._elapsed_before: tuple[float, float] | None = None
        self._started, self._cpu_started = time.monotonic(), time.process_time()
        self._thread = threading.Thread(target=self._run, name=job.label, daemon=True)
        self._thread.start()

    @property
    def _key(self) -> tuple[str, int]:
        return self.job.trial_id, self.job.attempt

    def next_events(self, timeout_s: float | None = None) -> list[Event]:
        """Return the events since the last call, waiting up to ``timeout_s`` (None = as long as it takes) for one.

        What comes within a moment of the first one comes along: each message to a driver has its price.
        """
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=timeout_s))
            until_s = time.monotonic() + _MOMENT_S
            while type(events[-1]) not in END_STATES:
                events.append(self._events.get(timeout=max(0.0, until_s - time.monotonic())))
        except queue.Empty:
            pass
        return events

    def stop(self, why: str = "") -> None:
        """Ask the trial to end before its next step, for good, and say why."""
        self._why = why
        self._stop.set()

    def interrupt(self) -> None:
        """Ask the trial to end before its next step, and to save its state first: it is to resume one day."""
        self._interrupted.set()
        self._stop.set()

    def join(self) -> None:
        """Wait until the trial has ended."""
        self._thread.join()

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Report how far the trial is."""
        if self._checkpoint is not None:
            notes = self._checkpoint.notes
            if self._elapsed_before is None:  # the notes are those of a saved state if there is one
                wall, cpu = notes.get(_ELAPSED, (0.0, 0.0))
                self._elapsed_before = wall, cpu
            notes[_ELAPSED] = list(self._elapsed())
        self._put(Progressed(*self._key, step=step, steps=steps, images_per_s=images_per_s))

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Report the metrics of a rung."""
        self._put(Reported(*self._key, step=step, metrics=dict(metrics)))

    def should_stop(self) -> bool:
        """Return whether the trial has been asked to stop."""
        return self._stop.is_set()

    def _log(self, level: str, text: str) -> None:
        self._put(Logged(*self._key, level=level, text=text))

    def _run(self) -> None:
        worker = f"{socket.gethostname()}:{os.getpid()}"
        self._put(Started(*self._key, worker=worker, device=device_text(self.job.share.gpus)))
        self._put(self._outcome())

    def _put(self, event: Event) -> None:
        text = None if self._write_line is None else event_text(event)
        if self._write_line is not None and text is not None:
            self._write_line(f"{self.job.label}: {text}")
        self._events.put(event)

    def _outcome(self) -> Event:
        """Compute the trial; return its end, whatever that is."""
        try:
            return self._end_of(self._compute())
        except BaseException as error:
            # Also SystemExit: it would end this thread in silence, and the sweep would wait for it for ever.
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            return self._failed(text, cause_of(error), traceback.format_exc())

    def _end_of(self, result: TrialResult) -> Event:
        seconds, core_seconds = self._elapsed()
        if result.stopped_at is None:
            result = self._with_known(result)
            return Finished(
                *self._key,
                metrics=dict(result.metrics),
                seconds=seconds,
                core_seconds=core_seconds,
                diagnostics=result.diagnostics,
                cost=result.cost,
                weights=self._kept_weights(result),
            )
        if self._interrupted.is_set():
            return self._failed(f"it was asked to go on elsewhere, at step {result.stopped_at}", Cause.NODE)
        return Pruned(*self._key, step=result.stopped_at, seconds=seconds, why=self._why)

    def _compute(self) -> TrialResult:
        from specvit.device import share_of_gpus

        runner = self._runner or _run_trial()
        config, will_resume = self.job.config, self._interrupted.is_set
        with (
            forward_logs(self._log),
            share_of_gpus(self.job.share.gpus),
            local_files(self.job, will_resume=will_resume) as files,
            self._process_group,
        ):
            if self.job.backbone is not None:
                return self._evaluate(files)
            self._checkpoint = make_checkpoint(self.job, self._datasets, files=files, at_stop=will_resume)
            return runner(
                config,
                self._datasets[config.data],
                self,
                probe_datasets=self._datasets,
                checkpoint=self._checkpoint,
                weights=files.weights,
            )

    def _evaluate(self, files: LocalFiles) -> TrialResult:
        """Look at a backbone that was trained before."""
        from specvit.evaluation import evaluate_backbone
        from specvit.trial import TrialResult

        config, kept, datasets = self.job.config, self.job.kept, self._datasets
        if kept is None or kept.probed is None or files.backbone is None:
            raise SpecsweepError("a job that evaluates kept weights must name them")
        steps = config.objective.for_images(len(datasets[config.data].train)).steps

        def moved_on() -> None:
            self.progress(step=steps, steps=steps, images_per_s=0.0)
            if self.should_stop():
                raise _StoppedError

        moved_on()
        try:
            metrics, diagnostics = evaluate_backbone(
                config,
                datasets[config.data],
                files.backbone,
                kept.probed.sha256,
                probe_datasets=datasets,
                moved_on=moved_on,
            )
        except _StoppedError:
            return TrialResult({}, stopped_at=steps)
        return TrialResult(metrics, diagnostics=diagnostics)

    def _with_known(self, result: TrialResult) -> TrialResult:
        """Return a result with what was known before."""
        kept = self.job.kept
        if kept is None:
            return result
        metrics = {**kept.metrics, **result.metrics}
        if SKIPPED_METRIC in kept.metrics:  # which these were is not known any more: so many it was at least
            metrics[SKIPPED_METRIC] = max(kept.metrics[SKIPPED_METRIC], result.metrics.get(SKIPPED_METRIC, 0.0))
        return replace(
            result,
            metrics=metrics,
            diagnostics=result.diagnostics or kept.diagnostics,
            cost=kept.cost,
        )

    def _kept_weights(self, result: TrialResult) -> tuple[WeightsFile, ...]:
        """Return the files of the trial's weights, with paths below the folder of weights."""
        if self.job.kept is not None:
            return self.job.kept.weights
        folder = "" if self.job.weights is None else self.job.weights.name
        return tuple(replace(file, path=f"{folder}/{file.path}") for file in result.weights)

    def _failed(self, error: str, cause: Cause, traceback: str = "") -> Failed:
        return Failed(*self._key, error=error, traceback=traceback, seconds=self._elapsed()[0], cause=cause)

    def _elapsed(self) -> tuple[float, float]:
        """Return the wall and CPU seconds so far, with those of the attempts that this one resumes."""
        wall, cpu = self._elapsed_before or (0.0, 0.0)
        return wall + time.monotonic() - self._started, cpu + time.process_time() - self._cpu_started


def _run_trial() -> Runner:
    """Import what computes a trial; to be done outside of a process group, whose sockets torch would keep open."""
    from specvit.trial import run_trial

    return run_trial


def device_text(gpus: float) -> str:
    """Return kind and name of the device on which a trial of so many GPUs computes; empty if that cannot be told."""
    import torch

    from specvit.device import select_device

    device = select_device(gpus)
    try:
        name = torch.cuda.get_device_name(device.torch_device) if device.is_cuda else cpu_name()
    except RuntimeError:  # a GPU that does not work: the trial is about to say so
        return ""
    return f"{device.torch_device.type} {name}".strip()


def assist(job: Job, datasets: Mapping[DataSource, Dataset], process_group: AbstractContextManager[object]) -> float:
    """Compute a job's trial beside the process that runs the job, and report nothing.

    Args:
        job: The same job.
        datasets: What the trials' data sources load.
        process_group: Context in which this process is one of several, and not the main one.

    Returns:
        The CPU seconds that it took.
    """
    from specvit.device import share_of_gpus

    started = time.process_time()
    run_trial, config = _run_trial(), job.config
    checkpoint = make_checkpoint(job, datasets)
    with share_of_gpus(job.share.gpus), process_group:
        run_trial(config, datasets[config.data], _NoObserver(), probe_datasets=datasets, checkpoint=checkpoint)
    return time.process_time() - started


class _NoObserver:
    """The observer of a process that assists: the main process reports and receives commands."""

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        """Do nothing."""

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def should_stop(self) -> bool:
        """Return False."""
        return False
