"""An executor whose trials take no time: its clock jumps from event to event. It computes nothing and never sleeps."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from orchestrator.execution.capacity import Node
from orchestrator.execution.executor import Job, Machine
from orchestrator.execution.simulated_slots import SimulatedSlot, SimulatedSlots
from orchestrator.trials.events import Event, Failed, Finished, Pruned
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceRequest

_EPSILON = 1e-9


@dataclass(frozen=True)
class Conditions:
    """Say what trials meet with besides their own work.

    Attributes:
        start_up_s: Seconds that a slot takes to start a worker: for its first trial, and after a failure.
        overhead_s: Seconds between the submission of a trial to a warm worker and its beginning.
        failure_rate: Probability that an attempt fails, at a uniformly drawn share of what it has to do; from 0 to 1.
        checkpoint_every_s: Seconds between two times of saving a trial's state; 0 = attempts begin anew.
        node_life_s: Mean seconds until a node dies; infinite = none does.
        node_absence_s: Seconds until a node that died is back.
    """

    start_up_s: float = 0.0
    overhead_s: float = 0.0
    failure_rate: float = 0.0
    checkpoint_every_s: float = 60.0
    node_life_s: float = math.inf
    node_absence_s: float = 600.0


@dataclass(eq=False)
class _Attempt:
    """Hold an attempt that runs: when it was submitted, and when its work begins."""

    job: Job
    slot: SimulatedSlot
    submitted_s: float
    begins_s: float


_Happening = tuple[float, int, Callable[[], Sequence[Event]]]
"""What is to come, and when; what comes at the same time comes in the order of its numbers."""


class SimulatedExecutor:
    """Let jobs pass as they would on so many slots, or on nodes that may die and come back.

    Attributes:
        max_step_s: Seconds by which the clock moves at once, at most: something outside may have to look at it.
    """

    def __init__(
        self,
        lengths: Mapping[str, float],
        *,
        draw: random.Random,
        num_slots: int | None = None,
        nodes: Sequence[Node] = (),
        shares: Sequence[ResourceRequest] = (),
        conditions: Conditions | None = None,
    ) -> None:
        """Take what will happen.

        Args:
            lengths: Seconds of work of every trial, by id.
            draw: Where chance comes from.
            num_slots: Jobs that run at once, at most; None = as many as nodes have room for.
            nodes: What jobs occupy their shares of, as far as the nodes name it: of nodes that are told by their cores
                alone they occupy those. Empty = every job occupies a slot, whatever its share.
            shares: What jobs will take, each kind at least once, the first one's first.
            conditions: What goes wrong, and what is lost by it.

        Raises:
            ClusterError: If a share has no room on the nodes.
        """
        self._slots = SimulatedSlots(num_slots=num_slots, nodes=nodes, shares=shares)
        self._lengths, self._draw, self._conditions = lengths, draw, conditions or Conditions()
        self.max_step_s = math.inf
        self._now_s = 0.0
        self._numbers = itertools.count()
        self._to_come: list[_Happening] = []
        self._at_once: list[Event] = []
        self._running: dict[str, _Attempt] = {}
        self._kept_s: dict[str, float] = {}
        self._busy_s = self._gpu_s = 0.0
        for node in nodes if math.isfinite(self._conditions.node_life_s) else ():
            self._let_live(node)

    def clock(self) -> float:
        """Return the seconds since the beginning."""
        return self._now_s

    @property
    def num_slots(self) -> int:
        """Return how many jobs run at once; where their shares differ, those of the first kind."""
        return self._slots.count(most=len(self._lengths))

    @property
    def busy_s(self) -> float:
        """Return how long the whole of the slots or nodes was occupied: their shares times seconds, summed up."""
        return self._busy_s + sum(self._held_s(a) * self.fraction(a.job.share) for a in self._running.values())

    @property
    def gpu_hours(self) -> float:
        """Return the GPU hours that were occupied."""
        return (self._gpu_s + sum(self._held_s(a) * _gpus(a.job) for a in self._running.values())) / 3600

    def fraction(self, share: ResourceRequest) -> float:
        """Return which share of the whole a job occupies: of what it takes the most of."""
        return self._slots.fraction(share)

    def has_room(self, share: ResourceRequest) -> bool:
        """Tell whether a job could start now, on a slot that is free or on one that can be opened."""
        return self._slots.has_room(share)

    def machine(self, share: ResourceRequest) -> Machine:  # noqa: ARG002
        """Return a machine whose memory cannot be reserved: none runs out of it here."""
        return Machine()

    def submit(self, job: Job) -> None:
        """Start ``job``; the caller has seen to it that there is room."""
        slot = self._slots.take(job.share)
        conditions = self._conditions
        lead_s = conditions.overhead_s + (0.0 if slot.is_warm else conditions.start_up_s)
        slot.is_warm = True
        attempt = _Attempt(job, slot, self._now_s, self._now_s + lead_s)
        self._running[job.trial_id] = attempt
        left_s = self._lengths[job.trial_id] - self._kept_s.get(job.trial_id, 0.0)
        if conditions.failure_rate > 0 and self._draw.random() < conditions.failure_rate:
            self._at(attempt.begins_s + left_s * self._draw.random(), partial(self._fail, attempt))
        else:
            self._at(attempt.begins_s + left_s, partial(self._finish, attempt))

    def prune(self, trial_id: str) -> None:
        """End the running trial at the next ``poll``."""
        if attempt := self._running.get(trial_id):
            self._release(attempt)
            self._at_once.append(Pruned(trial_id, attempt.job.attempt, step=0, seconds=self._held_s(attempt)))

    def kill(self, trial_id: str) -> None:
        """End the running trial at once; it keeps what it saved."""
        if attempt := self._running.get(trial_id):
            self._lose(attempt)

    def poll(self, timeout_s: float) -> Sequence[Event]:  # noqa: ARG002
        """Move the clock to the next event, however far away; return what happens then."""
        if self._at_once:
            events, self._at_once = self._at_once, []
            return events
        if not self._to_come:
            return ()
        at_s = self._to_come[0][0]
        if at_s - self._now_s > self.max_step_s:
            self._now_s += self.max_step_s
            return ()
        self._now_s = at_s
        events = []
        while self._to_come and self._to_come[0][0] == at_s:
            events += heapq.heappop(self._to_come)[2]()
        return events

    def close(self) -> None:
        """Do nothing: nothing was taken."""

    def _at(self, at_s: float, happen: Callable[[], Sequence[Event]]) -> None:
        heapq.heappush(self._to_come, (at_s, next(self._numbers), happen))

    def _held_s(self, attempt: _Attempt) -> float:
        return self._now_s - attempt.submitted_s

    def _is_over(self, attempt: _Attempt) -> bool:
        return self._running.get(attempt.job.trial_id) is not attempt

    def _finish(self, attempt: _Attempt) -> Sequence[Event]:
        if self._is_over(attempt):
            return ()
        self._release(attempt)
        seconds = self._lengths[attempt.job.trial_id]
        job = attempt.job
        return (Finished(job.trial_id, job.attempt, metrics={}, seconds=seconds, core_seconds=seconds),)

    def _fail(self, attempt: _Attempt, cause: Cause = Cause.WORKER) -> Sequence[Event]:
        if self._is_over(attempt):
            return ()
        self._lose(attempt)
        job, error = attempt.job, "simulated"
        seconds = self._held_s(attempt)
        return (Failed(job.trial_id, job.attempt, error=error, traceback="", seconds=seconds, cause=cause),)

    def _lose(self, attempt: _Attempt) -> None:
        """End an attempt whose worker is gone: its trial keeps the state that was saved last."""
        self._release(attempt)
        attempt.slot.is_warm = False
        every_s, done_s = self._conditions.checkpoint_every_s, self._now_s - attempt.begins_s
        if every_s > 0 and done_s > 0:
            trial_id = attempt.job.trial_id
            saved_s = math.floor(done_s / every_s + _EPSILON) * every_s
            self._kept_s[trial_id] = self._kept_s.get(trial_id, 0.0) + saved_s

    def _release(self, attempt: _Attempt) -> None:
        job = attempt.job
        del self._running[job.trial_id]
        self._busy_s += self._held_s(attempt) * self.fraction(job.share)
        self._gpu_s += self._held_s(attempt) * _gpus(job)
        self._slots.free(attempt.slot)

    def _let_live(self, node: Node) -> None:
        life_s = self._draw.expovariate(1 / self._conditions.node_life_s)
        self._at(self._now_s + life_s, partial(self._let_die, node))

    def _let_die(self, node: Node) -> Sequence[Event]:
        hit = [attempt for attempt in self._running.values() if attempt.slot.is_on(node)]
        events = [event for attempt in hit for event in self._fail(attempt, Cause.NODE)]
        self._slots.remove(node)
        self._at(self._now_s + self._conditions.node_absence_s, partial(self._bring_back, node))
        return events

    def _bring_back(self, node: Node) -> Sequence[Event]:
        self._slots.bring_back(node)
        self._let_live(node)
        return ()


def _gpus(job: Job) -> float:
    return job.share.gpus * job.share.processes
