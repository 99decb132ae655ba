"""How a sweep's run would go: a few simulations of it, from what has been measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.execution.capacity import Node
from orchestrator.execution.simulated import Conditions
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.simulation import Simulated, draw_lengths, simulate
from orchestrator.sweep.resolved import Limits
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.trial import Trial
from specvit.arithmetic import rough_seconds

_MANY = 3000
"""Trials whose chances even out, so that fewer simulations tell as much."""


@dataclass(frozen=True)
class Forecast:
    """How much is to do, and how that would go. What depends on lengths is None if nothing was measured.

    Attributes:
        num_pending: Trials without a result.
        num_measured: Done trials that the forecast rests on.
        num_slots: Trials that run at once; where their shares differ, those of the first kind.
        failure_rate: Share of attempts that are taken to fail, as they did so far, from 0 to 1.
        runs: The simulations, the shortest run first.
        first_seed_s: Seconds until all trials of a seed have ended, in the simulation in the middle; 0 = of one they
            have; None also if the budget leaves room for no seed.
        rough_s: Where nothing was measured, a guess at the wall time by arithmetic; None if there is none.
        skipped_seeds: Seeds of which trials are left out there.
    """

    num_pending: int
    num_measured: int
    num_slots: int
    failure_rate: float = 0.0
    runs: tuple[Simulated, ...] = ()
    first_seed_s: float | None = None
    skipped_seeds: tuple[int, ...] = ()
    rough_s: float | None = None

    @property
    def middle(self) -> Simulated | None:
        """Return the simulation whose run is neither short nor long."""
        return self.runs[len(self.runs) // 2] if self.runs else None

    @property
    def seconds(self) -> float | None:
        """Return the wall time that is left: the median of the simulations."""
        return None if self.middle is None else self.middle.makespan_s

    @property
    def range_s(self) -> tuple[float, float] | None:
        """Return the shortest and the longest of the simulated times."""
        return (self.runs[0].makespan_s, self.runs[-1].makespan_s) if self.runs else None


def forecast(
    pending: Sequence[Trial],
    measured: Sequence[TrialRecord],
    *,
    allocator: Allocator,
    num_slots: int,
    nodes: Sequence[Node] = (),
    limits: Limits | None = None,
    conditions: Conditions | None = None,
    gpu_hours_used: float = 0.0,
    complete_seeds: Sequence[int] = (),
) -> Forecast:
    """Forecast the run of trials.

    Args:
        pending: What is to run, in its order.
        measured: Records to learn from, of this sweep or of another with the same groups.
        allocator: What each trial occupies.
        num_slots: How many trials run at once, at least 1.
        nodes: What trials occupy their shares of, in place of slots; ``num_slots`` is only shown then.
        limits: When trials are given up, and what the run may cost.
        conditions: What goes wrong.
        gpu_hours_used: What earlier runs of the sweep have taken.
        complete_seeds: Seeds without a pending trial.
    """
    conditions = conditions or Conditions()
    runs = []
    for number in range(3 if len(pending) > _MANY else 5):
        draw = random.Random(number)
        lengths = draw_lengths(pending, measured, draw)
        if lengths is not None:
            runs.append(
                simulate(
                    pending, lengths, allocator=allocator, num_slots=None if nodes else num_slots, nodes=nodes,
                    known=TrialDurations(measured), limits=limits, conditions=conditions, gpu_hours_used=gpu_hours_used,
                    draw=draw,
                )
            )
    runs.sort(key=lambda run: run.makespan_s)
    made = Forecast(
        num_pending=len(pending),
        num_measured=sum(record.state is State.DONE for record in measured),
        num_slots=num_slots,
        failure_rate=conditions.failure_rate,
        runs=tuple(runs),
    )
    if made.middle is None:
        return replace(made, rough_s=_rough_s(pending, allocator, num_slots))
    skipped = {trial.seed: None for trial in pending if trial.trial_id in made.middle.skipped}
    return replace(
        made,
        first_seed_s=0.0 if complete_seeds else made.middle.seed_complete_s(pending),
        skipped_seeds=tuple(skipped),
    )


def _rough_s(pending: Sequence[Trial], allocator: Allocator, num_slots: int) -> float | None:
    """Return the wall time of trials by arithmetic, evenly shared by the slots; None if that of one is not known."""
    by_arm: dict[str, float | None] = {}
    total = 0.0
    for trial in pending:
        if trial.arm_id not in by_arm:
            share = allocator.request_for(trial)
            by_arm[trial.arm_id] = rough_seconds(
                trial.config, cores=share.cpus * share.processes, gpus=share.total_gpus
            )
        seconds = by_arm[trial.arm_id]
        if seconds is None:
            return None
        total += seconds
    return total / max(1, min(num_slots, len(pending)))
