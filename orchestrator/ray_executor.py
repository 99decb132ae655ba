"""The executor for users: warm Ray actors, one per slot. The only module that imports ray.

Each actor imports torch and takes the data from the node's object store once, then runs job after job. A job
is one actor task that carries the trial's label, so that the Ray dashboard lists trials by name; its events
stream back as the task's results.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Ray reads this when it is imported: no calls home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

from orchestrator.executor import END_STATES, Event, Failed, Job
from orchestrator.sweep_schema import Resources
from orchestrator.worker import Attempt
from specvit.data import Dataset, DataSource
from specvit.errors import SpecsweepError

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a cluster's first answer."""


class ClusterError(SpecsweepError):
    """Signal a cluster that cannot run the trials; the text says what is missing."""


class _Worker:
    """Run jobs, one at a time, on one slot. A second thread takes the orders to stop."""

    def __init__(self, datasets: dict[DataSource, Any], num_threads: int) -> None:
        from specvit.device import limit_threads

        limit_threads(num_threads)
        self._datasets: dict[DataSource, Dataset] = {}
        self._unreadable: dict[DataSource, ray.exceptions.RayError] = {}
        for source, reference in datasets.items():
            try:
                self._datasets[source] = ray.get(reference)
            except ray.exceptions.RayError as error:  # such as files that this machine does not have
                self._unreadable[source] = error
        self._attempt: Attempt | None = None

    def run(self, job: Job) -> Iterator[Event]:
        """Run a job and yield its events."""
        errors = (self._unreadable.get(source) for source in job.config.sources)
        if (error := next(filter(None, errors), None)) is not None:
            reason = str(error).partition("\n")[0].removeprefix("System error: ")
            yield Failed(job.trial_id, job.attempt, error=reason, traceback=str(error))
            return
        attempt = self._attempt = Attempt(job, self._datasets)
        while True:
            event = attempt.next_event()
            assert event is not None
            yield event
            if type(event) in END_STATES:
                return

    def stop(self, trial_id: str) -> None:
        """Ask the running trial to stop, if it is the one."""
        if self._attempt is not None and self._attempt.job.trial_id == trial_id:
            self._attempt.stop()


@dataclass
class _Slot:
    actor: Any
    job: Job | None = None
    events: Any = None


class RayExecutor:
    """Run jobs on a Ray cluster: the local machine, or one that is already up."""

    def __init__(
        self,
        datasets: Mapping[DataSource, Dataset],
        *,
        resources: Resources,
        max_slots: int,
        address: str | None = None,
    ) -> None:
        """Start or join the cluster and warm up one worker per slot.

        Args:
            datasets: What the trials' data sources load, shared by all workers of a node without copies.
            resources: What one trial takes.
            max_slots: Largest number of slots that are of use.
            address: Address of a running cluster, ``auto`` to find one; None = start one on this machine.

        Raises:
            ClusterError: If the cluster cannot be reached or has no room for a single trial.
        """
        self.dashboard_url = _connect(address)
        try:
            self._num_slots = min(max_slots, _count_slots(resources))
            self._resources = resources
            self._references = {source: ray.put(dataset) for source, dataset in datasets.items()}
            self._slots = [_Slot(self._start_actor()) for _ in range(self._num_slots)]
        except BaseException:
            ray.shutdown()
            raise

    @property
    def num_slots(self) -> int:
        """Return how many trials run at once."""
        return self._num_slots

    def submit(self, job: Job) -> None:
        """Start ``job`` on a free slot, under its label."""
        slot = next(slot for slot in self._slots if slot.job is None)
        slot.job = job
        slot.events = slot.actor.run.options(name=job.label).remote(job)

    def prune(self, trial_id: str) -> None:
        """Send the running trial the order to stop."""
        for slot in self._slots:
            if slot.job is not None and slot.job.trial_id == trial_id:
                slot.actor.stop.remote(trial_id)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events that are there, waiting up to ``timeout_s`` for the first one."""
        streams = {slot.events: slot for slot in self._slots if slot.job is not None}
        if not streams:
            return ()
        ready, _ = ray.wait(list(streams), timeout=timeout_s)
        events: list[Event] = []
        while ready:
            events += [event for stream in ready for event in self._take(streams[stream])]
            open_streams = [stream for stream, slot in streams.items() if slot.job is not None]
            ready = ray.wait(open_streams, num_returns=len(open_streams), timeout=0)[0] if open_streams else []
        return events

    def close(self) -> None:
        """Stop the workers and leave the cluster; one that this process started ends."""
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []
        ray.shutdown()

    def _take(self, slot: _Slot) -> list[Event]:
        """Take the next event of a slot; a lost worker is an event too, and is replaced."""
        assert slot.job is not None
        try:
            event: Event = ray.get(next(slot.events))
        except StopIteration:
            slot.job = slot.events = None
            return []
        except ray.exceptions.RayError as error:
            lost, slot.job, slot.events = slot.job, None, None
            slot.actor = self._start_actor()
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return [
                Failed(
                    trial_id=lost.trial_id,
                    attempt=lost.attempt,
                    error=f"the worker was lost: {reason}",
                    traceback=str(error),
                )
            ]
        if type(event) in END_STATES:
            slot.job = slot.events = None
        return [event]

    def _start_actor(self) -> Any:
        options = {
            "num_cpus": self._resources.cpus,
            "num_gpus": self._resources.gpus,
            "max_concurrency": 2,
        }
        worker = ray.remote(_Worker).options(**options)
        return worker.remote(self._references, max(1, int(self._resources.cpus)))


def _connect(address: str | None) -> str:
    """Start or join a cluster; return the address of its dashboard, empty if it has none."""
    if address:
        _check_reachable(address)
    # A cluster that is already up has settled its dashboard; our own listens to this machine only.
    local: dict[str, Any] = {} if address else {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""


def _check_reachable(address: str) -> None:
    """Complain of a ``host:port`` where nobody listens: Ray itself would try for more than ten minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster at {address}: {error}") from error


def _count_slots(resources: Resources) -> int:
    available: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    limits = []
    for name, key, wanted in (("CPUs", "CPU", resources.cpus), ("GPUs", "GPU", resources.gpus)):
        if wanted > 0:
            has = available.get(key, 0.0)
            if has < wanted:
                raise ClusterError(f"a trial takes {wanted:g} {name}, but the cluster has {has:g}")
            limits.append(int(has / wanted + 1e-9))
    return min(limits, default=1)
