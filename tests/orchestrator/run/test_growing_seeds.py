"""Sweeps whose seeds grow: arms that are decided or futile get no more of them, and a stopped run decides alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.cli.run import _why_nothing
from orchestrator.ledger.ledger import LEDGER_NAME, Ledger
from orchestrator.plan import make_plan
from orchestrator.reports.ablation_table import tables_of
from orchestrator.reports.growth import follow_group
from orchestrator.reports.rendering.cell_text import notes_of
from orchestrator.run import Outcome
from orchestrator.statistics import compare_arms, decide, design_looks
from orchestrator.statistics.decisions import Action
from orchestrator.statistics.verdicts import Verdict
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Failed, Finished
from orchestrator.trials.records import DECIDED, State
from orchestrator.trials.trial import Role
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.trial import Observer, TrialResult

from .driver import Driver

GAINS = {"none": 0.0, "norm@all": 60.0, "qkv@all": 0.3, "mlp@all": 0.0}


def value_of(config: TrialConfig) -> float:
    """Return the made-up score of a trial: noise of its seed, noise of its own with an SD of 1, and its arm's gain."""
    arm = config.treatment.specialize
    seed, own = (np.random.default_rng([config.seed, number]) for number in (0, 1 + list(GAINS).index(arm)))
    return 50.0 + 3.0 * seed.normal() + own.normal() + GAINS[arm]


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        observer.progress(step=1, steps=1, images_per_s=1.0)
        if not config.treatment.is_trained:
            return TrialResult({"knn_top1": 10.0})
        return TrialResult({"knn_top1": value_of(config), "loss": 1.0})

    monkeypatch.setattr("specvit.trial.run_trial", run)


@pytest.fixture
def growing(make_sweep: Callable[..., Sweep]) -> Callable[..., Sweep]:
    def make(**seeds: Any) -> Sweep:
        return make_sweep(
            seeds={"start": 4, "most": 16, "looks": [4, 8, 16]} | seeds,
            ablate={"components": ["none", "norm", "qkv", "mlp"]},
            rungs={"count": 0},
            floors=["random_init"],
        )

    return make


def seeds_of(outcome: Outcome) -> dict[str, int]:
    """Return how many seeds of each arm were run."""
    counts: dict[str, int] = {}
    for record in outcome.records:
        counts[record.trial.arm] = counts.get(record.trial.arm, 0) + (record.state is State.DONE)
    return counts


def test_a_clear_arm_stops_at_the_first_look_and_others_where_they_are_decided_or_futile(
    driver: Driver, growing: Callable[..., Sweep]
) -> None:
    sweep = growing()
    assert (sweep.growth is not None and sweep.growth.all_looks) == (4, 8, 16)
    outcome = driver.run(sweep)
    assert outcome.finished
    counts = seeds_of(outcome)
    assert (counts["norm@all"], counts["random init"]) == (4, 4)
    # The baseline runs as long as any arm does, and no longer.
    assert counts["none"] == max(count for arm, count in counts.items() if arm in GAINS and arm != "none")
    assert set(counts.values()) <= {4, 8, 16}
    assert {record.skip_reason for record in outcome.records if record.state is State.SKIPPED} == {DECIDED}
    # What the room of statistics says of the same numbers.
    values = {
        arm: {t.seed: value_of(t.config) for t in expand(sweep) if t.arm == arm and t.seed < 4} for arm in GAINS
    }
    first = decide(design_looks((4, 8, 16), 3), 4, values, baseline="none")
    assert first["norm@all"].action is Action.BETTER
    for arm, decision in first.items():
        assert (counts[arm] == 4) is (decision.action is not Action.CONTINUE)
    (table,) = tables_of(outcome.records, outcome.info).values()
    cell = {row.arm: row.metrics["knn_top1"].difference for row in table.rows}["norm@all"]
    assert cell is not None
    assert cell.verdict is Verdict.BETTER
    assert (cell.low, cell.high, cell.n) == (first["norm@all"].low, first["norm@all"].high, 4)
    fixed = compare_arms(values, baseline="none").arms["norm@all"]
    assert fixed.low is not None
    assert cell.low is not None
    assert cell.low < fixed.low  # several looks are paid for by wider intervals
    (note,) = (note for note in notes_of(table, place="below it") if note.startswith("Seeds grow: "))
    assert "1 better" in note
    assert note.endswith("was not likely to be decided by the last one.")
    assert sweep.growth is not None
    better = follow_group(outcome.records, replace(sweep.growth, seek="better"), "knn_top1")
    wanted = decide(design_looks((4, 8, 16), 3), 4, values, baseline="none", seek="better")
    ids = {record.trial.arm: record.trial.arm_id for record in outcome.records}
    for arm, decision in wanted.items():
        assert decision.action in (better.decisions[ids[arm]].action, Action.CONTINUE)
    (note,) = (n for n in notes_of(replace(table, growth=better), place="below it") if n.startswith("Seeds grow: "))
    assert note.endswith("was not likely to turn out better by the last one.")


