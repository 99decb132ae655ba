from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.execution.capacity import ClusterError, Node
from orchestrator.execution.executor import Job, Place
from orchestrator.execution.simulated import Conditions
from orchestrator.ledger.ledger import Ledger
from orchestrator.scheduling.allocation import Allocator
from orchestrator.scheduling.durations import TrialDurations
from orchestrator.scheduling.pruning import Judge
from orchestrator.scheduling.retries import FIRST_PAUSE_S
from orchestrator.scheduling.scheduler import Scheduler
from orchestrator.scheduling.simulation import Simulated, _Recorder, draw_lengths, simulate
from orchestrator.sweep.pruning_settings import NoPruning
from orchestrator.sweep.resolved import Limits
from orchestrator.sweep.resource_settings import Resources
from orchestrator.trials.events import Event, Finished
from orchestrator.trials.records import State, TrialRecord
from orchestrator.trials.resources import ResourceRequest
from orchestrator.trials.trial import Role, Trial

from ..plain_slots import PlainSlots

HOUR_S = 3600.0
ONE_CORE = Allocator(Resources())
"""What every trial occupies where it does not matter."""


@pytest.fixture(autouse=True)
def _few_slots_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cases that can be worked out by hand show what happens from eight slots on."""
    monkeypatch.setattr("orchestrator.scheduling.longest_first._FEW_SLOTS", 1)


class Chance(random.Random):
    """Draw what is written down, then numbers at which nothing happens."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self._numbers: Iterator[float] = iter(numbers)

    def random(self) -> float:
        return next(self._numbers, 1 - 1e-9)


@pytest.fixture
def make(trials: tuple[Trial, ...]) -> Callable[..., list[Trial]]:
    """Make trials, seed after seed, the arms of a seed dealt out to groups."""

    def make(num_arms: int, num_seeds: int = 1, num_groups: int = 1) -> list[Trial]:
        configs = [replace(trials[0].config, seed=seed) for seed in range(num_seeds)]
        return [
            replace(
                trials[0],
                trial_id=f"{arm} seed {config.seed}",
                group_id=f"group {arm % num_groups}",
                arm_id=f"arm {arm}",
                role=Role.BASELINE if arm < num_groups else Role.ARM,
                seed=config.seed,
                config=config,
            )
            for config in configs
            for arm in range(num_arms)
        ]

    return make


def lengths_of(trials: Sequence[Trial], seconds: Sequence[float]) -> dict[str, float]:
    return {trial.trial_id: length for trial, length in zip(trials, seconds, strict=True)}


def known(trials: Sequence[Trial], lengths: Mapping[str, float]) -> TrialDurations:
    measured = TrialDurations()
    for trial in trials:
        measured.add(trial.group_id, trial.role, lengths[trial.trial_id], trial.arm_id)
    return measured


def test_slots_take_the_next_trial_as_they_become_free(make: Callable[..., list[Trial]]) -> None:
    trials = make(4)
    ran = simulate(trials, lengths_of(trials, [3, 2, 2, 1]), allocator=ONE_CORE, num_slots=2)
    # Slot 1: 0-3, then the last one 3-4. Slot 2: 0-2, 2-4.
    assert ran.started == tuple(trial.trial_id for trial in trials)
    assert ran.ended_s == lengths_of(trials, [3, 2, 4, 4])
    assert (ran.makespan_s, ran.busy) == ((3 + 2 + 2 + 1) / 2, 1)
    assert (ran.num_attempts, ran.skipped, ran.given_up, ran.reason) == (4, frozenset(), frozenset(), "")


def test_a_trial_as_long_as_all_the_rest_waits_for_its_turn_only_if_nobody_knows(
    make: Callable[..., list[Trial]],
) -> None:
    trials = make(5)
    lengths = lengths_of(trials, [1, 1, 1, 1, 4])
    unknown = simulate(trials, lengths, allocator=ONE_CORE, num_slots=2)
    assert (unknown.makespan_s, unknown.busy) == (2 + 4, 8 / 12)
    measured = simulate(trials, lengths, allocator=ONE_CORE, num_slots=2, known=known(trials, lengths))
    assert (measured.makespan_s, measured.started[0]) == (4, trials[4].trial_id)


