"""The executor for users: warm Ray actors, one per slot, or several that train a trial together.

Each actor imports torch and takes the data from the node's object store once, then runs job after job, until an attempt
fails: the next one on its slot has a new process. A job is one actor task that carries the trial's label, so that the
Ray dashboard lists trials by name; its events stream back as the task's results. Where a trial takes several processes,
the other actors of its slot assist; when one of them is lost, the attempt is, and all of them are replaced.

Slots are opened where there is room, also on nodes that join later. Nodes that are about to go are left: their trials
resume elsewhere. When the whole cluster is gone, its trials wait for it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray

from orchestrator.execution.capacity import amounts_of, check_room, describe_others, machine_for
from orchestrator.execution.executor import Job, Machine, Place
from orchestrator.execution.metrics import Sample
from orchestrator.execution.ray_cluster import failures, worker_group
from orchestrator.execution.ray_cluster.cluster import Cluster
from orchestrator.execution.ray_cluster.connection import other_jobs, request_room
from orchestrator.execution.ray_cluster.node_check import NodeRequirements
from orchestrator.execution.ray_cluster.slot_pool import Slot, SlotPool
from orchestrator.execution.worker import Runner
from orchestrator.trials.events import END_STATES, Event, Failed, Pruned
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceRequest
from specvit.data import Dataset, DataSource

CLOSE_TIMEOUT_S = 10.0
"""Longest wait, at the end, for trials to save their states."""


class RayExecutor:
    """The executor on a Ray cluster: the local machine, or one that is already up."""

    def __init__(
        self,
        datasets: Mapping[DataSource, Dataset],
        *,
        shares: Sequence[ResourceRequest],
        max_slots: int,
        address: str | None = None,
        wanted: NodeRequirements | None = None,
        runner: Runner | None = None,
        job_name: str = "",
    ) -> None:
        """Start or join the cluster, and check that its nodes have the code, the data and the room.

        Args:
            datasets: What the trials' data sources load, shared by all workers of a node without copies.
            shares: What the trials take, each kind at least once, the first one's first.
            max_slots: Largest number of slots that are of use.
            address: Address of a running cluster, ``auto`` to find one; None = start one on this machine.
            wanted: What every node must have; None = the code alone.
            runner: What computes a trial; None = ``specvit.trial.run_trial``.
            job_name: Name under which the cluster lists this job.

        Raises:
            ClusterError: If the cluster cannot be reached, has no room for a trial, or a node lacks something.
        """
        self._first_share, self._max_slots, self._runner = shares[0], max_slots, runner
        self._is_own = not (address or os.environ.get("RAY_ADDRESS"))
        self._slots = SlotPool(worker_group.stop_workers)
        self._pending_events: list[Event] = []  # the ends of jobs that could not be started
        wanted = replace(wanted or NodeRequirements.of_this_code(), with_gpus=any(share.gpus for share in shares))
        self._cluster = Cluster(datasets, address=address, wanted=wanted, job_name=job_name)
        self.dashboard_url = self._cluster.dashboard_url
        try:
            self._look_at_nodes()
            for share in dict.fromkeys(shares):
                check_room(self._slots.nodes, share)
        except BaseException:
            self._cluster.leave()
            raise

    @property
    def num_slots(self) -> int:
        """Return how many trials run at once; where their shares differ, those of the first kind."""
        if self._cluster.is_gone:
            return 0
        return max(self._slots.count(self._first_share, at_most=self._max_slots), len(self._slots.busy))

    @property
    def num_gpus(self) -> float:
        """Return the GPUs of the nodes."""
        return sum(node.has.get("GPU", 0.0) for node in self._slots.nodes)

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether a job could start now, on a slot that is free or on one that can be opened."""
        if self._cluster.is_gone or len(self._slots.busy) >= self._max_slots:
            return False
        return self._slots.has_room(share, avoid)

    def fits(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether a job could start once nothing else of ours runs."""
        return self._slots.fits(share, avoid)

    def least_s(self, work: Mapping[ResourceRequest, float]) -> float:
        """Return how long work takes at least: seconds of all jobs together, by what each occupies."""
        return self._slots.least_s(work, at_most=self._max_slots)

    def held_by_others(self) -> str:
        """Return what others hold of the nodes, and the jobs of the cluster beside this one, human-readable."""
        if self._cluster.is_gone:
            return "the cluster is gone"
        with suppress(ray.exceptions.RayError):
            return describe_others(self._slots.nodes, self._slots.others, other_jobs())
        return ""

    def machine(self, share: ResourceRequest) -> Machine:
        """Return the machine with the most memory on which such jobs run."""
        return machine_for(self._slots.nodes, share)

    def submit(self, job: Job) -> Place:
        """Start ``job`` on a slot of its share, under its label; return where."""
        slot = self._slots.acquire(job.share, job.avoid)
        slot.job, place = job, slot.place
        try:
            if not slot.workers:
                worker_group.start_workers(slot, self._cluster.references, self._runner)
            worker_group.start_job(slot, job)
        except ray.exceptions.RayError as error:  # in this moment the node, or the cluster, is lost
            self._pending_events += self._lose_attempt(slot, error)
        return place

    def prune(self, trial_id: str, why: str = "") -> None:
        """Ask the running trial to stop for good."""
        for slot in self._slots.running(trial_id):
            worker_group.prune_job(slot, why)

    def kill(self, trial_id: str) -> None:
        """Stop the workers of the running trial at once, and start others for the next job if these were there."""
        for slot in self._slots.running(trial_id):
            slot.free()
            self._renew(slot) if slot.is_up else self._slots.close(slot)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events that are there, waiting up to ``timeout_s`` for the first one."""
        if self._pending_events:
            pending, self._pending_events = self._pending_events, []
            return pending
        if self._cluster.is_gone and not self._cluster.wait(timeout_s):
            return ()
        # Ray reports a lost head or node after a minute or more, and of some jobs never: we ask them ourselves.
        if self._cluster.is_due():
            if not self._cluster.is_there():
                return self._lose_cluster()
            with suppress(ray.exceptions.RayError):  # such as of a node that goes just now: the next look tells
                self._look_at_nodes()
        events: list[Event] = []
        # Wait for one result, to pass it on at once; then take all others that are there, however many slots are busy.
        ready = self._ready(timeout_s, at_most=1)
        while ready and not self._cluster.is_gone:
            for reference, slot in ready:
                # An event before it may have ended the job, and what it awaited is not awaited any more.
                if reference is slot.events:
                    events += self._main_events(slot)
                elif reference in slot.awaited:
                    events += self._other_events(slot, reference)
            ready = self._ready(0.0)
        return [*events, *self._lost_with_their_nodes()]

    def publish(self, samples: Sequence[Sample]) -> None:
        """Set the cluster's metrics, which Prometheus collects from Ray."""
        self._cluster.publish(samples)

    def ask_for(self, jobs: Mapping[ResourceRequest, int]) -> None:
        """Ask the autoscaler of a cluster that was up, if it has one, for room for so many jobs at once."""
        if self._is_own or self._cluster.is_gone:
            return
        all_jobs = itertools.chain.from_iterable(itertools.repeat(share, count) for share, count in jobs.items())
        at_once = itertools.islice(all_jobs, self._max_slots)
        wanted = [share for share in at_once for _ in range(share.processes)]
        with suppress(ray.exceptions.RayError, RuntimeError):
            request_room([amounts_of(share) for share in wanted], [dict(share.labels) for share in wanted])

    def close(self) -> None:
        """Let running trials save their states, stop the workers and leave the cluster; one of our own ends."""
        if not self._cluster.is_gone:
            for slot in self._slots.busy:
                worker_group.interrupt_job(slot)
            until_s = time.monotonic() + CLOSE_TIMEOUT_S
            while self._slots.busy and time.monotonic() < until_s and self._cluster.is_there():
                for _, slot in self._ready(0.1):
                    if slot.job is not None:
                        self._main_events(slot)
            for slot in self._slots:
                self._slots.close(slot)
        self._slots.clear()
        self._cluster.leave()

    def _ready(self, timeout_s: float, *, at_most: int | None = None) -> list[tuple[Any, Slot]]:
        slot_of = {reference: slot for slot in self._slots for reference in slot.awaited}
        if not slot_of:
            time.sleep(timeout_s)
            return []
        found, _ = ray.wait(list(slot_of), num_returns=at_most or len(slot_of), timeout=timeout_s)
        return [(reference, slot_of[reference]) for reference in found]

    def _main_events(self, slot: Slot) -> list[Event]:
        """Return the next events of a slot's job; a lost worker is an event too."""
        try:
            events: list[Event] = ray.get(next(slot.events))
        except StopIteration:
            slot.free()
            return []
        except ray.exceptions.RayError as error:
            failed = failures.event_of(error)
            if failed is None:
                return self._lose_attempt(slot, error)
            worker_group.wait_until_over(slot.events)
            events = [failed]
        slot.is_up = True
        if type(events[-1]) in END_STATES:
            events[-1] = self._settle(slot, events[-1])
        return events

    def _other_events(self, slot: Slot, reference: Any) -> list[Event]:
        """Add the CPU seconds of a process that has done its part; where it has failed, end the attempt."""
        try:
            slot.core_seconds += ray.get(reference)
            slot.assisting.remove(reference)
            return []
        except ray.exceptions.RayError as error:
            # The main process mostly sees it too, and can tell more.
            events: list[Event] = []
            deadline = time.monotonic() + worker_group.SETTLE_TIMEOUT_S
            while ray.wait([slot.events], timeout=max(0.0, deadline - time.monotonic()))[0]:
                events += self._main_events(slot)
                if slot.job is None:
                    return events
            return [*events, *self._lose_attempt(slot, error)]

    def _settle(self, slot: Slot, end: Event) -> Event:
        """Free a slot whose job has ended, once its other processes have too; return the end with what they add."""
        losses = worker_group.collect_outcomes(slot)
        merged = failures.merge_outcomes(end, core_seconds=slot.core_seconds, losses=losses)
        if isinstance(end, Pruned):
            worker_group.mark_pruned(slot, end.step)
        slot.free()
        has_lost_node = bool(losses) and self._has_lost_node(slot)
        if has_lost_node or slot.is_leaving:
            self._slots.close(slot)
        elif losses or (isinstance(merged, Failed) and merged.cause is not Cause.NODE):
            self._renew(slot)
        if has_lost_node and isinstance(merged, Failed) and merged.cause is Cause.WORKER:
            return replace(merged, cause=Cause.NODE)
        return merged

    def _renew(self, slot: Slot) -> None:
        """Replace the processes of a slot: after an error they may be of no use, as where a CUDA context is broken.

        At once: the new ones get the devices of the former ones, also if nothing is to run there for a while.
        """
        worker_group.stop_workers(slot)
        try:
            worker_group.start_workers(slot, self._cluster.references, self._runner)
        except ray.exceptions.RayError:
            self._slots.close(slot)

    def _lose_attempt(self, slot: Slot, error: Exception) -> list[Event]:
        """End an attempt whose main worker sends no more: it was lost, unless the error is the trial's own."""
        if not self._cluster.is_there():
            return self._lose_cluster()
        job, reason, text = slot.free(), failures.reason_of(error), str(error)
        cause = Cause.NODE if self._has_lost_node(slot) else failures.cause_of_loss(text)
        if cause is Cause.NODE or slot.is_leaving:
            self._slots.close(slot)
        else:
            self._renew(slot)
        if failures.is_raised(error) and not failures.is_connection_error(reason):
            return [failures.lost_attempt(job, reason, Cause.RAISED, text)]
        return [failures.lost_attempt(job, f"the worker was lost: {reason}", cause, text)]

    def _has_lost_node(self, slot: Slot) -> bool:
        """Return whether a worker of a slot was lost with its node, which is not used any more."""
        with suppress(ray.exceptions.RayError):
            self._look_at_nodes(suspects=slot.node_ids)
        return not slot.node_ids <= self._cluster.alive

    def _look_at_nodes(self, suspects: Collection[str] = ()) -> None:
        """Take new nodes into use, and leave those that are about to go."""
        self._slots.set_nodes(self._cluster.usable_nodes(suspects), self._cluster.free_amounts())
        self._slots.close_idle()
        for slot in self._slots:
            if slot.node_ids & self._cluster.leaving and not slot.is_leaving:
                slot.is_leaving = True
                worker_group.interrupt_job(slot) if slot.job is not None else self._slots.close(slot)

    def _lost_with_their_nodes(self) -> Iterator[Event]:
        """Close the slots on nodes that are gone: Ray says nothing of jobs that were on their way there."""
        for slot in self._slots:
            if not slot.node_ids <= self._cluster.alive:
                if slot.job is not None:
                    yield failures.lost_attempt(slot.free(), "its node is gone", Cause.NODE)
                self._slots.close(slot)

    def _lose_cluster(self) -> list[Event]:
        """End all attempts, since the cluster is gone."""
        jobs = [slot.free() for slot in self._slots.busy]
        self._slots.clear()
        self._cluster.mark_lost()
        return [failures.lost_attempt(job, "the Ray cluster is gone", Cause.NODE) for job in jobs]
