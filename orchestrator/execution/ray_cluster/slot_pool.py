"""The slots of a cluster, warm for the next job of their share, and what the nodes have room for beside them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from orchestrator.execution.capacity import Capacity, LowerBound, Node, Placement, count_slots
from orchestrator.execution.executor import Job, Place
from orchestrator.trials.resources import WHOLE_CORE, ResourceRequest

_OF_RAY = ("node:", "object_store_memory")
"""What names of resources begin with that no trial takes."""

IDLE_S = 60.0
"""How long a slot without a job keeps its workers, and the GPUs that they hold, for the next one."""

_LEAST = 1e-4
"""Amounts below this are of rounding: Ray counts in ten-thousandths."""


@dataclass
class Slot:
    """The workers that run one job at a time, and what they run.

    Attributes:
        share: What a job occupies on it.
        places: Where its workers are, one for each process.
        workers: Handles of its actors, the main one first, which runs the attempt; the others assist.
        placement: Ray's placement group of several workers; None for a single one.
        hosts: References to the addresses of several workers' machines.
        job: What runs; None = the slot is free.
        events: Generator of references to the events of the job.
        assisting: A reference to the CPU seconds of each other worker that has not done its part.
        core_seconds: CPU seconds of the other workers that have.
        is_leaving: Whether one of its machines is about to go, so that it takes no other job.
        slot_id: What tells it from the others.
        is_up: Whether its workers have been heard of; if not, others may hold what they take.
    """

    share: ResourceRequest = WHOLE_CORE
    places: tuple[Placement, ...] = ()
    workers: list[Any] = field(default_factory=list)
    placement: Any = None
    hosts: list[Any] = field(default_factory=list)
    job: Job | None = None
    events: Any = None
    assisting: list[Any] = field(default_factory=list)
    core_seconds: float = 0.0
    is_leaving: bool = False
    slot_id: str = ""
    is_up: bool = False

    @property
    def awaited(self) -> list[Any]:
        """Return all references that are to come."""
        return [] if self.job is None else [self.events, *self.assisting]

    @property
    def node_ids(self) -> frozenset[str]:
        """Return the ids of its nodes."""
        return frozenset(place.node_id for place in self.places)

    @property
    def place(self) -> Place:
        """Return where a job runs that runs on it."""
        return Place(self.slot_id, self.node_ids)

    def is_avoided(self, avoid: frozenset[str]) -> bool:
        """Return whether it, or one of its nodes, is among those to avoid."""
        return self.slot_id in avoid or not self.node_ids.isdisjoint(avoid)

    def free(self) -> Job:
        """Make room for the next job; return the last one."""
        assert self.job is not None
        job = self.job
        self.job, self.events, self.assisting, self.core_seconds = None, None, [], 0.0
        return job


class SlotPool:
    """The open slots of a cluster, and the capacity of its nodes to open more.

    Attributes:
        nodes: The nodes that can be used.
        others: What others occupy of them, by their ids.
    """

    def __init__(
        self, stop_workers: Callable[[Slot], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start without nodes.

        Args:
            stop_workers: Stops the workers of a slot.
            clock: Seconds, monotonic.
        """
        self._clock = clock
        self._idle_since_s: dict[str, float] = {}
        self._stop_workers = stop_workers
        self._slots: list[Slot] = []
        self._capacity = Capacity(())
        self._counts: dict[tuple[ResourceRequest, int], int] = {}
        self._bound: LowerBound | None = None
        self._numbers = itertools.count(1)
        self.nodes: tuple[Node, ...] = ()
        self.others: dict[str, dict[str, float]] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(tuple(self._slots))

    @property
    def busy(self) -> list[Slot]:
        """Return the slots that run something."""
        return [slot for slot in self._slots if slot.job is not None]

    def running(self, trial_id: str) -> list[Slot]:
        """Return the slot that runs a trial, if one does."""
        return [slot for slot in self.busy if slot.job is not None and slot.job.trial_id == trial_id]

    def set_nodes(
        self, nodes: Sequence[Node], free: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    ) -> None:
        """Replace the nodes; slots on nodes that are not among them stay open.

        Args:
            nodes: The nodes that can be used.
            free: What nobody occupies of them, by their ids; of a node that is not among these, others have nothing.
        """
        held = {node.node_id: self._held_by_others(node, free[node.node_id]) for node in nodes if node.node_id in free}
        others = {node_id: amounts for node_id, amounts in held.items() if amounts}
        if {node.node_id for node in nodes} == {node.node_id for node in self.nodes} and others == self.others:
            return
        self.nodes, self.others, self._counts, self._bound = tuple(nodes), others, {}, None
        self._capacity = self._without(self._slots)

    def _held_by_others(self, node: Node, free: Mapping[str, float]) -> dict[str, float]:
        """Return what of a node is neither free nor that of a slot, by name."""
        held = {name: has - free.get(name, 0.0) for name, has in node.has.items() if not name.startswith(_OF_RAY)}
        for slot in self._slots:
            for place in slot.places:
                for name, amount in place.amounts.items() if place.node_id == node.node_id else ():
                    held[name] = held.get(name, 0.0) - amount
        return {name: amount for name, amount in held.items() if amount > _LEAST}

    def _without(self, slots: Sequence[Slot]) -> Capacity:
        """Return the capacity of the nodes without what others and some slots have."""
        capacity = Capacity(self.nodes)
        for slot in slots:
            capacity.mark_used(slot.places)
        for node_id, amounts in self.others.items():
            capacity.mark_others(node_id, amounts)
        return capacity

    def count(self, share: ResourceRequest, *, at_most: int) -> int:
        """Return how many jobs of a share the nodes have room for when they are free."""
        key = share, at_most
        if key not in self._counts:  # asked for with every event, while nodes change seldom
            self._counts[key] = count_slots(self.nodes, share, max_slots=at_most, others=self.others)
        return self._counts[key]

    def least_s(self, work: Mapping[ResourceRequest, float], *, at_most: int) -> float:
        """Return how long work takes at least, whatever others hold now: seconds of all jobs, by what each occupies."""
        if self._bound is None:
            self._bound = LowerBound(self.nodes, max_slots=at_most)
        return self._bound.seconds(work)

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether a job could start now, on a free slot or on one that is opened in place of free ones.

        Args:
            share: What the job occupies.
            avoid: Ids of slots and nodes where it is not to run; what such slots occupy stays theirs.
        """
        idle = self._idle(avoid)
        if any(slot.share == share for slot in idle):
            return True
        for slot in idle:
            self._capacity.release(slot.places)
        places = self._capacity.reserve(share, avoid)
        self._capacity.release(places or ())
        for slot in idle:
            self._capacity.mark_used(slot.places)
        return places is not None

    def fits(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether a job could start once nothing else runs; for the arguments see ``has_room``."""
        capacity = self._without([slot for slot in self._slots if slot.slot_id in avoid])
        return capacity.reserve(share, avoid) is not None

    def acquire(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> Slot:
        """Return a free slot of a share, or a new one without workers; the caller has seen to it that there is room."""
        for slot in self._idle(avoid):
            if slot.share == share:
                return slot
        places = self._capacity.reserve(share, avoid)
        while places is None:
            self.close(self._idle(avoid)[0])
            places = self._capacity.reserve(share, avoid)
        slot = Slot(share=share, places=places, slot_id=f"slot {next(self._numbers)}")
        self._slots.append(slot)
        return slot

    def _idle(self, avoid: frozenset[str]) -> list[Slot]:
        """Return the free slots that may be used, or closed in favour of others."""
        return [
            slot for slot in self._slots if slot.job is None and not slot.is_leaving and not slot.is_avoided(avoid)
        ]

    def close(self, slot: Slot) -> None:
        """Close a slot and stop its workers; safe to call twice."""
        if not any(other is slot for other in self._slots):
            return  # its places may be another one's by now
        self._stop_workers(slot)
        self._capacity.release(slot.places)
        self._slots = [other for other in self._slots if other is not slot]

    def close_idle(self) -> None:
        """Close the slots that have been free for a while: others may have a use for what they take."""
        now_s = self._clock()
        since_s = {slot.slot_id: self._idle_since_s.get(slot.slot_id, now_s) for slot in self if slot.job is None}
        self._idle_since_s = since_s
        for slot in self:
            if now_s - since_s.get(slot.slot_id, now_s) > IDLE_S:
                self.close(slot)

    def clear(self) -> None:
        """Forget all slots and nodes: their cluster is gone."""
        self._slots, self._capacity, self.nodes, self.others, self._counts = [], Capacity(()), (), {}, {}
        self._bound = None
