from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli.plan_view import render_plan
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.provenance import collect_provenance
from orchestrator.plan import Plan, make_plan
from orchestrator.run import LEDGER_NAME, describe
from orchestrator.statistics.confirmation import SCREEN_LEVEL
from orchestrator.sweep.grid import expand
from orchestrator.sweep.resolved import Sweep
from orchestrator.trials.events import Failed, Finished, Pruned
from orchestrator.trials.records import Cause
from orchestrator.trials.trial import Trial
from specvit.arithmetic import rough_seconds

NANO_PARAMETERS = (
    (3 * 4 * 4 * 64 + 64)  # patch embedding
    + (64 + 65 * 64)  # [CLS], positions of 8 x 8 patches and of [CLS]
    + 6 * (12 * 64**2 + 13 * 64)  # blocks
    + 2 * 64  # final norm
)
NORM_PARAMETERS = 6 * 2 * 2 * 64


@pytest.fixture(autouse=True)
def _few_slots_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cases that can be worked out by hand show what happens from eight slots on."""
    monkeypatch.setattr("orchestrator.scheduling.longest_first._FEW_SLOTS", 1)


def fill_ledger(sweep: Sweep, results: Path, *, seconds: dict[str, float]) -> None:
    """Record the trials of the arms in ``seconds`` as done, for the first seed."""
    trials = expand(sweep)
    with Ledger.open(results / sweep.name / LEDGER_NAME) as ledger:
        ledger.register(describe(sweep, trials, {}), trials, collect_provenance())
        for trial in trials:
            if trial.seed == 0 and trial.arm in seconds:
                attempt = ledger.begin_attempt(trial.trial_id)
                length = seconds[trial.arm]
                ledger.record(
                    Finished(trial.trial_id, attempt, metrics={}, seconds=length, core_seconds=length)
                )


def rendered(plan: Plan) -> str:
    file = StringIO()
    Console(file=file, width=120, highlight=False).print(render_plan(plan))
    return file.getvalue()


def test_arms_are_counted_with_their_parameters_baseline_first_and_floors_last(
    sweep: Sweep, tmp_path: Path
) -> None:
    plan = make_plan(sweep, results_root=tmp_path, num_slots=2)
    assert [(arm.arm, arm.role, arm.num_parameters, arm.num_trials, arm.num_pending) for arm in plan.arms] == [
        ("none", "baseline", NANO_PARAMETERS, 2, 2),
        ("norm@all", "arm", NANO_PARAMETERS + NORM_PARAMETERS, 2, 2),
        ("random init", "floor", NANO_PARAMETERS, 2, 2),
        ("raw pixels", "floor", 0, 2, 2),
    ]
    assert plan.arms[1].extra_parameters_percent == pytest.approx(100 * NORM_PARAMETERS / NANO_PARAMETERS)
    assert (plan.num_groups, plan.num_trials, plan.seeds) == (1, 8, (0, 1))


def test_a_named_arm_is_shown_with_the_places_that_it_stands_for(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = make_sweep(ablate={"specialize": ["paper", "mlp@all"], "init": ["copy", "independent"]})
    plan = make_plan(sweep, results_root=tmp_path, num_slots=2)
    places = {arm["arm"]: arm["specialize"] for arm in plan.to_json()["arms"] if arm["role"] == "arm"}
    assert places == {
        "paper": "norm@all+qkv@first-third",
        "paper (independent)": "norm@all+qkv@first-third",
        "mlp@all": "mlp@all",
        "mlp@all (independent)": "mlp@all",
    }
    text = rendered(plan)
    assert text.count("= norm@all") == text.count("+ qkv@first-third") == 2
    assert "= mlp" not in text


def test_a_sweep_that_was_never_run_has_no_forecast_and_planning_leaves_no_trace(
    sweep: Sweep, tmp_path: Path
) -> None:
    plan = make_plan(sweep, results_root=tmp_path / "results", num_slots=2)
    assert plan.forecast.seconds is None
    assert plan.forecast.num_pending == 8
    rough = sum(rough_seconds(trial.config) or 0.0 for trial in expand(sweep)) / 2
    assert plan.forecast.rough_s == plan.to_json()["rough_seconds"] == pytest.approx(rough)
    assert f"no trial of this sweep has been measured yet; by arithmetic about {rough:.0f} s on 2" in rendered(plan)
    assert not (tmp_path / "results").exists()


def test_what_has_a_result_is_not_planned_again_and_tells_the_length_of_the_rest(
    sweep: Sweep, tmp_path: Path
) -> None:
    fill_ledger(sweep, tmp_path, seconds={"none": 10.0, "norm@all": 14.0, "random init": 2.0, "raw pixels": 1.0})
    plan = make_plan(sweep, results_root=tmp_path, num_slots=2)
    assert [arm.num_pending for arm in plan.arms] == [1, 1, 1, 1]
    assert [arm.seconds_per_trial for arm in plan.arms] == [10.0, 14.0, 2.0, 1.0]
    assert plan.forecast.num_measured == 4
    # The long trial on one slot, the others (10, 2 and 1 s) on the other one.
    assert plan.forecast.seconds == 14.0
    assert plan.forecast.first_seed_s == 0.0
    text = rendered(plan)
    assert "forecast: 14 s on 2 slots, from 4 measured trials" in text
    assert f"slots busy {100 * 27 / 28:.0f}% of the time; the first seed is complete already" in text


def test_a_pruned_trial_is_not_planned_again_and_is_not_measured(
    sweep: Sweep, trials: tuple[Trial, ...], tmp_path: Path
) -> None:
    fill_ledger(sweep, tmp_path, seconds={"none": 10.0})
    arm = next(trial for trial in trials if trial.role == "arm")
    with Ledger.open(tmp_path / sweep.name / LEDGER_NAME) as ledger:
        ledger.record(Pruned(arm.trial_id, ledger.begin_attempt(arm.trial_id), step=2, seconds=1.0))
    plan = make_plan(sweep, results_root=tmp_path, num_slots=1)
    assert [a.num_pending for a in plan.arms] == [1, 1, 2, 2]
    assert plan.arms[1].seconds_per_trial == 10.0


def test_an_arm_that_was_removed_and_comes_back_is_not_planned_again(
    sweep: Sweep, make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    fill_ledger(sweep, tmp_path, seconds={"none": 10.0, "norm@all": 14.0})
    fill_ledger(make_sweep(ablate={"components": ["none"]}), tmp_path, seconds={})
    plan = make_plan(sweep, results_root=tmp_path, num_slots=1)
    assert [(arm.arm, arm.num_pending) for arm in plan.arms[:2]] == [("none", 1), ("norm@all", 1)]


def test_another_sweep_with_the_same_group_tells_the_lengths(
    sweep: Sweep, make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    fill_ledger(make_sweep(name="other"), tmp_path, seconds={"none": 20.0, "random init": 4.0})
    longer = {"recipe": "dinov2_cpu", "steps": 400, "batch_size": 8}
    fill_ledger(make_sweep(name="longer", objective=longer), tmp_path, seconds={"none": 999.0})
    plan = make_plan(sweep, results_root=tmp_path, num_slots=1)
    assert plan.forecast.num_pending == 8
    assert plan.forecast.seconds == 4 * 20.0 + 4 * 4.0


def test_lengths_in_epochs_are_planned_without_the_images_each_its_own_group(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    objective = {"recipe": "dinov2_cpu", "batch_size": 8}
    made = make_sweep(objective=objective, vary={"objective.epochs": [1, 2]})
    plan = make_plan(made, results_root=tmp_path)
    assert (plan.num_groups, plan.num_trials) == (2, 16)
    assert {arm.group for arm in plan.arms} == {"objective.epochs=1.0", "objective.epochs=2.0"}
    assert plan.forecast.seconds is None
    once = make_sweep(name="once", objective={**objective, "epochs": 1})
    fill_ledger(once, tmp_path, seconds={"none": 20.0, "random init": 4.0})
    measured = make_plan(once, results_root=tmp_path, num_slots=1)
    # Of each arm and floor one seed is left or both: 1 + 2 trials of 20 s, 1 + 2 of 4 s.
    assert measured.forecast.seconds == 3 * 20.0 + 3 * 4.0


def test_what_the_budget_has_no_room_for_is_told_with_its_seeds(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    def plan(**limits: float) -> Plan:
        return make_plan(make_sweep(seeds=3, resources={"gpus": 0.5}, **limits), results_root=tmp_path, num_slots=2)

    arms = ("none", "norm@all", "random init", "raw pixels")
    fill_ledger(make_sweep(seeds=3), tmp_path, seconds=dict.fromkeys(arms, 3600.0))
    # Each of the two seeds that are left takes four hours on half a GPU, two at a time.
    for enough in (plan(max_gpu_hours=4.5), plan(time_budget_h=4.5)):
        assert (enough.forecast.seconds, enough.to_json()["left_out_trials"]) == (4 * 3600.0, 0)
        assert enough.to_json()["gpu_hours"] == 4.0
    less = plan(max_gpu_hours=3)
    text = rendered(less)
    assert "forecast: 2 h 00 min on 2 slots, from 4 measured trials" in text
    assert "2.0 GPU hours" in text
    assert "the budget of 3 GPU hours leaves out 4 trials, of seed 2" in text
    told = less.to_json()
    assert (told["left_out_trials"], told["left_out_seeds"]) == (4, [2])
    assert told["left_out_reason"] == "the budget of 3 GPU hours"
    assert plan(time_budget_h=3).to_json()["left_out_seeds"] == [2]


def test_attempts_fail_as_often_as_the_ledger_has_seen_them_fail(sweep: Sweep, tmp_path: Path) -> None:
    fill_ledger(sweep, tmp_path, seconds={"none": 100.0, "random init": 1.0, "raw pixels": 1.0})
    arm = next(trial for trial in expand(sweep) if trial.arm == "norm@all")
    with Ledger.open(tmp_path / sweep.name / LEDGER_NAME) as ledger:
        attempt = ledger.begin_attempt(arm.trial_id)
        ledger.record(Failed(arm.trial_id, attempt, error="ValueError: no", traceback="", cause=Cause.RAISED))
    plan = make_plan(sweep, results_root=tmp_path, num_slots=1)
    assert plan.forecast.failure_rate == 1 / 4
    assert "25.0% of attempts fail, as so far" in rendered(plan)
    low_s, high_s = plan.to_json()["forecast_range_seconds"]
    # Three trials of 100 s and two of 1 s, of which none or some fail, after less than their length.
    assert 3 * 100.0 + 2 * 1.0 <= low_s <= plan.forecast.seconds <= high_s


def test_scales_occupy_the_cores_that_their_own_resources_say(
    make_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    made = make_sweep(
        floors=[],
        seeds=1,
        ablate={"components": ["none"]},
        vary={"model.scale": ["nano", "micro"], "objective.lr": [0.001, 0.002]},
        resources={"cpus": 1, "micro": {"cpus": 4}},
    )
    objective = {"recipe": "dinov2_cpu", "steps": 4, "batch_size": 8, "lr": 0.001}
    fill_ledger(make_sweep(name="other", objective=objective), tmp_path, seconds={"none": 10.0})
    plan = make_plan(made, results_root=tmp_path)
    # Trials of micro, first in order, take all four cores, one after the other; those of nano run side by side.
    assert plan.forecast.num_slots == 1
    assert plan.forecast.seconds == 10.0 + 10.0 + 10.0


def test_groups_stand_apart_in_the_order_of_the_file(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    plan = make_plan(make_sweep(vary={"model.scale": ["nano", "micro"]}), results_root=tmp_path)
    assert plan.num_groups == 2
    assert [(arm.group, arm.arm) for arm in plan.arms] == [
        (f"model.scale={scale}", arm)
        for scale in ("nano", "micro")
        for arm in ("none", "norm@all", "random init", "raw pixels")
    ]


@pytest.mark.parametrize(("cpus", "processes", "expected"), [(1, 1, 8), (3, 1, 2), (100, 1, 1), (1, 2, 4), (1.5, 4, 1)])
def test_slots_follow_from_the_cores_of_the_machine(
    cpus: float,
    processes: int,
    expected: int,
    make_sweep: Callable[..., Sweep],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))  # what a scheduler has left of the machine
    plan = make_plan(make_sweep(resources={"cpus": cpus, "processes": processes}), results_root=tmp_path)
    assert plan.forecast.num_slots == expected


@pytest.mark.parametrize(("gpus", "processes", "expected"), [(0, 1, 8), (1, 1, 2), (0.5, 1, 4), (4, 1, 1), (1, 2, 1)])
def test_slots_follow_from_the_gpus_of_the_machine_too_where_it_has_some(
    gpus: float,
    processes: int,
    expected: int,
    make_sweep: Callable[..., Sweep],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    plan = make_plan(make_sweep(resources={"gpus": gpus, "processes": processes}), results_root=tmp_path)
    assert plan.forecast.num_slots == expected


def test_of_seeds_that_grow_the_plan_says_the_most_and_the_expected_number_of_trials(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    plan = make_plan(make_sweep(seeds={"start": 4, "most": 16}), results_root=tmp_path)
    # Baseline and arm with 16 seeds each, two floors with 4.
    assert plan.num_trials == 2 * 16 + 2 * 4
    assert plan.expected_trials is not None
    assert 2 * 4 + 2 * 4 < plan.expected_trials < plan.num_trials
    confirmed = make_plan(make_sweep(seeds={"start": 4, "most": 9, "method": "confirm"}), results_root=tmp_path)
    assert confirmed.expected_trials == pytest.approx(2 * 4 + 4 * 2 + 5 * (1 + SCREEN_LEVEL))


def test_the_plan_as_json_says_the_same(sweep: Sweep, tmp_path: Path) -> None:
    fill_ledger(sweep, tmp_path, seconds={"none": 10.0, "random init": 2.0})
    made = json.loads(json.dumps(make_plan(sweep, results_root=tmp_path, num_slots=2).to_json()))
    assert [arm["arm"] for arm in made.pop("arms")] == ["none", "norm@all", "random init", "raw pixels"]
    assert [each["scale"] for each in made.pop("memory")] == ["nano"]
    assert made == {
        "name": "tiny",
        "question": "Does a tiny sweep run?",
        "groups": 1,
        "trials": 8,
        "pending": 6,
        "evaluated_only": 0,
        "taken_over": 0,
        "without_weights": 0,
        "expected_trials": None,
        "seeds": [0, 1],
        "slots": 2,
        "gpus_in_vain": "",
        # Trained trials of 10 s and floors of 2 s: floor, baseline, floors (2 to 16 s); arm, arm (10 to 20 s).
        "forecast_seconds": 20.0,
        "rough_seconds": None,
        "forecast_range_seconds": [20.0, 20.0],
        "forecast_from_trials": 2,
        "forecast_failure_rate": 0.0,
        "busy_percent": pytest.approx(100 * (3 * 10.0 + 3 * 2.0) / (2 * 20.0)),
        "gpu_hours": 0.0,
        "first_seed_complete_seconds": 10.0,
        "left_out_trials": 0,
        "left_out_seeds": [],
        "left_out_reason": "",
        # Of an arm without a second seed no noise is known. A seed takes two trainings and two floors.
        "power": {
            "power": 0.8,
            "primary": None,
            "seeds": 2,
            "seeds_grow": False,
            "by_looks": False,
            "expected_trials": None,
            "groups": [{"group": "", "num_arms": 1, "metrics": []}],
            "seeds_to_find": None,
            "core_hours": pytest.approx(2 * (2 * 10.0 + 2 * 2.0) / 3600),
            "core_hours_to_find": None,
        },
    }
