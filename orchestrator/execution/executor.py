"""The seam where trials are executed: jobs that the scheduler sends, and events that it receives.

The scheduler talks to an ``Executor``; Ray serves users, the calling process serves tests. The answer
is a stream of events, each a value: a trial that raises is an event too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.storage.checkpoint_store import StateFile
from orchestrator.storage.remote_folder import Location
from orchestrator.trials.events import Event
from orchestrator.trials.resources import WHOLE_CORE, ResourceRequest
from orchestrator.trials.stored import KeptTraining
from specvit.config import TrialConfig


@dataclass(frozen=True)
class Job:
    """One attempt at a trial.

    Attributes:
        trial_id: The trial.
        attempt: Number of the attempt, from 1.
        label: The name it carries on the dashboard and in the terminal.
        config: What is computed.
        state: Where the attempt keeps its state, and resumes that of the attempt before; None = nowhere.
        weights: Folder that keeps the trained weights, a path or at a URL; None = they are not kept.
        share: What it occupies.
        avoid: Slots and nodes, by their ids, where it is not to run.
        kept: What is known of the trial already; the job computes ``kept.missing`` alone.
        backbone: File of the backbone that is looked at then, a path or at a URL; None = it is built, or trained.
    """

    trial_id: str
    attempt: int
    label: str
    config: TrialConfig
    state: StateFile | None = None
    weights: Location | None = None
    share: ResourceRequest = WHOLE_CORE
    avoid: frozenset[str] = frozenset()
    kept: KeptTraining | None = None
    backbone: Location | None = None


@dataclass(frozen=True)
class Place:
    """Where a job runs: the id of its slot, and those of its nodes; empty where the executor has but one.

    A slot keeps its id when its process is replaced. Where the job has not started yet, ``Started`` tells when it has.
    """

    slot: str = ""
    nodes: frozenset[str] = frozenset()
    has_started: bool = False


@dataclass(frozen=True)
class Machine:
    """A machine: how much memory can be reserved there, in GiB (0 = none), and how many trials run on it."""

    memory_gib: float = 0.0
    num_trials: int = 1


class Executor(Protocol):
    """What runs jobs. Not thread safe: the scheduler's loop is its only caller."""

    @property
    def num_slots(self) -> int:
        """Return how many jobs can run at once, as things are now."""

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether a job that occupies ``share`` could start now, elsewhere than on slots and nodes to avoid."""

    def fits(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether it could start so once nothing else runs."""

    def least_s(self, work: Mapping[ResourceRequest, float]) -> float:
        """Return how long work takes at least: seconds of all jobs together, by what each occupies."""

    def held_by_others(self) -> str:
        """Return what others than this run hold of the machines, human-readable; empty if nothing."""

    def machine(self, share: ResourceRequest) -> Machine:
        """Return what a machine is like on which jobs run that occupy ``share`` each."""

    def submit(self, job: Job) -> Place:
        """Start ``job``; the caller has seen to it that there is room.

        An attempt that fails ends its process, as far as that is not this one: the next job has another one.

        Returns:
            Where it runs.
        """

    def prune(self, trial_id: str, why: str = "") -> None:
        """Ask the running trial to stop before its next step, for the reason ``why``; returns at once."""

    def kill(self, trial_id: str) -> None:
        """End the running trial at once, whatever it does; its attempt has no more events."""

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Return the events since the last call, waiting up to ``timeout_s`` for the first one."""

    def close(self) -> None:
        """Stop what runs and free what was taken; safe to call twice."""