@pytest.mark.parametrize(("every_s", "left_s"), [(30.0, 70.0), (0.0, 100.0), (50.0, 50.0), (60.0, 100.0)])
def test_an_attempt_that_fails_goes_on_from_the_last_saved_state_in_a_new_worker(
    every_s: float, left_s: float, make: Callable[..., list[Trial]]
) -> None:
    conditions = Conditions(failure_rate=0.5, checkpoint_every_s=every_s)
    # The first attempt fails (0.1 < 0.5) after half of its work; the second one does not.
    ran = simulate(
        make(1), {"0 seed 0": 100.0}, allocator=ONE_CORE, num_slots=1, conditions=conditions, draw=Chance(0.1, 0.5, 0.9)
    )
    assert ran.makespan_s == pytest.approx(50 + FIRST_PAUSE_S + left_s)
    assert (ran.num_attempts, ran.given_up) == (2, frozenset())


def test_a_trial_that_fails_too_often_is_given_up(make: Callable[..., list[Trial]]) -> None:
    trials = make(2)
    ran = simulate(
        trials,
        lengths_of(trials, [8, 8]),
        allocator=ONE_CORE,
        num_slots=1,
        limits=Limits(max_retries=1),
        conditions=Conditions(failure_rate=0.5),
        draw=Chance(0.1, 0.5, 0.9, 0.1, 0.25),
    )
    assert ran.given_up == {"0 seed 0"}
    # While it waits, the other one has the slot.
    assert ran.started == ("0 seed 0", "1 seed 0", "0 seed 0")
    assert ran.ended_s == {"1 seed 0": 4 + 8, "0 seed 0": 4 + 8 + 2}


def test_trials_occupy_their_shares_of_nodes_as_far_as_these_name_them(make: Callable[..., list[Trial]]) -> None:
    trials = make(4)
    shares = Allocator(Resources(cpus=2, gpus=0.5))
    lengths = lengths_of(trials, [HOUR_S] * 4)
    cores = simulate(trials, lengths, allocator=shares, nodes=[Node("a", {"CPU": 5.0})])
    assert (cores.makespan_s, cores.busy, cores.gpu_hours) == (2 * HOUR_S, 4 / 5, 4 * 0.5)
    gpus = simulate(trials, lengths, allocator=shares, nodes=[Node("a", {"CPU": 100.0, "GPU": 2.0})])
    assert (gpus.makespan_s, gpus.busy) == (HOUR_S, 1)
    capped = simulate(trials, lengths, allocator=shares, nodes=[Node("a", {"CPU": 100.0})], num_slots=1)
    assert (capped.makespan_s, capped.busy) == (4 * HOUR_S, 1)
    with pytest.raises(ClusterError, match="2 CPUs"):
        simulate(trials, lengths, allocator=shares, nodes=[Node("a", {"CPU": 1.0})])


def test_shares_of_several_kinds_make_room_for_each_other(make: Callable[..., list[Trial]]) -> None:
    trials = make(3)
    large = replace(trials[1].config.model, scale="micro")
    trials[1] = replace(trials[1], config=replace(trials[1].config, model=large))
    shares = Allocator(Resources(cpus=1, by_scale={"micro": {"cpus": 4}}))
    ran = simulate(trials, lengths_of(trials, [10, 10, 10]), allocator=shares, nodes=[Node("a", {"CPU": 4.0})])
    # All four cores go to the second one once the first has ended; the third waits for its turn.
    assert ran.ended_s == lengths_of(trials, [10, 20, 30])


def test_a_budget_leaves_out_the_last_seeds(make: Callable[..., list[Trial]]) -> None:
    trials = make(2, num_seeds=3)
    lengths = lengths_of(trials, [HOUR_S] * 6)
    seeds = {trial.trial_id: trial.seed for trial in trials}
    for limits in (Limits(time_budget_h=5), Limits(max_gpu_hours=5)):
        ran = simulate(trials, lengths, allocator=Allocator(Resources(gpus=1)), num_slots=1, limits=limits)
        assert {seeds[trial_id] for trial_id in ran.skipped} == {2}
        assert (ran.makespan_s, ran.gpu_hours) == pytest.approx((4 * HOUR_S, 4))
        assert "5" in ran.reason
        assert ran.seed_complete_s(trials) == 2 * HOUR_S


