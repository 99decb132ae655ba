from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli.plan_view import render_plan
from orchestrator.plan import Plan, make_plan
from orchestrator.statistics.confirmation import SCREEN_LEVEL
from orchestrator.sweep.resolved import Sweep


def rendered(plan: Plan) -> str:
    file = StringIO()
    Console(file=file, width=120, highlight=False).print(render_plan(plan))
    return file.getvalue()


def test_groups_are_tabulated_apart_in_the_order_of_the_file(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    text = rendered(make_plan(make_sweep(vary={"model.scale": ["nano", "micro"]}), results_root=tmp_path))
    assert text.index("model.scale=nano") < text.index("model.scale=micro")
    # The raw pixels of a seed are run once for both scales.
    assert "2 groups, 8 arms with baseline and floors, 2 seeds, 16 trials, 14 to run" in text


@pytest.mark.parametrize(("gpus", "is_told"), [(0, True), (0.5, False)])
def test_gpus_of_this_machine_that_no_trial_asks_for_are_told_of(
    gpus: float, is_told: bool, make_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    sweep = make_sweep(resources={"gpus": gpus})
    line = "2 GPUs are there, but no trial asks for one"
    assert (line in rendered(make_plan(sweep, results_root=tmp_path))) is is_told
    assert line not in rendered(make_plan(sweep, results_root=tmp_path, num_slots=4))  # of another machine


def test_of_very_many_arms_the_first_are_shown_and_the_rest_are_counted(
    make_sweep: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.plan_view.MAX_SHOWN", 5)
    made = make_sweep(vary={"objective.lr": [0.1, 0.2, 0.3]})
    plan = make_plan(made, results_root=tmp_path)  # 3 groups of 4 arms
    text = rendered(plan)
    assert [text.count(f"objective.lr={rate}") for rate in (0.1, 0.2, 0.3)] == [1, 1, 0]
    assert "and 7 more arms, which --json lists" in text
    assert "3 groups, 12 arms with baseline and floors" in text
    assert len(plan.to_json()["arms"]) == 12


def test_long_arms_are_folded_as_in_tables(make_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = make_sweep(ablate={"specialize": ["norm@first-third+qkv@first-third+mlp@all"]}, floors=[])
    text = rendered(make_plan(sweep, results_root=tmp_path))
    lines = [line.strip("│ ").split("│")[0].rstrip() for line in text.splitlines()]
    start = lines.index("norm@first-third")
    assert lines[start + 1 : start + 3] == ["+qkv@first-third", "+mlp@all"]


def test_memory_is_shown_by_scale_with_a_warning_where_too_little_is_reserved(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    text = rendered(make_plan(make_sweep(resources={"memory_gib": 0.25}), results_root=tmp_path))
    assert "GiB of memory a process, by arithmetic\n" in text
    (row,) = (line for line in text.splitlines() if line.startswith("│ nano"))
    assert [cell.strip() for cell in row.strip("│").split("│")][-1] == "0.2"
    assert "trials of nano take 1." in text
    assert "of the machine's memory by arithmetic, more than resources.memory_gib says, 0.25" in " ".join(text.split())
    on_gpus = rendered(make_plan(make_sweep(resources={"gpus": 1}), results_root=tmp_path))
    assert "(not measured on GPUs)" in on_gpus
    assert "more than resources.memory_gib says" not in on_gpus


def test_controls_are_marked_and_say_what_a_placebo_stands_for(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    made = make_sweep(ablate={"specialize": ["paper"]}, controls=["repeat", "placebo"])
    text = rendered(make_plan(made, results_root=tmp_path))
    assert "│ repeat (control)" in text
    assert "│ placebo of paper (control)" in text
    assert text.count("= norm@all") == 2  # the arm and its placebo
    assert "1 group, 6 arms with baseline, controls and floors, 2 seeds, 12 trials, 12 to run" in text


def test_controls_are_expected_to_run_as_long_as_the_baseline(make_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    seeds = {"start": 4, "most": 9, "method": "confirm"}
    plan = make_plan(make_sweep(seeds=seeds, controls=["repeat", "placebo"]), results_root=tmp_path)
    # Baseline and controls have 9 seeds whatever is found.
    assert plan.expected_trials == pytest.approx(3 * 9 + 2 * 4 + 4 + 5 * SCREEN_LEVEL)
    looks = {"start": 4, "most": 16}
    plain, found = (
        make_plan(make_sweep(seeds=looks, **more), results_root=tmp_path).expected_trials or 0.0
        for more in ({}, {"controls": ["repeat"]})
    )
    # With one arm the baseline runs as long as that: half of what the two of them take.
    assert found - plain == pytest.approx((plain - 2 * 4) / 2)
