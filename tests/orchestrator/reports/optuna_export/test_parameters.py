from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_jsonable_python

from orchestrator.reports.optuna_export.parameters import Choice, arm_parameters
from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.trials.trial import Role
from specvit.errors import SpecsweepError

from ..table_records import make_trial

SWEEPS = Path(__file__).parents[4] / "sweeps"


def parameters(*texts: str, scale: str = "nano") -> list[dict[str, Choice]]:
    """Return the parameters of arms that differ in where they specialize alone."""
    config = {"model": {"scale": scale}}
    return arm_parameters([(make_trial(text, 0), config | {"treatment": {"specialize": text}}) for text in texts])


@pytest.mark.parametrize(
    ("sweep", "axes"),
    [
        ("components", {"norm": ["none", "all", "first-third"], "qkv": ["none", "first-third"],
                        "mlp": ["none", "first-third"]}),
        ("blocks", {"norm": ["none", "all", "first-half", "last-half", "first-third", "last-third", "2:4"],
                    "qkv": ["none", "all", "first-half", "last-half", "first-third", "last-third", "2:4"]}),
        ("modes", {"norm": ["none", "all", "all(gate)"],
                   "qkv": ["none", "first-third", "first-third(lora:4)", "first-third(lora:16)", "first-third(gate)"],
                   "tokens": ["cls", "placebo"]}),
        ("comparators", {"norm": ["none", "all"], "qkv": ["none", "first-third"],
                         "comparator": ["none", "class_attention", "jumbo", "token_pooling", "patch_diversification"]}),
    ],
)  # fmt: skip
def test_the_axes_of_a_sweep_are_its_parameters(sweep: str, axes: dict[str, list[str]]) -> None:
    trials = [
        trial for trial in expand(load_sweep(SWEEPS / f"{sweep}.yaml")) if trial.seed == 20 and trial.role.is_ablated
    ]
    rows = arm_parameters([(trial, to_jsonable_python(trial.config)) for trial in trials])
    assert {name: {row[name] for row in rows} for name in rows[0]} == {name: set(axis) for name, axis in axes.items()}
    assert len({tuple(row.items()) for row in rows}) == len(trials)


def test_where_registers_go_is_an_axis_of_the_group_that_has_some() -> None:
    groups: dict[str, list[Any]] = {}
    for trial in expand(load_sweep(SWEEPS / "high_norm.yaml")):
        if trial.role != Role.FLOOR:
            groups.setdefault(trial.group, []).append((trial, to_jsonable_python(trial.config)))
    names = {group: list(arm_parameters(arms)[0]) for group, arms in groups.items()}
    assert names == {
        "model.high_norm=vanilla": ["norm", "qkv"],
        "model.high_norm=registers:4": ["norm", "qkv", "registers_with"],
        "model.high_norm=attention_bias": ["norm", "qkv"],
    }


def test_members_of_an_alias_have_parameters_of_their_own_where_some_arm_tells_them_apart() -> None:
    assert parameters("none", "qkv@all", "q@first-half+v@all", "norm@all") == [
        {"norm": "none", "q": "none", "k": "none", "v": "none"},
        {"norm": "none", "q": "all", "k": "all", "v": "all"},
        {"norm": "none", "q": "first-half", "k": "none", "v": "all"},
        {"norm": "all", "q": "none", "k": "none", "v": "none"},
    ]


def test_what_all_arms_have_in_common_is_no_parameter() -> None:
    assert parameters("norm@all", "norm@all+final_norm") == [{"final_norm": "none"}, {"final_norm": "all"}]
    assert parameters("none") == [{}]
    assert parameters() == []


def test_where_the_placebo_is_is_no_axis_beside_that_it_is_one() -> None:
    treatments = (
        {"specialize": "norm@all", "tokens": "cls", "placebo_position": None},
        {"specialize": "norm@all", "tokens": "placebo", "placebo_position": [1, 2]},
    )
    arms = [(make_trial("x", 0), {"model": {"scale": "nano"}, "treatment": treatment}) for treatment in treatments]
    assert arm_parameters(arms) == [{"tokens": "cls"}, {"tokens": "placebo"}]


def test_a_rate_that_a_configuration_leaves_out_is_the_one_of_before_it_was_there() -> None:
    treatments = ({"specialize": "norm@all"}, {"specialize": "norm@all", "own_lr": 0.5})
    arms = [(make_trial("x", 0), {"model": {"scale": "nano"}, "treatment": treatment}) for treatment in treatments]
    assert arm_parameters(arms) == [{"own_lr": 1.0}, {"own_lr": 0.5}]


def test_ranges_are_those_of_the_depth_of_the_group() -> None:
    assert parameters("none", "qkv@0:2") == [{"qkv": "none"}, {"qkv": "first-third"}]
    assert parameters("none", "qkv@0:2", scale="mini") == [{"qkv": "none"}, {"qkv": "0:2"}]


def test_values_of_several_kinds_are_told_apart_as_json_and_so_are_lists() -> None:
    values: list[Any] = [1, True, 1.0, None]
    arms = [
        (make_trial(f"{value}", 0), {
            "model": {"scale": "nano"}, "treatment": {"specialize": "none", "x": value, "crop": [value]}
        })
        for value in values
    ]  # fmt: skip
    assert [row["x"] for row in arm_parameters(arms)] == ["1", "true", "1.0", None]
    assert [row["crop"] for row in arm_parameters(arms)] == ["[1]", "[true]", "[1.0]", "[null]"]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"treatment": [], "model": {"scale": "nano"}},
        {"treatment": {"specialize": 3}, "model": {"scale": "nano"}},
        {"treatment": {"specialize": "none"}, "model": {"scale": "pico"}},
        {"treatment": {"specialize": "none"}, "model": {"scale": []}},
        {"treatment": {"specialize": "brain@all"}, "model": {"scale": "nano"}},
    ],
)
def test_a_configuration_that_is_not_known_is_refused_with_the_trial(config: dict[str, Any]) -> None:
    with pytest.raises(SpecsweepError, match=r"^trial 'x seed 0': "):
        arm_parameters([(make_trial("x", 0), config)])
