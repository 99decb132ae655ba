"""The process behind a slot: it imports torch and takes the data once, then runs job after job.

What it needs of the cluster it is given: how to fetch data, and its own address. A second thread of its actor receives
commands while a job runs.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orchestrator.execution.executor import Job
from orchestrator.execution.worker import Runner, RunningJob, assist
from orchestrator.trials.events import END_STATES, Event, Failed
from orchestrator.trials.records import Cause
from specvit.data import Dataset, DataSource
from specvit.errors import DataError


class FailedAttemptError(Exception):
    """An attempt that failed, to fail its task on the dashboard too; ``event`` is the attempt's last one."""

    def __init__(self, event: Failed) -> None:
        """Take the event; the message is its error and traceback."""
        super().__init__(event)  # what pickling gives back to this
        self.event = event

    def __str__(self) -> str:
        """Return the error in a line, and the traceback below it."""
        return f"{self.event.error}\n{self.event.traceback}".rstrip()


class TrialActor:
    """A worker that runs jobs, one at a time, on one slot or as a part of it."""

    def __init__(
        self,
        references: Mapping[DataSource, Any],
        *,
        fetch: Callable[[Any], Dataset],
        host: Callable[[], str],
        num_threads: int,
        gpus: float = 0.0,
        runner: Runner | None = None,
    ) -> None:
        """Take the data.

        Args:
            references: Where the data of each source are.
            fetch: Fetches data; raises a ``DataError`` if this machine cannot read them.
            host: Returns the address of this machine.
            num_threads: Threads that computations use, at least 1.
            gpus: GPUs that jobs occupy; 0 = it is not to see any, which since Ray 2.56 an actor without GPUs does.
            runner: What computes a trial; None = ``specvit.trial.run_trial``.
        """
        from specvit.device import hide_gpus, limit_threads

        limit_threads(num_threads)
        if not gpus:
            hide_gpus()
        logging.captureWarnings(True)  # so that they are recorded with the trial
        self._datasets: dict[DataSource, Dataset] = {}
        self._unreadable: dict[DataSource, DataError] = {}
        for source, reference in references.items():
            try:
                self._datasets[source] = fetch(reference)
            except DataError as error:  # such as files that this machine does not have
                self._unreadable[source] = error
        self._host = host
        self._runner = runner
        self._running: RunningJob | None = None
        self._pending_commands: list[_Command] = []
        self._commands_lock = threading.Lock()
        self._store: Any = None
        self._assisting = threading.Lock()

    def host(self) -> str:
        """Return the address of this worker's machine."""
        return self._host()

    def open_rendezvous(self, *hosts: str) -> Any:
        """Open the store at which the workers on ``hosts`` join; return where it is."""
        from specvit.training.process_group import LOOPBACK, open_rendezvous

        self._store, rendezvous = open_rendezvous(LOOPBACK if len(set(hosts)) == 1 else self.host())
        return rendezvous

    def run(self, job: Job, rendezvous: Any = None, num_processes: int = 1) -> Iterator[list[Event]]:
        """Run a job and yield its events; as the main one of several processes if they have a rendezvous.

        Raises:
            FailedAttemptError: If the attempt failed, with its last event; on the dashboard the task then failed too.
        """
        try:
            self._check_data(job)
        except DataError as error:
            self._store = None  # closed, so that nobody waits there
            text = str(error.__cause__ or error)
            # Of this machine: another one may well have them.
            failed = Failed(job.trial_id, job.attempt, error=f"DataError: {error}", traceback=text, cause=Cause.IO)
            _write_line(f"{job.label}: {failed.error}")
            raise FailedAttemptError(failed) from error
        group = None if rendezvous is None else self._process_group(rendezvous, 0, num_processes)
        with self._commands_lock:
            running = self._running = RunningJob(
                job, self._datasets, process_group=group, runner=self._runner, write_line=_write_line
            )
            pending, self._pending_commands = self._pending_commands, []
        for command in pending:
            if (command.trial_id, command.attempt) == (job.trial_id, job.attempt):
                command.apply(running)
        while True:
            events = running.next_events()
            last = events[-1] if events else None
            if isinstance(last, Failed):
                if events[:-1]:
                    yield events[:-1]
                raise FailedAttemptError(last)
            yield events
            if type(last) in END_STATES:
                return

    def assist(self, job: Job, rendezvous: Any, rank: int, num_processes: int) -> float:
        """Compute a job beside the main process; return the CPU seconds that it took."""
        self._check_data(job)
        with self._assisting:  # an actor of two threads could start the next job before it has left the last one
            return assist(job, self._datasets, self._process_group(rendezvous, rank, num_processes))

    def stop(self, trial_id: str, attempt: int | None = None, why: str = "") -> None:
        """Ask a trial to stop for good.

        Args:
            trial_id: The trial; if another one runs, nothing happens.
            attempt: Which attempt, also one that has not started yet; None = the one that runs.
            why: Why, human-readable.
        """
        self._receive(_Command(trial_id, attempt, is_for_good=True, why=why))

    def mark(self) -> None:
        """Do nothing: the dashboard lists the call under its name, beside the trial's."""

    def interrupt(self, trial_id: str, attempt: int | None = None) -> None:
        """Ask a trial, likewise, to save its state and stop, since it will resume elsewhere."""
        self._receive(_Command(trial_id, attempt, is_for_good=False))

    def _receive(self, command: _Command) -> None:
        with self._commands_lock:
            running = self._running
            number = None if running is None or running.job.trial_id != command.trial_id else running.job.attempt
            if number is None or command.attempt not in (None, number):
                if command.attempt is not None:
                    # Commands overtake the job that they are for: it takes this process a while to start.
                    self._pending_commands.append(command)
                return
        assert running is not None
        command.apply(running)

    def _check_data(self, job: Job) -> None:
        """Raise a ``DataError`` if the job needs data that this worker could not read."""
        errors = (self._unreadable.get(source) for source in job.config.sources)
        if (error := next(filter(None, errors), None)) is not None:
            raise error

    def _process_group(self, rendezvous: Any, rank: int, num_processes: int) -> Any:
        from specvit.training.process_group import LOOPBACK, process_group

        store, self._store = self._store, None
        host = LOOPBACK if rendezvous.host == LOOPBACK else self.host()
        return process_group(rendezvous, rank=rank, num_processes=num_processes, host=host, store=store)


@dataclass(frozen=True)
class _Command:
    """A command to end an attempt at a trial; None = the attempt that runs."""

    trial_id: str
    attempt: int | None
    is_for_good: bool
    why: str = ""

    def apply(self, running: RunningJob) -> None:
        """Pass the command on to the job."""
        running.stop(self.why) if self.is_for_good else running.interrupt()


def _write_line(line: str) -> None:
    """Write to what Ray keeps as the log of this actor, and of the task that runs."""
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    sys.stderr.write(f"{at} {line}\n")  # the dashboard opens a log with this one
    sys.stderr.flush()
