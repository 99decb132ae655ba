"""What stand-ins for an executor have in common."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.execution.executor import Machine
from orchestrator.trials.resources import ResourceRequest


class PlainSlots:
    """The part of an executor that says what there is: slots that hold any trial, nobody else's, on a large machine."""

    num_slots: int

    def fits(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        return True

    def least_s(self, work: Mapping[ResourceRequest, float]) -> float:
        return sum(work.values()) / self.num_slots

    def held_by_others(self) -> str:
        return ""

    def machine(self, share: ResourceRequest) -> Machine:  # noqa: ARG002
        return Machine()