@pytest.mark.parametrize("limits", [Limits(time_budget_h=1.5), Limits(max_gpu_hours=3)])
def test_a_budget_that_is_spent_ends_the_run_in_the_middle_of_trials(
    limits: Limits, make: Callable[..., list[Trial]]
) -> None:
    trials = make(4)
    lengths = lengths_of(trials, [HOUR_S, 5 * HOUR_S, HOUR_S, HOUR_S])
    ran = simulate(trials, lengths, allocator=Allocator(Resources(gpus=1)), num_slots=2, limits=limits)
    assert ran.skipped == {trial.trial_id for trial in trials[1:]}
    assert ran.makespan_s == pytest.approx(1.5 * HOUR_S, rel=0.01)
    assert ran.gpu_hours == pytest.approx(3, rel=0.01)
    assert ran.seed_complete_s(trials) is None


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    num_slots=st.integers(1, 6),
    is_known=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_never_more_trials_run_than_there_are_slots_and_none_of_them_is_idle_in_vain(
    lengths: list[int], num_slots: int, is_known: bool, make: Callable[..., list[Trial]]
) -> None:
    trials = make(len(lengths))
    seconds = lengths_of(trials, lengths)
    ran = simulate(
        trials, seconds, allocator=ONE_CORE, num_slots=num_slots, known=known(trials, seconds) if is_known else None
    )
    begins = {trial_id: end - seconds[trial_id] for trial_id, end in ran.ended_s.items()}
    for begin in begins.values():
        assert sum(b <= begin < ran.ended_s[trial_id] for trial_id, b in begins.items()) <= num_slots
    assert sorted(ran.started) == sorted(seconds)
    # Graham's bound, of any schedule that leaves no slot idle while trials wait.
    work, longest = sum(lengths), max(lengths)
    assert max(work / num_slots, longest) - 1e-9 <= ran.makespan_s
    assert ran.makespan_s <= work / num_slots + (1 - 1 / num_slots) * longest + 1e-9


def test_a_run_follows_from_the_seed_of_its_chances(make: Callable[..., list[Trial]]) -> None:
    trials = make(20, num_seeds=3)
    lengths = lengths_of(trials, [10.0 + number for number in range(60)])

    def run(seed: int) -> Simulated:
        conditions = Conditions(failure_rate=0.2, checkpoint_every_s=3)
        nodes = [Node(name, {"CPU": 4.0}) for name in "abc"]
        return simulate(
            trials, lengths, allocator=ONE_CORE, nodes=nodes, conditions=conditions, draw=random.Random(seed)
        )

    assert run(1) == run(1)
    assert run(1).ended_s != run(2).ended_s


class HandPlayed(PlainSlots):
    """Keep a list of who runs until when: an executor as plain as can be."""

    def __init__(self, num_slots: int, lengths: Mapping[str, float]) -> None:
        self.num_slots, self.lengths, self.now_s = num_slots, lengths, 0.0
        self.running: list[tuple[float, Job]] = []
        self.jobs: list[Job] = []

    def clock(self) -> float:
        return self.now_s

    def has_room(self, share: ResourceRequest, avoid: frozenset[str] = frozenset()) -> bool:  # noqa: ARG002
        return len(self.running) < self.num_slots

    def submit(self, job: Job) -> Place:
        self.jobs.append(job)
        self.running.append((self.now_s + self.lengths[job.trial_id], job))
        return Place(has_started=True)

    def prune(self, trial_id: str, why: str = "") -> None:  # noqa: ARG002
        raise AssertionError

    def kill(self, trial_id: str) -> None:  # noqa: ARG002
        raise AssertionError

    def poll(self, timeout_s: float) -> list[Event]:  # noqa: ARG002
        self.now_s, job = first = min(self.running, key=lambda entry: entry[0])
        self.running.remove(first)
        seconds = self.lengths[job.trial_id]
        return [Finished(job.trial_id, job.attempt, metrics={}, seconds=seconds, core_seconds=seconds)]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_trials_start_in_the_order_in_which_the_scheduler_hands_them_to_any_executor(
    num_slots: int, is_known: bool, trials: tuple[Trial, ...], ledger: Ledger
) -> None:
    lengths = lengths_of(trials, [7.5, 1.25, 2.5, 6.125, 8.0, 1.5, 2.25, 30.0])

    def learned() -> TrialDurations:
        return known(trials, lengths) if is_known else TrialDurations()

    executor = HandPlayed(num_slots, lengths)
    recorder = _Recorder(executor.clock)
    Scheduler(
        ledger=ledger,
        judge=Judge(NoPruning(), higher_is_better=True, records=ledger.records()),
        judged_metric="knn_top1",
        executor=executor,
        callbacks=[recorder],
        allocator=ONE_CORE,
        durations=learned(),
        clock=executor.clock,
    ).run(trials)
    ran = simulate(trials, lengths, allocator=ONE_CORE, num_slots=num_slots, known=learned())
    assert ran.started == tuple(job.trial_id for job in executor.jobs)
    assert ran.ended_s == recorder.ended_s
    assert {record.state for record in ledger.records()} == {State.DONE}


