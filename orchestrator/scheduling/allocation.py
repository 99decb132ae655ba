"""What each trial gets to run on: by its scale, and more since a sibling ran out of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from orchestrator.execution.executor import Machine
from orchestrator.sweep.resource_settings import Resources, share_of
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from orchestrator.trials.trial import Trial
from specvit.config import TrialConfig


class Allocator:
    """The share of every trial. It grows by scale, since siblings of a scale need the same memory."""

    def __init__(
        self,
        resources: Resources,
        larger: Mapping[str, ResourceFloor] | None = None,
        *,
        remember: Callable[[str, ResourceFloor], None] = lambda *_: None,
    ) -> None:
        """Take what is known.

        Args:
            resources: What the sweep file says.
            larger: What earlier runs have found out, by scale.
            remember: Called with a scale and what its trials get from now on.
        """
        self._resources = resources
        self._larger = dict(larger or {})
        self._remember = remember
        self._known: dict[str, ResourceRequest] = {}

    def request_for(self, trial: Trial) -> ResourceRequest:
        """Return what a trial occupies."""
        scale = trial.config.model.scale
        if scale not in self._known:
            self._known[scale] = share_of(self._resources, scale, self._larger.get(scale))
        return self._known[scale]

    def config_of(self, trial: Trial) -> TrialConfig:
        """Return a trial's configuration, its batch computed in parts as small as its siblings need."""
        objective = trial.config.objective
        bound = self._larger.get(trial.config.model.scale, ResourceFloor()).micro_batch
        if bound is None or (objective.micro_batch or objective.batch_size) <= bound:
            return trial.config
        return replace(trial.config, objective=replace(objective, micro_batch=bound))

    def grow(
        self, trial: Trial, *, ran_with: ResourceRequest, ran_config: TrialConfig, cause: Cause, machine: Machine
    ) -> str:
        """Raise the share of a trial that ran out of memory, and of its siblings.

        Args:
            trial: The trial.
            ran_with: What it occupied.
            ran_config: How it was computed.
            cause: ``GPU_MEMORY`` or ``HOST_MEMORY``.
            machine: Where such trials run.

        Returns:
            What it gets now, human-readable; empty if there is nothing to add.
        """
        if (self.request_for(trial), self.config_of(trial)) == (ran_with, ran_config):
            objective = ran_config.objective
            larger = grow_after_oom(
                ran_with,
                cause,
                # Of several processes each has its part of the batch.
                micro_batch=min(
                    objective.micro_batch or objective.batch_size, objective.batch_size // ran_with.processes
                ),
                node_gib=machine.memory_gib,
                num_beside=machine.num_trials,
            )
            if larger is None:
                return ""
            scale = trial.config.model.scale
            if larger.micro_batch is None and scale in self._larger:
                larger = replace(larger, micro_batch=self._larger[scale].micro_batch)
            self._larger[scale] = larger
            self._known.pop(scale, None)
            self._remember(scale, larger)
        return self._text(trial, ran_with=ran_with)

    def _text(self, trial: Trial, *, ran_with: ResourceRequest) -> str:
        share = self.request_for(trial)
        if share.gpus > ran_with.gpus:
            return f"{share.gpus:g} GPUs in place of {ran_with.gpus:g}"
        if share.memory_gib > ran_with.memory_gib:
            return f"{share.memory_gib:.1f} GiB of the machine's memory reserved"
        return f"micro_batch {self.config_of(trial).objective.micro_batch}"


def grow_after_oom(
    share: ResourceRequest, cause: Cause, *, micro_batch: int, node_gib: float, num_beside: int
) -> ResourceFloor | None:
    """Return what trials get after one of them ran out of memory.

    A share of a GPU doubles, up to a whole one. Memory of the machine: what the trial had is taken to be the
    machine's, divided by the trials on it; that doubles, up to all of it, so that fewer trials run beside each other.
    Where a trial has all of a GPU or of a machine, the batch is computed in smaller parts.

    Args:
        share: What the trial occupied.
        cause: ``GPU_MEMORY`` or ``HOST_MEMORY``.
        micro_batch: How many images it computed at once, at least 1.
        node_gib: Memory of its machine, in GiB; 0 = not known, or not to be reserved.
        num_beside: Trials that ran on the machine, itself included, at least 1.

    Returns:
        The new share; None if there is nothing to add.
    """
    gpus, memory_gib = share.gpus, share.memory_gib
    if cause is Cause.GPU_MEMORY and 0 < gpus < 1:
        return ResourceFloor(min(1.0, 2 * gpus), memory_gib)
    if cause is Cause.HOST_MEMORY and node_gib > 0:
        # All processes may be on one machine: with more than this, they might have room nowhere.
        most_gib = node_gib / share.processes
        had = max(memory_gib, most_gib / num_beside)
        wanted = min(2 * had, most_gib)
        if wanted > memory_gib and had < most_gib:
            return ResourceFloor(gpus, wanted)
    if micro_batch > 1:
        return ResourceFloor(gpus, memory_gib, micro_batch // 2)
    return None
