"""Budgets where trials occupy unequal shares: whatever fits is run, by the real scheduler on a clock that jumps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from orchestrator.execution.capacity import Node, count_slots
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.simulation import Simulated, simulate
from orchestrator.sweep.resolved import Limits
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Role, Trial

from ...long_run import IS_LONG

NUM_MIXTURES, NUM_IN_SHORT_RUN = 200, 20
HOUR_S = 3600.0
SCALES = ("nano", "micro", "mini")


@dataclass
class Mixture:
    """Trials of unequal shares, how long they take, and what they run on."""

    trials: list[Trial]
    lengths: Mapping[str, float]
    allocator: Allocator
    nodes: Sequence[Node]

    def run(self, **limits: float) -> Simulated:
        durations = TrialDurations()
        for trial in self.trials:
            durations.add(trial.group_id, trial.role, self.lengths[trial.trial_id], trial.arm_id)
        return simulate(
            self.trials, self.lengths, allocator=self.allocator, nodes=self.nodes, known=durations,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )

    def seeds(self) -> list[list[Trial]]:
        seeds = sorted({trial.seed for trial in self.trials})
        return [[trial for trial in self.trials if trial.seed == seed] for seed in seeds]

    def gpu_hours(self, trials: Sequence[Trial]) -> float:
        return sum(self.allocator.request_for(t).total_gpus * self.lengths[t.trial_id] for t in trials) / HOUR_S


def make_trials(
    first: Trial, arms: Sequence[tuple[str, float]], num_seeds: int
) -> tuple[list[Trial], dict[str, float]]:
    """Make trials, seed after seed, of arms that each have a scale and a length in seconds."""
    trials, lengths = [], {}
    for seed in range(num_seeds):
        for arm, (scale, seconds) in enumerate(arms):
            config = replace(first.config, seed=seed, model=replace(first.config.model, scale=scale))
            trial = replace(
                first, trial_id=f"{arm} seed {seed}", group_id=scale, arm_id=f"arm {arm}", role=Role.ARM, seed=seed,
                config=config,
            )
            trials.append(trial)
            lengths[trial.trial_id] = seconds
    return trials, lengths


def draw_mixture(first: Trial, rng: random.Random) -> Mixture:
    """Draw nodes, what trials of each scale occupy, and how long those of each arm take."""
    nodes = [Node(str(n), {"CPU": float(rng.choice([8, 16])), "GPU": float(rng.choice([2, 4, 8]))}) for n in range(3)]
    nodes = nodes[: rng.randint(1, 3)]
    by_scale: dict[str, dict[str, float]] = {}
    while len(by_scale) < len(SCALES):
        drawn = {"cpus": rng.choice([1, 2, 4]), "gpus": rng.choice([0, 0.25, 0.5, 1, 2, 3, 4, 8])}
        drawn["processes"] = rng.choice([1, 1, 1, 2])
        if count_slots(nodes, ResourceRequest(**drawn), max_slots=1):  # type: ignore[arg-type]
            by_scale[SCALES[len(by_scale)]] = drawn
    arms = [(rng.choice(SCALES), 60.0 * rng.randint(1, 120)) for _ in range(rng.randint(2, 12))]
    trials, lengths = make_trials(first, arms, rng.randint(2, 5))
    return Mixture(trials, lengths, Allocator(Resources(by_scale=by_scale)), nodes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.long] if IS_LONG or number >= NUM_IN_SHORT_RUN else [])
        for number in range(NUM_MIXTURES)
    ],
)
def test_no_seed_is_left_out_that_fits_the_budget_with_those_before_it(number: int, trials: tuple[Trial, ...]) -> None:
    rng = random.Random(number)
    mixture = draw_mixture(trials[0], rng)
    # What the scheduler does if nothing is left out, but a bound is there, which keeps seeds in their order.
    whole = mixture.run(time_budget_h=1e6)
    assert len(whole.ended_s) == len(mixture.trials)
    limits = {}
    if rng.random() < 0.7:
        limits["time_budget_h"] = rng.uniform(0.2, 1.3) * whole.makespan_s / HOUR_S
    if not limits or rng.random() < 0.5:
        limits["max_gpu_hours"] = rng.uniform(0.2, 1.3) * mixture.gpu_hours(mixture.trials) + 0.01
    ran = mixture.run(**limits)
    before: list[Trial] = []
    for seed in mixture.seeds():
        before += seed
        ends_h = max(whole.ended_s[trial.trial_id] for trial in before) / HOUR_S
        # A budget counts as spent when it is reached.
        is_in_time = ends_h < 0.999 * limits.get("time_budget_h", 1e9)
        if is_in_time and mixture.gpu_hours(before) < 0.99 * limits.get("max_gpu_hours", 1e9):
            assert {trial.trial_id for trial in before} <= ran.ended_s.keys(), f"{limits}: seed {seed[0].seed}"
    assert ran.makespan_s <= 1.01 * limits.get("time_budget_h", 1e9) * HOUR_S
    assert ran.gpu_hours <= 1.01 * limits.get("max_gpu_hours", 1e9)


@pytest.mark.parametrize("is_large_first", [False, True])
def test_a_night_of_small_and_large_trials_on_one_node_is_not_left_out(
    is_large_first: bool, trials: tuple[Trial, ...]
) -> None:
    """A seed: 9 trials of one GPU and 2 h, 8 at once, and 9 of all 8 GPUs and half an hour: 4 h and 4.5 h."""
    arms = [("nano", 2 * HOUR_S)] * 9 + [("micro", 0.5 * HOUR_S)] * 9
    drawn, lengths = make_trials(trials[0], arms[::-1] if is_large_first else arms, 3)
    allocator = Allocator(Resources(gpus=1, by_scale={"micro": {"gpus": 8}}))  # type: ignore[arg-type]
    night = Mixture(drawn, lengths, allocator, [Node("a", {"CPU": 64.0, "GPU": 8.0})])
    ran = night.run(time_budget_h=28.1)
    assert (ran.makespan_s, len(ran.ended_s), ran.skipped) == (pytest.approx(25.5 * HOUR_S), 54, frozenset())
    less = night.run(time_budget_h=12.0)  # of the second seed there are 18 + 36 = 54 GPU hours, in 3.5 h of 8 GPUs
    assert {trial.seed for trial in drawn if trial.trial_id in less.skipped} == {1, 2}
    assert less.makespan_s == pytest.approx(8.5 * HOUR_S)


def test_a_later_seed_of_which_less_is_left_is_run_though_one_before_it_is_not(trials: tuple[Trial, ...]) -> None:
    drawn, lengths = make_trials(trials[0], [("nano", HOUR_S)] * 4, 3)
    left = [trial for trial in drawn if trial.seed < 2 or trial.arm_id == "arm 0"]
    allocator, node = Allocator(Resources(gpus=1)), Node("a", {"CPU": 4.0, "GPU": 1.0})
    ran = Mixture(left, lengths, allocator, [node]).run(max_gpu_hours=6)
    assert {trial.seed for trial in left if trial.trial_id in ran.skipped} == {1}
    assert ran.gpu_hours == pytest.approx(5.0)
