"""An executor whose trials take no time: its clock jumps from event to event. It computes nothing and never sleeps."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.execution.capacity import Node
from orchestrator.execution.executor import Job, Machine, Place
from orchestrator.execution.simulated_slots import SimulatedSlot, SimulatedSlots
from orchestrator.trials.events import Event, Failed, Finished, Pruned
from orchestrator.trials.records import Cause
from orchestrator.trials.resources import ResourceRequest

_EPSILON = 1e-9


@dataclass(frozen=True)
class Fault:
    """Where and when every attempt fails that begins.

    Attributes:
        where: Id of a slot or a node; empty = everywhere.
        from_s: When that begins, in simulated seconds.
        until_s: When it ends.
        after_s: How long it takes an attempt to fail.
        cause: What they report.
    """

    where: str = ""
    from_s: float = 0.0
    until_s: float = math.inf
    after_s: float = 0.1
    cause: Cause = Cause.WORKER

    def strikes(self, place: Place, now_s: float) -> bool:
        """Return whether an attempt fails that begins at a place now."""
        return self.where in ("", place.slot, *place.nodes) and self.from_s <= now_s < self.until_s


@dataclass(frozen=True)
class Conditions:
    """What trials meet with besides their own work.

    Attributes:
        failure_rate: Probability that an attempt fails, at a uniformly drawn share of what it has to do; from 0 to 1.
        checkpoint_every_s: Seconds between two times of saving a trial's state; 0 = attempts start over.
        faults: Where and when all attempts fail.
    """

    failure_rate: float = 0.0
    checkpoint_every_s: float = 60.0
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class SimulatedEvent:
    """What is to happen to an attempt; nothing does if it has ended before."""

    trial_id: str
    attempt: int


@dataclass(frozen=True)
class FinishEvent(SimulatedEvent):
    """The end of the attempt's work."""


@dataclass(frozen=True)
class FailEvent(SimulatedEvent):
    """A failure of the attempt's worker."""

    cause: Cause = Cause.WORKER


@dataclass(frozen=True)
class PruneEvent(SimulatedEvent):
    """The message that an attempt was pruned, after it ran for ``seconds``."""

    seconds: float


class SimulatedClock:
    """Simulated time, which moves from one scheduled event to the next.

    Attributes:
        now_s: Seconds since the start.
        max_step_s: Largest seconds to move at once: whatever limits a run by time has to look at the clock.
        wake_s: Returns when whoever submits jobs acts next, without an event; infinite if never.
    """

    def __init__(self) -> None:
        """Start at 0."""
        self.now_s = 0.0
        self.max_step_s = math.inf
        self.wake_s: Callable[[], float] = lambda: math.inf
        self._numbers = itertools.count()
        self._scheduled: list[tuple[float, int, SimulatedEvent]] = []

    def __call__(self) -> float:
        """Return the seconds since the start."""
        return self.now_s

    def schedule(self, at_s: float, event: SimulatedEvent) -> None:
        """Schedule an event; those of the same time happen in the order in which they were scheduled."""
        heapq.heappush(self._scheduled, (at_s, next(self._numbers), event))

    def advance(self) -> list[SimulatedEvent]:
        """Move to the time of the next event, or of waking, or a step towards it; return the events of that time."""
        at_s = min(self._scheduled[0][0] if self._scheduled else math.inf, self.wake_s())
        if math.isinf(at_s):
            return []
        if at_s - self.now_s > self.max_step_s:
            self.now_s += self.max_step_s
            return []
        self.now_s = at_s
        events = []
        while self._scheduled and self._scheduled[0][0] == at_s:
            events.append(heapq.heappop(self._scheduled)[2])
        return events


@dataclass(frozen=True)
class _Running:
    """A running attempt, and when it was submitted."""

    job: Job
    slot: SimulatedSlot
    submitted_s: float


