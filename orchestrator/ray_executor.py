"""The executor for users: warm Ray actors, one per slot, or several that train a trial together.

The only module that imports ray. Each actor imports torch and takes the data from the node's object store once, then
runs job after job. A job is one actor task that carries the trial's label, so that the Ray dashboard lists trials by
name; its events stream back as the task's results. Where a trial takes several processes, the other actors of its slot
assist; when one of them is lost, the attempt is, and all of them are replaced.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Ray reads this when it is imported: no calls home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.cluster import ClusterError, check_reachable, count_slots
from orchestrator.executor import END_STATES, Event, Failed, Job
from orchestrator.slot import Fate, Loss, Slot, ended_together, is_of_messages, reason_of
from orchestrator.sweep_schema import Resources
from orchestrator.worker import Attempt, assist
from specvit.data import Dataset, DataSource
from specvit.errors import DataError

SETTLE_TIMEOUT_S = 10.0
"""Longest wait, once a trial of several processes has come to an end, for what each has to say of it."""


class _Worker:
    """Run jobs, one at a time, on one slot or as a part of it. A second thread takes the orders to stop."""

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
        self._store: Any = None
        self._assisting = threading.Lock()

    def host(self) -> str:
        """Return the address of this worker's node."""
        return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]

    def meet(self, *hosts: str) -> Any:
        """Open the store at which the workers on ``hosts`` join; return where it is."""
        from specvit.joining import LOOPBACK, open_store

        self._store, meeting = open_store(LOOPBACK if len(set(hosts)) == 1 else self.host())
        return meeting

    def run(self, job: Job, meeting: Any = None, num_processes: int = 1) -> Iterator[Event]:
        """Run a job and yield its events; as the main one of several processes if they have a meeting."""
        try:
            self._check_data(job)
        except DataError as error:
            self._store = None  # closed, so that nobody waits there
            yield Failed(job.trial_id, job.attempt, error=f"DataError: {error}", traceback=str(error.__cause__))
            return
        together = None if meeting is None else self._joined(meeting, 0, num_processes)
        attempt = self._attempt = Attempt(job, self._datasets, together=together)
        while True:
            event = attempt.next_event()
            assert event is not None
            yield event
            if type(event) in END_STATES:
                return

    def assist(self, job: Job, meeting: Any, rank: int, num_processes: int) -> float:
        """Compute a job beside the main process; return the CPU seconds that it took."""
        self._check_data(job)
        with self._assisting:  # an actor of two threads could begin the next job before it has left the last one
            return assist(job, self._datasets, self._joined(meeting, rank, num_processes))

    def stop(self, trial_id: str) -> None:
        """Ask the running trial to stop, if it is the one."""
        if self._attempt is not None and self._attempt.job.trial_id == trial_id:
            self._attempt.stop()

    def _check_data(self, job: Job) -> None:
        """Raise a ``DataError`` if the job needs data that this worker could not read."""
        errors = (self._unreadable.get(source) for source in job.config.sources)
        if (error := next(filter(None, errors), None)) is not None:
            raise DataError(str(error).partition("\n")[0].removeprefix("System error: ")) from error

    def _joined(self, meeting: Any, rank: int, num_processes: int) -> Any:
        from specvit.joining import LOOPBACK, joined

        store, self._store = self._store, None
        host = LOOPBACK if meeting.host == LOOPBACK else self.host()
        return joined(meeting, rank=rank, num_processes=num_processes, host=host, store=store)


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
        """Start or join the cluster and warm up the workers of every slot.

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
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
            self._num_slots = count_slots(nodes, resources, max_slots=max_slots)
            self._resources = resources
            self._references = {source: ray.put(dataset) for source, dataset in datasets.items()}
            self._slots = [self._open_slot() for _ in range(self._num_slots)]
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
        main, *others = slot.workers
        slot.job = job
        run = main.run.options(name=job.label)
        if not (others and job.config.treatment.is_trained):
            slot.events = run.remote(job)
            return
        # A reference: whoever is given it begins when the main actor has opened the store.
        meeting = main.meet.remote(*slot.hosts)
        slot.events = run.remote(job, meeting, len(slot.workers))
        slot.assisting = [
            other.assist.options(name=f"{job.label} process {rank}").remote(job, meeting, rank, len(slot.workers))
            for rank, other in enumerate(others, start=1)
        ]

    def prune(self, trial_id: str) -> None:
        """Send the running trial the order to stop."""
        for slot in self._slots:
            if slot.job is not None and slot.job.trial_id == trial_id:
                slot.workers[0].stop.remote(trial_id)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events that are there, waiting up to ``timeout_s`` for the first one."""
        events: list[Event] = []
        ready = self._ready(timeout_s, at_most=1)
        while ready:
            for reference, slot in ready:
                if reference in slot.awaited:
                    events += self._take(slot) if reference is slot.events else self._assisted(slot, reference)
            ready = self._ready(0.0)
        return tuple(events)

    def close(self) -> None:
        """Stop the workers and leave the cluster; one that this process started ends."""
        for slot in self._slots:
            self._dismiss(slot)
            if slot.placement is not None:
                remove_placement_group(slot.placement)
        self._slots = []
        ray.shutdown()

    def _ready(self, timeout_s: float, *, at_most: int | None = None) -> list[tuple[Any, Slot]]:
        slot_of = {reference: slot for slot in self._slots for reference in slot.awaited}
        if not slot_of:
            return []
        found, _ = ray.wait(list(slot_of), num_returns=at_most or len(slot_of), timeout=timeout_s)
        return [(reference, slot_of[reference]) for reference in found]

    def _take(self, slot: Slot) -> list[Event]:
        """Take the next event of a slot; a lost worker is an event too, and is replaced."""
        try:
            event: Event = ray.get(next(slot.events))
        except StopIteration:
            slot.free()
            return []
        except ray.exceptions.RayError as error:
            return [self._ended_by(slot, error)]
        if type(event) not in END_STATES:
            return [event]
        event = self._settle(slot, event)
        slot.free()
        return [event]

    def _assisted(self, slot: Slot, reference: Any) -> list[Event]:
        """Hear that a process has done its part; where it has failed, the attempt ends."""
        try:
            slot.core_seconds += ray.get(reference)
            slot.assisting.remove(reference)
            return []
        except ray.exceptions.RayError as error:
            # The main process mostly sees it too, and can tell more.
            events: list[Event] = []
            deadline = time.monotonic() + SETTLE_TIMEOUT_S
            while ray.wait([slot.events], timeout=max(0.0, deadline - time.monotonic()))[0]:
                events += self._take(slot)
                if slot.job is None:
                    return events
            return [*events, self._ended_by(slot, error)]

    def _settle(self, slot: Slot, end: Event) -> Event:
        """Let the processes of a slot come to their ends too; return the event with what they have to add."""
        done, silent = ray.wait(slot.assisting, num_returns=len(slot.assisting), timeout=SETTLE_TIMEOUT_S)
        losses = [Loss(Fate.SILENT.value, "", Fate.SILENT) for _ in silent]
        for reference in done:
            try:
                slot.core_seconds += ray.get(reference)
            except ray.exceptions.RayError as error:
                losses.append(Loss(reason_of(error), str(error), Fate.RAISED if _is_raised(error) else Fate.LOST))
        if losses:
            self._replace(slot)
        return ended_together(end, core_seconds=slot.core_seconds, losses=losses)

    def _ended_by(self, slot: Slot, error: Exception) -> Failed:
        """End an attempt whose main worker says nothing more: it was lost, unless another one tells the cause."""
        self._replace(slot)
        job, reason = slot.free(), reason_of(error)
        is_lost = not _is_raised(error) or is_of_messages(reason)
        return Failed(
            trial_id=job.trial_id,
            attempt=job.attempt,
            error=f"the worker was lost: {reason}" if is_lost else reason,
            traceback=str(error),
            lost=is_lost,
        )

    def _open_slot(self) -> Slot:
        """Take room for a slot and start its actors; several as close together as there is room."""
        placement = None
        if self._resources.processes > 1:
            bundle = {"CPU": self._resources.cpus, "GPU": self._resources.gpus}
            bundle = {name: amount for name, amount in bundle.items() if amount > 0}
            placement = placement_group([bundle] * self._resources.processes, strategy="PACK")
        slot = Slot(placement=placement)
        self._replace(slot)
        return slot

    def _replace(self, slot: Slot) -> None:
        """Start new actors in place of those of a slot."""
        self._dismiss(slot)
        options: dict[str, Any] = {
            "num_cpus": self._resources.cpus,
            "num_gpus": self._resources.gpus,
            "max_concurrency": 2,
        }
        for rank in range(self._resources.processes):
            if slot.placement is not None:
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(slot.placement, rank)
            worker = ray.remote(_Worker).options(**options)
            slot.workers.append(worker.remote(self._references, max(1, int(self._resources.cpus))))
        slot.hosts = [worker.host.remote() for worker in slot.workers] if slot.placement is not None else []

    def _dismiss(self, slot: Slot) -> None:
        for worker in slot.workers:
            ray.kill(worker)
        slot.workers = []


def _is_raised(error: Exception) -> bool:
    """Tell whether a task has raised an error, and its process goes on."""
    return isinstance(error, ray.exceptions.RayTaskError)


def _connect(address: str | None) -> str:
    """Start or join a cluster; return the address of its dashboard, empty if it has none."""
    if address:
        check_reachable(address)
    # A cluster that is already up has settled its dashboard; our own listens to this machine only.
    local: dict[str, Any] = {} if address else {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    if threading.current_thread() is threading.main_thread():
        # Ray has taken SIGTERM for itself and would exit on the spot; what it means is for whoever runs us to say.
        signal.signal(signal.SIGTERM, on_sigterm)
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""