@pytest.mark.parametrize(
    ("num_seeds", "is_measured"),
    [*(pytest.param(10, known, marks=pytest.mark.long) for known in (True, False)), (3, True)],
)
def test_on_a_thousand_slots_a_run_ends_within_a_twentieth_of_the_lower_bound(
    num_seeds: int, is_measured: bool, make: Callable[..., list[Trial]]
) -> None:
    """With 2% of attempts failing; half an hour a trial on the mean, the longest a tenfold of it.

    Arms and groups differ much, repetitions of an arm little: that is what can be known of lengths, from an earlier
    seed or run.
    """
    trials = make(1000, num_seeds=num_seeds, num_groups=50)
    draw = random.Random(1)
    groups = [draw.lognormvariate(0, 0.5) for _ in range(50)]
    arms = [groups[arm % 50] * draw.lognormvariate(0, 0.3) for arm in range(1000)]
    drawn = [arms[place % 1000] * draw.lognormvariate(0, 0.05) for place in range(len(trials))]
    lengths = lengths_of(trials, [1800 * length * len(drawn) / sum(drawn) for length in drawn])
    conditions = Conditions(failure_rate=0.02, checkpoint_every_s=60)
    ran = simulate(
        trials,
        lengths,
        allocator=ONE_CORE,
        nodes=[Node(f"{number}", {"CPU": 8.0}) for number in range(125)],
        known=known(trials[:1000], lengths) if is_measured else None,
        conditions=conditions,
        draw=random.Random(2),
    )
    lower_bound_s = max(sum(lengths.values()) / 1000, *lengths.values())  # no schedule is shorter
    assert ran.num_attempts > 1.01 * len(trials)
    assert len(ran.ended_s) == len(trials)
    assert not ran.given_up
    assert 1 <= ran.makespan_s / lower_bound_s <= 1.05


def test_lengths_are_drawn_from_the_arm_or_else_the_group_or_else_another_group_floors_apart(
    make: Callable[..., list[Trial]], record_of: Callable[..., TrialRecord]
) -> None:
    trials = make(4, num_groups=2)
    first, second, third, _ = trials  # the third is of the first one's group, the fourth of the second one's
    floor = replace(first, role=Role.FLOOR, arm_id="floor", trial_id="floor")
    other = replace(first, group_id="other", arm_id="other", trial_id="other")

    def drawn(*records: TrialRecord, of: Trial) -> set[float] | None:
        found = [draw_lengths([of], records, random.Random(seed)) for seed in range(40)]
        return None if None in found else {length for lengths in found if lengths for length in lengths.values()}

    def done(trial: Trial, seconds: float) -> TrialRecord:
        return record_of(trial, State.DONE, seconds=seconds)

    measured = done(first, 10), done(first, 12), done(third, 30), done(second, 7), done(floor, 1)
    assert drawn(*measured, of=first) == {10, 12}
    assert drawn(*measured, of=replace(first, arm_id="new")) == {10, 12, 30}
    assert drawn(*measured, of=other) == {(10 + 12 + 30) / 3, 7}
    assert drawn(*measured, of=replace(floor, group_id="other", arm_id="of other")) == {1}
    assert drawn(done(second, 7), of=floor) == {7}
    assert drawn(done(floor, 1), of=first) is None
    assert drawn(record_of(first, State.PRUNED, seconds=3), of=first) is None
    both = draw_lengths([other, replace(other, arm_id="more", trial_id="more")], measured, random.Random(0))
    assert both is not None
    assert len(set(both.values())) == 1
