"""What a run would come to: the scheduler itself, before an executor whose trials take no time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.execution.capacity import Node
from orchestrator.execution.simulated import Conditions, SimulatedExecutor
from orchestrator.ledger.in_memory import InMemoryLedger
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.breaker import EverythingFailsError
from orchestrator.scheduling.budget import Budget
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.protocols import SweepCallback
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.sweep.pruning_settings import NoPruning
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.events import END_STATES, Event
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Trial

_LOOKS_AT_BUDGET = 500
"""How often a budget is looked at, besides when a trial ends: it is overdrawn by a five-hundredth at most."""


@dataclass(frozen=True)
class Simulated:
    """The course of a simulated run.

    Attributes:
        makespan_s: Seconds until its last trial had ended, or its budget was spent.
        busy: Which share of the slots' time was occupied, also by what failed, from 0 to 1.
        gpu_hours: GPU hours that were occupied.
        num_attempts: Attempts at all trials.
        started: Ids of trials in the order in which they started, one for each attempt.
        ended_s: When trials came to their end, done or given up, by id.
        given_up: Ids of the trials that failed too often.
        skipped: Ids of the trials that the budget had no room for.
        reason: Which bound left them out; empty if none were.
    """

    makespan_s: float
    busy: float
    gpu_hours: float
    num_attempts: int
    started: tuple[str, ...]
    ended_s: Mapping[str, float]
    given_up: frozenset[str]
    skipped: frozenset[str]
    reason: str

    def seed_complete_s(self, trials: Iterable[Trial]) -> float | None:
        """Return when all of a seed's trials had ended, for the first seed that came so far; None if none did.

        Args:
            trials: Those that the run was to do.
        """
        ends: dict[int, float] = {}
        for trial in trials:
            ends[trial.seed] = max(ends.get(trial.seed, 0.0), self.ended_s.get(trial.trial_id, math.inf))
        first_s = min(ends.values(), default=math.inf)
        return first_s if math.isfinite(first_s) else None


def draw_lengths(
    trials: Sequence[Trial], records: Iterable[TrialRecord], draw: random.Random
) -> dict[str, float] | None:
    """Draw how long trials take, each from recorded ones.

    A trial is as long as one of its arm that is done, or else one of its group, floors apart. Trials of a group that
    was never measured are as long as those of another on the mean, the same one for the whole group.

    Args:
        trials: What is to run.
        records: What was measured.
        draw: Where chance comes from.

    Returns:
        Seconds by trial id; None if nothing was measured that says something of all of them.
    """
    arms: dict[str, list[float]] = {}
    groups: dict[tuple[str, bool], list[float]] = {}
    for record in records:
        if record.state is State.DONE and record.seconds is not None:
            arms.setdefault(record.trial.arm_id, []).append(record.seconds)
            groups.setdefault((record.trial.group_id, not record.trial.role.is_trained), []).append(record.seconds)
    means = {key: [math.fsum(each / len(seconds) for each in seconds)] for key, seconds in groups.items()}
    lengths: dict[str, float] = {}
    for trial in trials:
        key = trial.group_id, not trial.role.is_trained
        if key not in groups:
            alike = [mean for (_, is_floor), mean in means.items() if is_floor == key[1]]
            alike = alike or (list(means.values()) if key[1] else [])
            if not alike:
                return None
            groups[key] = draw.choice(alike)
        lengths[trial.trial_id] = draw.choice(arms.get(trial.arm_id) or groups[key])
    return lengths


def simulate(
    trials: Sequence[Trial],
    lengths: Mapping[str, float],
    *,
    allocator: Allocator,
    num_slots: int | None = None,
    nodes: Sequence[Node] = (),
    known: TrialDurations | None = None,
    limits: Limits | None = None,
    conditions: Conditions | None = None,
    gpu_hours_used: float = 0.0,
    draw: random.Random | None = None,
) -> Simulated:
    """Run trials on a clock that jumps, through the scheduler that runs real ones.

    Args:
        trials: What is to run, in its order.
        lengths: Seconds of work of every trial, by id; the scheduler does not know them.
        allocator: What each trial occupies.
        num_slots: Trials that run at once, at most; None = as many as the nodes have room for.
        nodes: What trials occupy their shares of; empty = each occupies a slot.
        known: What the scheduler knows of lengths when it begins; it learns more.
        limits: When trials are given up, and what the run may cost.
        conditions: What goes wrong.
        gpu_hours_used: What earlier runs of the sweep have taken.
        draw: Where chance comes from; None = a generator with seed 0.

    Raises:
        ClusterError: If a trial has no room on the nodes.
    """
    limits = limits or Limits()
    requests = [allocator.request_for(trial) for trial in trials]
    executor = SimulatedExecutor(
        lengths,
        draw=draw or random.Random(0),
        num_slots=num_slots,
        nodes=nodes,
        shares=requests,
        conditions=conditions,
    )
    ledger, recorder = InMemoryLedger(trial.trial_id for trial in trials), _Recorder(executor.clock)
    budget = Budget(limits, clock=executor.clock, gpu_hours_used=gpu_hours_used)
    executor.clock.max_step_s = _step_s(limits, gpu_hours_used, requests, executor)
    scheduler = Scheduler(
        ledger=ledger,
        executor=executor,
        allocator=allocator,
        judge=Judge(NoPruning(), higher_is_better=True, records=()),
        callbacks=[recorder],
        limits=limits,
        budget=budget,
        durations=known,
        clock=executor.clock,
        warn=lambda _: None,
    )
    executor.clock.wake_s = scheduler.next_s
    with suppress(EverythingFailsError):
        scheduler.run(trials)
    makespan_s = executor.clock()
    return Simulated(
        makespan_s=makespan_s,
        busy=executor.busy_s / makespan_s if makespan_s else 0.0,
        gpu_hours=executor.gpu_hours,
        num_attempts=ledger.num_attempts,
        started=tuple(recorder.started),
        ended_s=recorder.ended_s,
        given_up=frozenset(trial_id for trial_id in recorder.ended_s if ledger.state(trial_id) is State.FAILED),
        skipped=frozenset(ledger.skipped),
        reason=next(iter(ledger.skipped.values()), ""),
    )


def _step_s(
    limits: Limits, gpu_hours_used: float, shares: Sequence[ResourceRequest], executor: SimulatedExecutor
) -> float:
    """Return how far the clock may jump, so that the budget's end is not missed by much."""
    steps_s = [math.inf]
    if limits.time_budget_h is not None:
        steps_s.append(limits.time_budget_h * 3600 / _LOOKS_AT_BUDGET)
    if limits.max_gpu_hours is not None:
        # As many GPUs as trials can occupy at once, at most.
        gpus = max((share.total_gpus / executor.fraction(share) for share in shares), default=0.0)
        left_h = max(0.0, limits.max_gpu_hours - gpu_hours_used)
        if gpus and left_h:
            steps_s.append(left_h / gpus * 3600 / _LOOKS_AT_BUDGET)
    return min(steps_s)


class _Recorder(SweepCallback):
    """The starts and ends of simulated trials."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.started: list[str] = []
        self.ended_s: dict[str, float] = {}

    def on_submit(self, trial: Trial) -> None:
        self.started.append(trial.trial_id)

    def on_event(self, event: Event) -> None:
        if type(event) in END_STATES:
            self.ended_s[event.trial_id] = self._clock()
