"""An executor whose trials take no time: its clock jumps from event to event. It computes nothing and never sleeps."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from orchestrator.cluster import Node, Place, Room, amounts_of, check_room, count_slots
from orchestrator.executor import Event, Failed, Finished, Job, Machine, Pruned, Share
from orchestrator.records import Cause

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
class _Slot:
    """Hold a worker's place, of one share."""

    share: Share
    places: tuple[Place, ...] = ()
    is_warm: bool = False


@dataclass(eq=False)
class _Attempt:
    """Hold an attempt that runs: when it was submitted, and when its work begins."""

    job: Job
    slot: _Slot
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
        shares: Sequence[Share] = (),
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
        if num_slots is None and not nodes:
            raise ValueError("either num_slots or nodes must be given")
        self._lengths, self._draw = lengths, draw
        self._max_slots = math.inf if num_slots is None else num_slots
        self._shares, self._conditions = tuple(shares), conditions or Conditions()
        self.max_step_s = math.inf
        self._now_s = 0.0
        self._numbers = itertools.count()
        self._to_come: list[_Happening] = []
        self._at_once: list[Event] = []
        self._running: dict[str, _Attempt] = {}
        self._idle: dict[Share, list[_Slot]] = {}
        self._num_open = 0
        self._named = {name for node in nodes for name in node.has}
        self._taken: dict[Share, Share] = {}
        self._kept_s: dict[str, float] = {}
        self._busy_s = self._gpu_s = 0.0
        self._all_nodes = tuple(nodes)
        self._fractions: dict[Share, float] = {}
        self._counted: int | None = None
        self._use(nodes)
        for share in dict.fromkeys(shares) if nodes else ():
            check_room(nodes, self._takes(share))
        for node in nodes if math.isfinite(self._conditions.node_life_s) else ():
            self._let_live(node)

    def clock(self) -> float:
        """Return the seconds since the beginning."""
        return self._now_s

    @property
    def num_slots(self) -> int:
        """Return how many jobs run at once; where their shares differ, those of the first kind."""
        if not self._all_nodes:
            return int(self._max_slots)
        if self._counted is None:
            most = min(self._max_slots, len(self._lengths))
            self._counted = count_slots(self._nodes, self._takes(self._shares[0]), max_slots=int(most)) if self._shares else 0
        return max(self._counted, len(self._running))

    @property
    def busy_s(self) -> float:
        """Return how long the whole of the slots or nodes was occupied: their shares times seconds, summed up."""
        return self._busy_s + sum(self._held_s(a) * self.fraction(a.job.share) for a in self._running.values())

    @property
    def gpu_hours(self) -> float:
        """Return the GPU hours that were occupied."""
        return (self._gpu_s + sum(self._held_s(a) * _gpus(a.job) for a in self._running.values())) / 3600

    def fraction(self, share: Share) -> float:
        """Return which share of the whole a job occupies: of what it takes the most of."""
        if share not in self._fractions:
            parts = [1 / self._max_slots]
            for name, amount in amounts_of(self._takes(share)).items() if self._all_nodes else ():
                parts.append(amount * share.processes / sum(node.has.get(name, 0.0) for node in self._all_nodes))
            self._fractions[share] = max(parts)
        return self._fractions[share]

    def has_room(self, share: Share) -> bool:
        """Tell whether a job could start now, on a slot that is free or on one that can be opened."""
        if len(self._running) >= self._max_slots or share in self._full:
            return False
        if self._idle.get(share) or not self._all_nodes:
            return True
        idle = [slot for slots in self._idle.values() for slot in slots]
        for slot in idle:
            self._room.give(slot.places)
        places = self._room.take(self._takes(share))
        self._room.give(places or ())
        for slot in idle:
            self._room.occupy(slot.places)
        if places is None:
            # As long as no job ends, there is no use in looking through the nodes again.
            self._full.add(share)
        return places is not None

    def machine(self, share: Share) -> Machine:  # noqa: ARG002
        """Return a machine whose memory cannot be reserved: none runs out of it here."""
        return Machine()

    def submit(self, job: Job) -> None:
        """Start ``job``; the caller has seen to it that there is room."""
        slot = self._slot_for(job.share)
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

    def _takes(self, share: Share) -> Share:
        """Return a share without what no node names."""
        if share not in self._taken:
            self._taken[share] = replace(
                share,
                gpus=share.gpus if "GPU" in self._named else 0.0,
                memory_gib=share.memory_gib if "memory" in self._named else 0.0,
                custom=tuple((name, amount) for name, amount in share.custom if name in self._named),
                labels=share.labels if any(node.labels for node in self._all_nodes) else (),
            )
        return self._taken[share]

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
        self._idle.setdefault(job.share, []).append(attempt.slot)
        self._full.clear()

    def _slot_for(self, share: Share) -> _Slot:
        """Return a free slot of a share; one is opened if there is none, in place of others if need be."""
        if slots := self._idle.get(share):
            return slots.pop()
        places = self._room.take(self._takes(share)) if self._num_open < self._max_slots else None
        while places is None:
            self._close_slot(next(slots for slots in self._idle.values() if slots).pop())
            places = self._room.take(self._takes(share))
        self._num_open += 1
        return _Slot(share, places)

    def _close_slot(self, slot: _Slot) -> None:
        self._room.give(slot.places)
        self._num_open -= 1

    def _use(self, nodes: Sequence[Node]) -> None:
        """Take the nodes that are there from now on."""
        self._nodes = tuple(nodes)
        self._room = Room(nodes) if self._all_nodes else _Boundless()
        self._counted = None
        self._full: set[Share] = set()
        for slot in (*(a.slot for a in self._running.values()), *itertools.chain(*self._idle.values())):
            self._room.occupy(slot.places)

    def _let_live(self, node: Node) -> None:
        life_s = self._draw.expovariate(1 / self._conditions.node_life_s)
        self._at(self._now_s + life_s, partial(self._let_die, node))

    def _let_die(self, node: Node) -> Sequence[Event]:
        def is_on(slot: _Slot) -> bool:
            return any(place.node_id == node.node_id for place in slot.places)

        hit = [attempt for attempt in self._running.values() if is_on(attempt.slot)]
        events = [event for attempt in hit for event in self._fail(attempt, Cause.NODE)]
        for slots in self._idle.values():
            self._num_open -= sum(map(is_on, slots))
            slots[:] = [slot for slot in slots if not is_on(slot)]
        self._use([other for other in self._nodes if other is not node])
        self._at(self._now_s + self._conditions.node_absence_s, partial(self._bring_back, node))
        return events

    def _bring_back(self, node: Node) -> Sequence[Event]:
        self._use([*self._nodes, node])
        self._let_live(node)
        return ()


class _Boundless(Room):
    """Have room for every job: it is the number of slots that bounds them."""

    def __init__(self) -> None:
        super().__init__(())

    def take(self, share: Share) -> tuple[Place, ...]:  # noqa: ARG002
        """Take nothing."""
        return ()


def _gpus(job: Job) -> float:
    return job.share.gpus * job.share.processes
