"""The slots of a simulated executor: which are open and free, on which nodes, and what share of the whole they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.execution.capacity import Capacity, Node, Placement, amounts_of, check_room, count_slots
from orchestrator.trials.resources import ResourceRequest


@dataclass(frozen=True, eq=False)
class SimulatedSlot:
    """The place of a worker, which is of one share."""

    share: ResourceRequest
    places: tuple[Placement, ...] = ()


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
        self._named = {name for node in nodes for name in node.has}
        self._known: dict[ResourceRequest, ResourceRequest] = {}
        self._fractions: dict[ResourceRequest, float] = {}
        self._busy: dict[SimulatedSlot, None] = {}
        self._idle: dict[ResourceRequest, list[SimulatedSlot]] = {}
        self._counted: int | None = None
        self._full: set[ResourceRequest] = set()
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

    def fraction(self, share: ResourceRequest) -> float:
        """Return which share of the whole a job occupies: of what it takes the most of."""
        if share not in self._fractions:
            parts = [1 / self._most]
            for name, amount in amounts_of(self._as_known(share)).items() if self._nodes else ():
                parts.append(amount * share.processes / sum(node.has.get(name, 0.0) for node in self._nodes))
            self._fractions[share] = max(parts)
        return self._fractions[share]

    def has_room(self, share: ResourceRequest) -> bool:
        """Return whether there is a free slot, or room for one in place of free ones of other shares."""
        if len(self._busy) >= self._most or share in self._full:
            return False
        if self._idle.get(share) or not self._nodes:
            return True
        idle = list(itertools.chain(*self._idle.values()))
        for slot in idle:
            self._capacity.release(slot.places)
        places = self._capacity.reserve(self._as_known(share))
        self._capacity.release(places or ())
        for slot in idle:
            self._capacity.mark_used(slot.places)
        if places is None:
            # As long as no job ends, there is no use in looking through the nodes again.
            self._full.add(share)
        return places is not None

    def acquire(self, share: ResourceRequest) -> SimulatedSlot:
        """Return a free slot; one is opened if none is free, in place of others if need be."""
        idle = self._idle.get(share)
        slot = idle.pop() if idle else SimulatedSlot(share, self._open(share))
        self._busy[slot] = None
        return slot

    def release(self, slot: SimulatedSlot) -> None:
        """Make a slot free again."""
        del self._busy[slot]
        self._idle.setdefault(slot.share, []).append(slot)
        self._full.clear()

    def _open(self, share: ResourceRequest) -> tuple[Placement, ...]:
        while (places := self._find(share)) is None:
            slot = next(slots for slots in self._idle.values() if slots).pop()
            self._capacity.release(slot.places)
        return places

    def _find(self, share: ResourceRequest) -> tuple[Placement, ...] | None:
        if len(self._busy) + sum(map(len, self._idle.values())) >= self._most:
            return None
        return self._capacity.reserve(self._as_known(share)) if self._nodes else ()

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