def test_a_run_that_was_stopped_and_one_that_was_not_decide_alike(
    driver: Driver, growing: Callable[..., Sweep], tmp_path: Any
) -> None:
    whole = Driver(tmp_path / "whole").run(growing())
    ended = [0]

    def after_seven(event: object) -> bool:
        ended[0] += isinstance(event, Finished)
        return ended[0] == 7

    while not (outcome := driver.run(growing(), stop_after=after_seven)).finished:
        ended[0] = 0
    assert seeds_of(outcome) == seeds_of(whole)
    assert [(r.trial.trial_id, r.state, dict(r.metrics)) for r in outcome.records] == [
        (r.trial.trial_id, r.state, dict(r.metrics)) for r in whole.records
    ]
    again = driver.run(growing())
    assert (again.num_run, driver.executors) == (0, [])
    num_left_out = sum(record.state is State.SKIPPED for record in again.records)
    expected = f"{num_left_out} of 68 trials are left out since their arms are decided, the others have a result"
    assert _why_nothing(again) == expected


def test_a_plan_counts_what_a_run_would_do(growing: Callable[..., Sweep], tmp_path: Path) -> None:
    driver = Driver(tmp_path / growing().name)
    plan = make_plan(growing(), results_root=tmp_path)
    assert sum(arm.num_pending for arm in plan.arms) == plan.num_trials == 4 * 16 + 4
    outcome = driver.run(growing())
    plan = make_plan(growing(), results_root=tmp_path)
    assert [arm.num_pending for arm in plan.arms] == [0] * 5
    # A value fewer opens a look again, and as many trials are planned as run.
    left = [r.trial.trial_id for r in outcome.records if r.trial.arm == "norm@all" and r.state is State.DONE]
    with Ledger.open(driver.folder / LEDGER_NAME) as ledger:
        ledger.supersede(left[-1:])
        ledger.record(Failed(left[-1], ledger.begin_attempt(left[-1]), error="RuntimeError: boom", traceback=""))
    plan = make_plan(growing(), results_root=tmp_path)
    assert driver.run(growing()).num_run == sum(arm.num_pending for arm in plan.arms) > 0
    again = driver.run(growing())
    assert again.num_run == 0
    first, *others = again.records
    failed = _why_nothing(replace(again, records=(replace(first, state=State.FAILED), *others)))
    assert ", 1 failed at looks that are over, the others have a result; 'specsweep retry SWEEP.yaml --fail" in failed


def test_where_all_arms_are_decided_the_baseline_gets_no_more_seeds_either(
    driver: Driver, make_sweep: Callable[..., Sweep]
) -> None:
    sweep = make_sweep(
        seeds={"start": 4, "most": 16}, ablate={"components": ["none", "norm"]}, rungs={"count": 0}, floors=[]
    )
    assert seeds_of(driver.run(sweep)) == {"none": 4, "norm@all": 4}
    assert len(driver.submitted) == 8


def test_confirmation_judges_the_chosen_arms_on_fresh_seeds_alone(
    driver: Driver, growing: Callable[..., Sweep]
) -> None:
    outcome = driver.run(growing(most=9, looks=[], method="confirm"))
    counts = seeds_of(outcome)
    assert (counts["none"], counts["norm@all"]) == (9, 9)
    (table,) = tables_of(outcome.records, outcome.info).values()
    cell = {row.arm: row.metrics["knn_top1"].difference for row in table.rows}["norm@all"]
    assert cell is not None
    assert (cell.verdict, cell.n) == (Verdict.BETTER, 5)


def test_a_failed_trial_holds_up_no_look(
    driver: Driver, growing: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: TrialConfig, dataset: Dataset, observer: Observer, **_: object) -> TrialResult:
        if config.treatment.specialize == "norm@all" and config.seed == 1:
            raise ArithmeticError("no")
        return TrialResult({"knn_top1": value_of(config) if config.treatment.is_trained else 10.0, "loss": 1.0})

    monkeypatch.setattr("specvit.trial.run_trial", run)
    outcome = driver.run(growing())
    assert outcome.num_failed == 1
    assert seeds_of(outcome)["none"] >= 8


def test_controls_have_the_seeds_of_the_baseline_and_decide_nothing(
    driver: Driver, growing: Callable[..., Sweep], make_sweep: Callable[..., Sweep], tmp_path: Any
) -> None:
    plain = seeds_of(Driver(tmp_path / "plain").run(growing()))
    file = growing().file
    sweep = make_sweep(
        seeds={"start": 4, "most": 16, "looks": [4, 8, 16]}, ablate={"components": list(file.ablate.components or ())},
        rungs={"count": 0}, floors=["random_init"], controls=["repeat"],
    )
    outcome = driver.run(sweep)
    assert seeds_of(outcome) == plain | {"repeat": plain["none"]}
    again = driver.run(sweep)
    assert again.num_run == 0


@pytest.mark.parametrize("method", ["sequential", "confirm"])
def test_decisions_have_the_order_of_the_sweep(driver: Driver, growing: Callable[..., Sweep], method: str) -> None:
    # Not that of a set, which differs from process to process, and with it what a table says in which order.
    sweep = growing(method=method, most=8, looks=[4, 8] if method == "sequential" else [])
    records = driver.run(sweep).records
    order = list(dict.fromkeys(record.trial.arm_id for record in records if record.trial.role is Role.ARM))
    assert sweep.growth is not None
    decided = list(follow_group(records, sweep.growth, "knn_top1").decisions)
    assert decided == sorted(decided, key=order.index)
    assert len(decided) == 3
