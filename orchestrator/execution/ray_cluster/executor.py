"""The executor for users: warm Ray actors, one per slot, or several that train a trial together.

The only module that imports ray. Each actor imports torch and takes the data from the node's object store once, then
runs job after job. A job is one actor task that carries the trial's label, so that the Ray dashboard lists trials by
name; its events stream back as the task's results. Where a trial takes several processes, the other actors of its slot
assist; when one of them is lost, the attempt is, and all of them are replaced.

Slots are opened where there is room for the next job, also on nodes that join later. Nodes that are about to go are
left: their trials save their states and go on elsewhere. When the whole cluster is gone, its trials wait for it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

# Ray reads this when it is imported: no calls home.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.metrics import Counter, Gauge
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.execution.capacity import (
    ClusterError,
    Node,
    amounts_of,
    asks_for_token,
    check_reachable,
    check_room,
    machine_for,
)
from orchestrator.execution.executor import Job, Machine
from orchestrator.execution.metrics import Sample
from orchestrator.execution.ray_cluster.actor import TrialActor
from orchestrator.execution.ray_cluster.health import ClusterHealth
from orchestrator.execution.ray_cluster.node_check import NodeChecks, NodeReport, NodeRequirements, compare, look
from orchestrator.execution.ray_cluster.slot import (
    ExitKind,
    Slot,
    WorkerLoss,
    cause_of_loss,
    is_connection_error,
    lost,
    merge_outcomes,
    reason_of,
)
from orchestrator.execution.ray_cluster.slot_pool import SlotPool
from orchestrator.execution.worker import Runner
from orchestrator.trials.events import END_STATES, Event, Failed
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceRequest
from specvit.data import Dataset, DataSource
from specvit.errors import DataError

SETTLE_TIMEOUT_S = 10.0
"""Longest wait, once a trial of several processes has come to an end, for what each has to say of it."""

CHECK_TIMEOUT_S = 120.0
"""Longest wait for what a node says of its code and data."""

CLOSE_TIMEOUT_S = 10.0
"""Longest wait, at the end, for trials to save their states."""

_NODE_LABEL = "ray.io/node-id"
_LOG = logging.getLogger(__name__)


class RayExecutor:
    """Run jobs on a Ray cluster: the local machine, or one that is already up."""

    def __init__(
        self,
        datasets: Mapping[DataSource, Dataset],
        *,
        shares: Sequence[ResourceRequest],
        max_slots: int,
        address: str | None = None,
        wanted: NodeRequirements | None = None,
        runner: Runner | None = None,
    ) -> None:
        """Start or join the cluster, and check that its nodes have the code, the data and the room.

        Args:
            datasets: What the trials' data sources load, shared by all workers of a node without copies.
            shares: What the trials take, each kind at least once, the first one's first.
            max_slots: Largest number of slots that are of use.
            address: Address of a running cluster, ``auto`` to find one; None = start one on this machine.
            wanted: What every node must have; None = the code alone.
            runner: What computes a trial; None = ``specvit.trial.run_trial``.

        Raises:
            ClusterError: If the cluster cannot be reached, has no room for a trial, or a node lacks something.
        """
        self._datasets, self._wanted, self._runner = datasets, wanted or NodeRequirements.of_this_code(), runner
        self._first_share, self._max_slots = shares[0], max_slots
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._slots = SlotPool(_dismiss)
        self._watch = ClusterHealth()
        self._instruments: dict[str, Any] = {}
        self._early: list[Event] = []  # what is known of jobs before they are heard of
        self._join()
        try:
            for share in dict.fromkeys(shares):
                check_room(self._slots.nodes, share)
        except BaseException:
            ray.shutdown()
            raise

    @property
    def num_slots(self) -> int:
        """Return how many trials run at once; where their shares differ, those of the first kind."""
        if self._watch.is_gone:
            return 0
        return max(self._slots.count(self._first_share, at_most=self._max_slots), len(self._slots.busy))

    def has_room(self, share: ResourceRequest) -> bool:
        """Tell whether a job could start now, on a slot that is free or on one that can be opened."""
        if self._watch.is_gone or len(self._slots.busy) >= self._max_slots:
            return False
        return self._slots.has_room(share)

    def machine(self, share: ResourceRequest) -> Machine:
        """Return the machine with the most memory on which such jobs run."""
        return machine_for(self._slots.nodes, share)

    def submit(self, job: Job) -> None:
        """Start ``job`` on a slot of its share, under its label."""
        slot = self._slots.take(job.share)
        slot.job = job
        try:
            self._start(slot, job)
        except ray.exceptions.RayError as error:  # in this moment the node, or the cluster, is lost
            self._early += self._ended_by(slot, error)

    def _start(self, slot: Slot, job: Job) -> None:
        if not slot.workers:
            self._hire(slot)
        main, *others = slot.workers
        run = main.run.options(name=job.label)
        if not (others and job.config.treatment.is_trained):
            slot.events = run.remote(job)
            return
        # A reference: whoever is given it begins when the main actor has opened the store.
        rendezvous = main.open_rendezvous.remote(*slot.hosts)
        slot.events = run.remote(job, rendezvous, len(slot.workers))
        slot.assisting = [
            other.assist.options(name=f"{job.label} process {rank}").remote(job, rendezvous, rank, len(slot.workers))
            for rank, other in enumerate(others, start=1)
        ]

    def prune(self, trial_id: str) -> None:
        """Send the running trial the order to stop."""
        for slot in self._slots.of(trial_id):
            assert slot.job is not None
            slot.workers[0].stop.remote(trial_id, slot.job.attempt)

    def kill(self, trial_id: str) -> None:
        """End the workers of the running trial, and start others."""
        for slot in self._slots.of(trial_id):
            slot.free()
            self._slots.close(slot)

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events that are there, waiting up to ``timeout_s`` for the first one."""
        if self._early:
            early, self._early = self._early, []
            return tuple(early)
        if self._watch.is_gone:
            return self._wait_for_cluster(timeout_s)
        if self._watch.is_due():
            if not self._is_there():
                return self._lose_cluster()
            with suppress(ray.exceptions.RayError):
                self._use_nodes()
        events: list[Event] = []
        ready = self._ready(timeout_s, at_most=1)
        while ready and not self._watch.is_gone:
            for reference, slot in ready:
                if reference in slot.awaited:
                    events += self._take(slot) if reference is slot.events else self._assisted(slot, reference)
            ready = self._ready(0.0)
        return (*events, *self._leave_lost_nodes())

    def publish(self, samples: Sequence[Sample]) -> None:
        """Set the cluster's metrics, which Prometheus collects from Ray."""
        if self._watch.is_gone:
            return
        for sample in samples:
            kind = Counter if sample.is_counter else Gauge
            if sample.name not in self._instruments:
                self._instruments[sample.name] = kind(sample.name, sample.text, tag_keys=tuple(sample.tags))
            instrument = self._instruments[sample.name]
            (instrument.inc if sample.is_counter else instrument.set)(sample.value, tags=dict(sample.tags))

    def close(self) -> None:
        """Let running trials save their states, stop the workers and leave the cluster; one of our own ends."""
        if not self._watch.is_gone:
            self._interrupt(self._slots.busy)
            until_s = time.monotonic() + CLOSE_TIMEOUT_S
            while self._slots.busy and time.monotonic() < until_s and self._is_there():
                for _, slot in self._ready(0.1):
                    if slot.job is not None:
                        self._take(slot)
            for slot in self._slots:
                self._slots.close(slot)
        self._slots.clear()
        ray.shutdown()

    def _interrupt(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            assert slot.job is not None
            slot.workers[0].interrupt.remote(slot.job.trial_id, slot.job.attempt)

    def _ready(self, timeout_s: float, *, at_most: int | None = None) -> list[tuple[Any, Slot]]:
        slot_of = {reference: slot for slot in self._slots for reference in slot.awaited}
        if not slot_of:
            time.sleep(timeout_s)
            return []
        found, _ = ray.wait(list(slot_of), num_returns=at_most or len(slot_of), timeout=timeout_s)
        return [(reference, slot_of[reference]) for reference in found]

    def _take(self, slot: Slot) -> list[Event]:
        """Take the next events of a slot; a lost worker is an event too."""
        try:
            events: list[Event] = ray.get(next(slot.events))
        except StopIteration:
            slot.free()
            return []
        except ray.exceptions.RayError as error:
            return self._ended_by(slot, error)
        if type(events[-1]) in END_STATES:
            events[-1] = self._settle(slot, events[-1])
            slot.free()
            if slot.is_leaving:
                self._slots.close(slot)
        return events

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
            return [*events, *self._ended_by(slot, error)]

    def _settle(self, slot: Slot, end: Event) -> Event:
        """Let the processes of a slot come to their ends too; return the event with what they have to add."""
        if not slot.assisting:
            return merge_outcomes(end, core_seconds=slot.core_seconds, losses=())
        done, silent = ray.wait(slot.assisting, num_returns=len(slot.assisting), timeout=SETTLE_TIMEOUT_S)
        losses = [WorkerLoss(ExitKind.SILENT.value, "", ExitKind.SILENT) for _ in silent]
        for reference in done:
            try:
                slot.core_seconds += ray.get(reference)
            except ray.exceptions.RayError as error:
                losses.append(
                    WorkerLoss(reason_of(error), str(error), ExitKind.RAISED if _is_raised(error) else ExitKind.LOST)
                )
        ended = merge_outcomes(end, core_seconds=slot.core_seconds, losses=losses)
        if losses:
            self._slots.close(slot)
            if isinstance(ended, Failed) and ended.cause is Cause.WORKER and self._has_lost_node(slot):
                return replace(ended, cause=Cause.NODE)
        return ended

    def _ended_by(self, slot: Slot, error: Exception) -> list[Event]:
        """End an attempt whose main worker says nothing more: it was lost, unless another one tells the cause."""
        if not self._is_there():
            return list(self._lose_cluster())
        job, reason = slot.free(), reason_of(error)
        self._slots.close(slot)
        is_node = self._has_lost_node(slot)
        is_lost = not _is_raised(error) or is_connection_error(reason)
        return [
            Failed(
                trial_id=job.trial_id,
                attempt=job.attempt,
                error=f"the worker was lost: {reason}" if is_lost else reason,
                traceback=str(error),
                cause=(Cause.NODE if is_node else cause_of_loss(str(error))) if is_lost else Cause.RAISED,
            )
        ]

    def _has_lost_node(self, slot: Slot) -> bool:
        """Tell whether a worker of a slot was lost with its node; nothing is placed on that one any more."""
        with suppress(ray.exceptions.RayError):
            self._use_nodes(slot.node_ids)
        return not slot.node_ids <= self._alive

    def _hire(self, slot: Slot) -> None:
        """Start the workers of a slot where room for it was found; several as close together as there is room."""
        share = slot.share
        options: dict[str, Any] = {
            "num_cpus": share.cpus,
            "num_gpus": share.gpus,
            "memory": amounts_of(share).get("memory"),
            "resources": dict(share.custom) or None,
            "max_concurrency": 2,
        }
        selectors = [{**dict(share.labels), _NODE_LABEL: place.node_id} for place in slot.places]
        if share.processes > 1:
            bundles = [amounts_of(share)] * share.processes
            slot.placement = placement_group(bundles, strategy="PACK", bundle_label_selector=selectors)
        for rank, selector in enumerate(selectors):
            if slot.placement is not None:
                options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(slot.placement, rank)
            else:
                options["label_selector"] = selector
            worker = ray.remote(TrialActor).options(**options)
            slot.workers.append(
                worker.remote(
                    self._references,
                    fetch=_fetch,
                    host=_host,
                    num_threads=max(1, int(share.cpus)),
                    runner=self._runner,
                )
            )
        slot.hosts = [worker.host.remote() for worker in slot.workers] if slot.placement is not None else []

    def _join(self) -> None:
        """Start or join the cluster, hand it the data, and check its nodes."""
        self.dashboard_url = _connect(self._address)
        try:
            context = ray.get_runtime_context()
            self._gcs_address, self._own_node = context.gcs_address, context.get_node_id()
            self._references = {source: ray.put(dataset) for source, dataset in self._datasets.items()}
            self._checks = NodeChecks(self._ask, self._answer)
            self._require_nodes()
            self._use_nodes()
        except BaseException:
            ray.shutdown()
            raise

    def _require_nodes(self) -> None:
        """Check the nodes that the cluster begins with, of which some may be going just now.

        Raises:
            ClusterError: If one that stays lacks something.
        """
        nodes = self._staying()
        while True:
            try:
                self._checks.require(nodes, timeout_s=CHECK_TIMEOUT_S)
                return
            except ClusterError:
                before, nodes = nodes, self._staying()
                if {node.node_id for node in before} <= {node.node_id for node in nodes}:
                    raise

    def _staying(self) -> list[Node]:
        alive, leaving = _alive(), _draining()
        return [
            node
            for node in self._watch.answering(alive, suspects=[node.node_id for node in alive])
            if node.node_id not in leaving
        ]

    def _use_nodes(self, suspects: frozenset[str] = frozenset()) -> None:
        """See which nodes there are, take those into use that have code and data, and leave those that are to go.

        Args:
            suspects: Where a worker was lost: Ray takes a while to see that a node is.
        """
        alive, leaving = self._watch.answering(_alive(), suspects=suspects), _draining()
        self._alive = frozenset(node.node_id for node in alive)
        self._slots.use(self._checks.passed([node for node in alive if node.node_id not in leaving]))
        for slot in self._slots:
            if slot.node_ids & leaving and not slot.is_leaving:
                slot.is_leaving = True
                self._interrupt([slot]) if slot.job is not None else self._slots.close(slot)

    def _leave_lost_nodes(self) -> Iterator[Event]:
        """Close the slots on nodes that are gone: Ray says nothing of jobs that were on their way there."""
        for slot in self._slots:
            if not slot.node_ids <= self._alive:
                if slot.job is not None:
                    yield lost(slot.free(), "its node is gone", Cause.NODE)
                self._slots.close(slot)

    def _ask(self, node: Node) -> Any:
        """Have a node say what it has of code and data; this process's own machine has the same."""
        references = {} if node.node_id == self._own_node else self._references
        options = {"num_cpus": 0, "label_selector": {_NODE_LABEL: node.node_id}, "name": "check of a node"}
        return ray.remote(_look_from_node).options(**options).remote(self._wanted, references)

    def _answer(self, asked: Any, timeout_s: float) -> str | None:
        """Return what a node lacks; None if it has not answered yet."""
        try:
            found: NodeReport = ray.get(asked, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            return None
        except ray.exceptions.RayError as error:
            return f"it cannot run specsweep ({reason_of(error)})"
        if not found.sees_path:
            _LOG.warning("%s does not see the results folder: states of trials that run there are lost", found.host)
        return compare(self._wanted, found)

    def _is_there(self) -> bool:
        return self._watch.is_there(self._gcs_address)

    def _lose_cluster(self) -> Sequence[Event]:
        """End all attempts, since the cluster is gone, and begin to wait for it."""
        _LOG.warning("the Ray cluster at %s is gone; waiting for it to come back", self._gcs_address)
        jobs = [slot.free() for slot in self._slots.busy]
        self._slots.clear()
        self._instruments = {}
        self._watch.lose()
        with suppress(Exception):  # whatever is left of it
            ray.shutdown()
        return tuple(lost(job, "the Ray cluster is gone", Cause.NODE) for job in jobs)

    def _wait_for_cluster(self, timeout_s: float) -> Sequence[Event]:
        """Try from time to time to join the cluster again.

        Raises:
            ClusterError: If it has been gone for too long.
        """
        if not self._watch.is_due():
            time.sleep(timeout_s)
            return ()
        try:
            self._join()
        except (ClusterError, ray.exceptions.RayError) as error:
            self._watch.raise_if_timed_out(error)
            return ()
        self._watch.back()
        _LOG.warning("the Ray cluster is back")
        return ()


def _dismiss(slot: Slot) -> None:
    """End the workers of a slot."""
    for worker in slot.workers:
        ray.kill(worker)
    slot.workers = []
    if slot.placement is not None:
        remove_placement_group(slot.placement)


def _look_from_node(wanted: NodeRequirements, references: Mapping[DataSource, Any]) -> NodeReport:
    return look(wanted, references, fetch=_fetch)


def _fetch(reference: Any) -> Dataset:
    """Fetch data from the object store.

    Raises:
        DataError: If this machine cannot read them.
    """
    try:
        dataset: Dataset = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise DataError(str(error).partition("\n")[0].removeprefix("System error: ")) from error
    return dataset


def _host() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _is_raised(error: Exception) -> bool:
    """Tell whether a task has raised an error, and its process goes on."""
    return isinstance(error, ray.exceptions.RayTaskError)


def _alive() -> list[Node]:
    """Return the nodes of the cluster that are alive."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(n["NodeID"], n["Resources"], n.get("Labels") or {}, f"{n['NodeManagerAddress']}:{n['NodeManagerPort']}")
        for n in nodes
        if n["Alive"]
    ]


def _draining() -> frozenset[str]:
    """Return the ids of the nodes that are about to go."""
    return frozenset(ray._private.state.state.get_draining_nodes())


@contextmanager
def _token_shown() -> Iterator[None]:
    """Have Ray show its token, if there is one here, to a cluster at an address that asks for it.

    By itself it does so to its own only. Shown to a cluster without tokens, its workers would in turn be asked for one.
    """
    mode = os.environ.get("RAY_AUTH_MODE")
    logging.getLogger("ray").setLevel(logging.ERROR)
    with suppress(ImportError):  # releases of Ray before 2.60 have no such default
        from ray._private.authentication import authentication_token_setup

        authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        yield
    finally:
        # Not for the nodes that others may start from this process.
        if mode is None:
            os.environ.pop("RAY_AUTH_MODE", None)


def _connect(address: str | None) -> str:
    """Start or join a cluster; return the address of its dashboard, empty if it has none."""
    if address:
        check_reachable(address)
    # A cluster that is already up has settled its dashboard; our own listens to this machine only.
    local: dict[str, Any] = {} if address else {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with _token_shown() if address and asks_for_token(address) else nullcontext():
            context = ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "; if it asks for a token, that has to be in ~/.ray/auth_token or RAY_AUTH_TOKEN" if address else ""
        raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {error}{hint}") from error
    if threading.current_thread() is threading.main_thread():
        # Ray has taken SIGTERM for itself and would exit on the spot; what it means is for whoever runs us to say.
        signal.signal(signal.SIGTERM, on_sigterm)
    return f"http://{context.dashboard_url}" if context.dashboard_url else ""
