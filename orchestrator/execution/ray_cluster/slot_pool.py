"""The slots of a cluster, warm for the next job of their share, and the account of the room for more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from orchestrator.execution.capacity import Capacity, Node, count_slots
from orchestrator.execution.ray_cluster.slot import Slot
from orchestrator.trials.resources import ResourceRequest


class SlotPool:
    """Know which slots there are, and what can be opened on the nodes beside them."""

    def __init__(self, dismiss: Callable[[Slot], None]) -> None:
        """Begin without nodes.

        Args:
            dismiss: Ends the workers of a slot.
        """
        self._dismiss = dismiss
        self._slots: list[Slot] = []
        self._room = Capacity(())
        self._counts: dict[tuple[ResourceRequest, int], int] = {}
        self.nodes: tuple[Node, ...] = ()

    def __iter__(self) -> Iterator[Slot]:
        return iter(tuple(self._slots))

    @property
    def busy(self) -> list[Slot]:
        """Return the slots that run something."""
        return [slot for slot in self._slots if slot.job is not None]

    def of(self, trial_id: str) -> list[Slot]:
        """Return the slot that runs a trial, if one does."""
        return [slot for slot in self.busy if slot.job is not None and slot.job.trial_id == trial_id]

    def use(self, nodes: Sequence[Node]) -> None:
        """Take other nodes for those that there are; what runs on nodes that are not among them is left alone."""
        if {node.node_id for node in nodes} == {node.node_id for node in self.nodes}:
            return
        self.nodes, self._room = tuple(nodes), Capacity(nodes)
        self._counts = {}
        for slot in self._slots:
            self._room.occupy(slot.places)

    def count(self, share: ResourceRequest, *, at_most: int) -> int:
        """Return how many jobs of a share the nodes have room for when they are free."""
        key = share, at_most
        if key not in self._counts:  # many are asked for, and nodes change seldom
            self._counts[key] = count_slots(self.nodes, share, max_slots=at_most)
        return self._counts[key]

    def has_room(self, share: ResourceRequest) -> bool:
        """Tell whether a job could start now, on a free slot or on one that is opened in place of free ones."""
        idle = [slot for slot in self._slots if slot.job is None]
        if any(slot.share == share and not slot.is_leaving for slot in idle):
            return True
        for slot in idle:
            self._room.give(slot.places)
        places = self._room.take(share)
        self._room.give(places or ())
        for slot in idle:
            self._room.occupy(slot.places)
        return places is not None

    def take(self, share: ResourceRequest) -> Slot:
        """Return a free slot of a share, or a new one without workers; the caller has seen to it that there is room."""
        for slot in self._slots:
            if slot.job is None and slot.share == share and not slot.is_leaving:
                return slot
        places = self._room.take(share)
        while places is None:
            self.close(next(slot for slot in self._slots if slot.job is None))
            places = self._room.take(share)
        slot = Slot(share=share, places=places)
        self._slots.append(slot)
        return slot

    def close(self, slot: Slot) -> None:
        """End a slot and its workers; safe to call twice."""
        if not any(other is slot for other in self._slots):
            return  # its room may be another one's by now
        self._dismiss(slot)
        self._room.give(slot.places)
        self._slots = [other for other in self._slots if other is not slot]

    def clear(self) -> None:
        """Forget all slots and nodes: their cluster is gone."""
        self._slots, self._room, self.nodes, self._counts = [], Capacity(()), (), {}
