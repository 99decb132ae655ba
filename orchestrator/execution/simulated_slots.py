"""The slots of a simulated executor: which are open and free, on which nodes, and what share of the whole they are."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.execution.capacity import (
    Capacity,
    LowerBound,
    Node,
    Placement,
    amounts_of,
    check_room,
    count_slots,
)
from orchestrator.execution.executor import Place
from orchestrator.trials.resources import ResourceRequest

_MANY = 10_000
"""Jobs that run at once, at most, where only the nodes bound them."""


@dataclass(frozen=True, eq=False)
class SimulatedSlot:
    """The place of a worker, which is of one share."""

    share: ResourceRequest
    places: tuple[Placement, ...] = ()
    slot_id: str = ""

    @property
    def place(self) -> Place:
        """Return where a job runs that runs on it."""
        return Place(self.slot_id, frozenset(placement.node_id for placement in self.places))

    def is_avoided(self, avoid: frozenset[str]) -> bool:
        """Return whether it, or one of its nodes, is among those to avoid."""
        return bool(avoid) and (self.slot_id in avoid or not self.place.nodes.isdisjoint(avoid))


class SimulatedSlots:
    """Which slots are open and free. They stay open for the next job of their share, as those of a cluster do."""

    def __init__(self, *, num_slots: int | None, nodes: Sequence[Node], shares: Sequence[ResourceRequest]) -> None:
        """Start without open slots; for the arguments see ``SimulatedExecutor``.

        Raises:
            ClusterError: If a share has no room on the nodes.
        """
        if num_slots is None and not nodes:
            raise ValueError("either num_slots or nodes must be given")
        self._most = math.inf if num_slots is None else num_slots
        self._shares = tuple(dict.fromkeys(shares))
        self._nodes = tuple(nodes)
        self._capacity = Capacity(nodes)
        self._bound = LowerBound(nodes, max_slots=_MANY if num_slots is None else num_slots)
        self._named = {name for node in nodes for name in node.has}
        self._known: dict[ResourceRequest, ResourceRequest] = {}
        self._fractions: dict[ResourceRequest, float] = {}
        self._busy: dict[SimulatedSlot, None] = {}
        self._idle: dict[ResourceRequest, list[SimulatedSlot]] = {}
        self._counted: int | None = None
        self._full: set[tuple[ResourceRequest, frozenset[str]]] = set()
        self._numbers = itertools.count(1)
        for share in self._shares if nodes else ():
            check_room(nodes, self._as_known(share))

    def count(self, *, most: int) -> int:
        """Return how many jobs of the first kind run at once, at most ``most``."""
        if not self._nodes:
            return int(self._most)
        if self._counted is None:
            share = self._as_known(self._shares[0]) if self._shares else ResourceRequest()
            self._counted = count_slots(self._nodes, share, max_slots=int(min(self._most, most)))
        return max(self._counted, len(self._busy))

    def least_s(self, work: Mapping[ResourceRequest, float]) -> float:
        """Return how long work takes at least: seconds of all jobs together, by what each occupies."""
        if not self._nodes:
            return sum(work.values()) / self._most
        known: defaultdict[ResourceRequest, float] = defaultdict(float)
        for share, seconds in work.items():
            known[self._as_known(share)] += seconds
        return self._bound.seconds(known)

    def fraction(self, share: ResourceRequest) -> float:
        """Return which share of the whole a job occupies: of what it takes the most of."""
        if share not in self._fractions:
            parts = [1 / self._most]
            for name, amount in amounts_of(self._as_known(share)).items() if self._nodes else ():
                parts.append(amount * share.processes / sum(node.has.get(name, 0.0) for node in self._nodes))
            self._fractions[share] = max(parts)
        return self._fractions[share]

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether there is a free slot, or room for one in place of free ones of other shares.

        Args:
            share: What a job occupies.
            avoid: Ids of slots and nodes where it is not to run; what such slots occupy stays theirs.
        """
        if len(self._busy) >= self._most or (share, avoid) in self._full:
            return False
        if not avoid and (self._idle.get(share) or not self._nodes):
            return True
        idle = [slot for slot in itertools.chain(*self._idle.values()) if not slot.is_avoided(avoid)]
        if any(slot.share == share for slot in idle):
            return True
        if not self._nodes:
            return len(self._busy) + self._num_idle - len(idle) < self._most
        for slot in idle:
            self._capacity.release(slot.places)
        places = self._capacity.reserve(self._as_known(share), avoid)
        self._capacity.release(places or ())
        for slot in idle:
            self._capacity.mark_used(slot.places)
        if places is None:
            # As long as no job ends, there is no use in looking through the nodes again.
            self._full.add((share, avoid))
        return places is not None

    def fits(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether there is such room once nothing else runs."""
        slots = [*self._busy, *itertools.chain(*self._idle.values())]
        kept = [slot for slot in slots if slot.slot_id in avoid]
        if not self._nodes or len(kept) >= self._most:
            return len(kept) < self._most
        capacity = Capacity(self._nodes)
        for slot in kept:
            capacity.mark_used(slot.places)
        return capacity.reserve(self._as_known(share), avoid) is not None

    def acquire(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> SimulatedSlot:
        """Return a free slot; one is opened if none is free, in place of others if need be."""
        idle = self._idle.get(share, [])
        number = next((n for n in reversed(range(len(idle))) if not idle[n].is_avoided(avoid)), None)
        if number is None:
            places = self._open(share, avoid)
            slot = SimulatedSlot(share, places, f"slot {next(self._numbers)}")
        else:
            slot = idle.pop(number)
        self._busy[slot] = None
        return slot

    def release(self, slot: SimulatedSlot) -> None:
        """Make a slot free again."""
        del self._busy[slot]
        self._idle.setdefault(slot.share, []).append(slot)
        self._full.clear()

    @property
    def _num_idle(self) -> int:
        return sum(map(len, self._idle.values()))

    def _open(self, share: ResourceRequest, avoid: frozenset[str]) -> tuple[Placement, ...]:
        while (places := self._find(share, avoid)) is None:
            slot = next(slot for slot in itertools.chain(*self._idle.values()) if not slot.is_avoided(avoid))
            self._idle[slot.share].remove(slot)
            self._capacity.release(slot.places)
        return places

    def _find(self, share: ResourceRequest, avoid: frozenset[str]) -> tuple[Placement, ...] | None:
        if len(self._busy) + self._num_idle >= self._most:
            return None
        return self._capacity.reserve(self._as_known(share), avoid) if self._nodes else ()

    def _as_known(self, share: ResourceRequest) -> ResourceRequest:
        """Return a share without what no node names."""
        if share not in self._known:
            self._known[share] = replace(
                share,
                gpus=share.gpus if "GPU" in self._named else 0.0,
                memory_gib=share.memory_gib if "memory" in self._named else 0.0,
                custom=tuple((name, amount) for name, amount in share.custom if name in self._named),
                labels=share.labels if any(node.labels for node in self._nodes) else (),
            )
        return self._known[share]