class SimulatedExecutor:
    """The executor that lets jobs pass as they would on so many slots, or on nodes.

    Attributes:
        clock: Simulated time.
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
        self.clock = SimulatedClock()
        self._running: dict[str, _Running] = {}
        self._saved_s: dict[str, float] = {}
        self._busy_s = self._gpu_s = 0.0

    @property
    def num_slots(self) -> int:
        """Return how many jobs run at once; where their shares differ, those of the first kind."""
        return self._slots.count(most=len(self._lengths))

    @property
    def busy_s(self) -> float:
        """Return how long the whole of the slots or nodes was occupied: their shares times seconds, summed up."""
        running = self._running.values()
        return self._busy_s + sum(self._occupied_s(one) * self.fraction(one.job.share) for one in running)

    @property
    def gpu_hours(self) -> float:
        """Return the GPU hours that were occupied."""
        return (self._gpu_s + sum(self._occupied_s(one) * _gpus(one.job) for one in self._running.values())) / 3600

    def fraction(self, share: ResourceRequest) -> float:
        """Return which share of the whole a job occupies: of what it takes the most of."""
        return self._slots.fraction(share)

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether a job could start now, on a slot that is free or on one that can be opened."""
        return self._slots.has_room(share, avoid)

    def fits(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:
        """Return whether a job could start once nothing else runs."""
        return self._slots.fits(share, avoid)

    def least_s(self, work: Mapping[ResourceRequest, float]) -> float:
        """Return how long work takes at least: seconds of all jobs together, by what each occupies."""
        return self._slots.least_s(work)

    def held_by_others(self) -> str:
        """Return an empty text."""
        return ""

    def machine(self, share: ResourceRequest) -> Machine:  # noqa: ARG002
        """Return a machine whose memory cannot be reserved: none runs out of it here."""
        return Machine()

    def submit(self, job: Job) -> Place:
        """Start ``job``; the caller has seen to it that there is room."""
        now_s, slot = self.clock(), self._slots.acquire(job.share, job.avoid)
        self._running[job.trial_id] = _Running(job, slot, now_s)
        left_s = self._lengths[job.trial_id] - self._saved_s.get(job.trial_id, 0.0)
        rate = self._conditions.failure_rate
        fault = next((fault for fault in self._conditions.faults if fault.strikes(slot.place, now_s)), None)
        if fault is not None:
            self.clock.schedule(now_s + fault.after_s, FailEvent(job.trial_id, job.attempt, fault.cause))
        elif rate > 0 and self._draw.random() < rate:
            self.clock.schedule(now_s + left_s * self._draw.random(), FailEvent(job.trial_id, job.attempt))
        else:
            self.clock.schedule(now_s + left_s, FinishEvent(job.trial_id, job.attempt))
        return replace(slot.place, has_started=True)

    def prune(self, trial_id: str, why: str = "") -> None:  # noqa: ARG002
        """End the running trial, of which the next ``poll`` tells."""
        if running := self._running.get(trial_id):
            self._end(running)
            event = PruneEvent(trial_id, running.job.attempt, self._occupied_s(running))
            self.clock.schedule(self.clock(), event)

    def kill(self, trial_id: str) -> None:
        """End the running trial at once; it keeps what it saved."""
        if running := self._running.get(trial_id):
            self._lose(running)

    def poll(self, timeout_s: float) -> Sequence[Event]:  # noqa: ARG002
        """Move the clock to the next event, however far away; return what happens then."""
        return [event for scheduled in self.clock.advance() for event in self._happen(scheduled)]

    def close(self) -> None:
        """Do nothing: nothing was taken."""

    def _happen(self, scheduled: SimulatedEvent) -> Sequence[Event]:
        key = scheduled.trial_id, scheduled.attempt
        if isinstance(scheduled, PruneEvent):
            return [Pruned(*key, step=0, seconds=scheduled.seconds)]
        running = self._running.get(scheduled.trial_id)
        if running is None or running.job.attempt != scheduled.attempt:
            return ()
        if isinstance(scheduled, FinishEvent):
            self._end(running)
            seconds = self._lengths[scheduled.trial_id]
            return [Finished(*key, metrics={}, seconds=seconds, core_seconds=seconds)]
        assert isinstance(scheduled, FailEvent)
        self._lose(running)
        seconds = self._occupied_s(running)
        return [Failed(*key, error="simulated", traceback="", seconds=seconds, cause=scheduled.cause)]

    def _occupied_s(self, running: _Running) -> float:
        return self.clock() - running.submitted_s

    def _lose(self, running: _Running) -> None:
        """End an attempt whose worker is gone: its trial keeps the state that was saved last."""
        self._end(running)
        every_s, trial_id = self._conditions.checkpoint_every_s, running.job.trial_id
        if every_s > 0:
            saved_s = math.floor(self._occupied_s(running) / every_s + _EPSILON) * every_s
            self._saved_s[trial_id] = self._saved_s.get(trial_id, 0.0) + saved_s

    def _end(self, running: _Running) -> None:
        job, seconds = running.job, self._occupied_s(running)
        del self._running[job.trial_id]
        self._busy_s += seconds * self.fraction(job.share)
        self._gpu_s += seconds * _gpus(job)
        self._slots.release(running.slot)


def _gpus(job: Job) -> float:
    return job.share.gpus * job.share.processes
