"""Controls in a sweep file: their rows, their trials, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from orchestrator.sweep.grid import expand
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Sweep
from orchestrator.sweep.schema import sweep_json_schema
from orchestrator.trials.trial import Role, Trial
from specvit.config import PERTURBATION, Treatment

Make = Callable[..., Sweep]
BOTH = ["repeat", "placebo"]


def controls(sweep: Sweep) -> dict[str, Treatment]:
    """Return the treatments of the first group's controls by text."""
    trials = expand(sweep)
    first = [trial for trial in trials if trial.group_id == trials[0].group_id]
    return {trial.arm: trial.config.treatment for trial in first if trial.role is Role.CONTROL}


def by_text(sweep: Sweep) -> dict[tuple[str, int], Trial]:
    return {(trial.arm, trial.seed): trial for trial in expand(sweep)}


def test_controls_have_every_seed_and_come_after_the_baseline_and_leave_all_other_trials_as_they_are(
    make_sweep: Make,
) -> None:
    plain, with_controls = make_sweep(seeds=[3, 5]), make_sweep(seeds=[3, 5], controls=BOTH)
    trials = expand(with_controls)
    assert [trial.label for trial in trials[:6]] == [
        *("nano none seed 3", "nano repeat seed 3", "nano placebo of norm@all seed 3"),
        *("nano random init seed 3", "nano raw pixels seed 3", "nano norm@all seed 3"),
    ]
    assert [trial.seed for trial in trials if trial.role is Role.CONTROL] == [3, 3, 5, 5]
    assert by_text(plain).items() <= by_text(with_controls).items()
    assert len({trial.trial_id for trial in trials}) == len(trials) == 12
    assert len({trial.group_id for trial in trials}) == 1


def test_the_repeat_is_the_baseline_but_for_its_initial_weights(make_sweep: Make) -> None:
    known = by_text(make_sweep(controls=["repeat"]))
    baseline, repeat = known["none", 0], known["repeat", 0]
    assert repeat.config.treatment == Treatment(perturbation=PERTURBATION)
    assert (repeat.num_parameters, repeat.extra_parameters_percent) == (baseline.num_parameters, 0.0)
    assert repeat.trial_id != baseline.trial_id


def test_the_placebo_is_that_of_the_arm_with_the_most_own_parameters_as_ablate_tokens_makes_it(
    make_sweep: Make,
) -> None:
    # Of nano's 6 blocks: an own MLP has 8 w^2 weights a block, own projections 3 w^2, norms 4 w.
    ablate = {"components": ["norm", "mlp", "qkv"], "init": ["independent"]}
    found = by_text(make_sweep(ablate=ablate, controls=["placebo"]))
    written_out = by_text(make_sweep(ablate=ablate | {"tokens": ["placebo"]}))
    placebo = found["placebo of mlp@all (independent)", 0]
    assert placebo.role is Role.CONTROL
    assert placebo.trial_id == written_out["mlp@all (independent, placebo)", 0].trial_id
    assert placebo.extra_parameters_percent == found["mlp@all (independent)", 0].extra_parameters_percent > 0


@pytest.mark.parametrize(
    ("ablate", "control", "text"),
    [
        ({"specialize": ["q@all", "k@all"]}, "placebo", "placebo of q@all"),  # as many: the first
        ({"specialize": ["paper", "norm@all"]}, "placebo", "placebo of paper"),
        ({"specialize": ["norm@all"]}, "placebo:paper", "placebo of paper"),
        ({"specialize": ["paper"]}, "placebo:norm@first-third", "placebo of norm@first-third"),
        ({"comparators": ["jumbo"]}, "placebo:mlp", "placebo of mlp@all"),
    ],
)
def test_a_placebo_is_called_by_what_it_is_of(
    ablate: dict[str, Any], control: str, text: str, make_sweep: Make
) -> None:
    found = controls(make_sweep(ablate=ablate, controls=[control]))
    assert list(found) == [text]
    assert (found[text].tokens, found[text].placebo_position) == ("placebo", None)


def test_registers_and_the_place_of_the_patch_are_those_of_a_placebo(make_sweep: Make) -> None:
    ablate = {"components": ["norm"], "registers_with": ["patches"], "placebo_position": [1, 2]}
    found = controls(make_sweep(model={"high_norm": "registers:4"}, ablate=ablate, controls=["placebo"]))
    assert found == {
        "placebo of norm@all": Treatment(specialize="norm@all", tokens="placebo", placebo_position=(1, 2))
    }


def test_of_seeds_that_grow_controls_may_have_all(make_sweep: Make) -> None:
    trials = expand(make_sweep(seeds={"start": 4, "most": 6}, controls=["repeat"]))
    assert [trial.seed for trial in trials if trial.arm == "repeat"] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"controls": ["again"]}, "controls[0]: must be 'repeat', 'placebo' or 'placebo:SPECIALIZATION', not 'again'"),
        ({"controls": ["placebos"]}, "not 'placebos' (did you mean 'placebo'?)"),
        ({"controls": ["placebo:"]}, "not 'placebo:'"),
        ({"controls": ["repeat", "repeat"]}, "must name each control once, but 'repeat' is 'repeat' again"),
        (
            {"controls": ["placebo", "placebo:norm"]},
            "controls[1]: must name each control once, but 'placebo:norm' is 'placebo' again",
        ),
        (
            {"controls": ["repeat", "placebo"], "ablate": {"components": ["norm"], "tokens": ["cls", "placebo"]}},
            "controls[1]: 'placebo of norm@all' is an arm of the sweep already, 'norm@all (placebo)'; take it",
        ),
        (
            {"controls": ["placebo"], "ablate": {"comparators": ["jumbo"]}},
            "controls[0]: 'placebo' needs an arm with own weights, or one by its places: 'placebo:norm@all'",
        ),
        ({"controls": ["placebo:none"]}, "controls[0]: must name own weights, as 'placebo:norm@all' does"),
        ({"controls": ["placebo:norms"]}, "controls[0]: specialization 'norms': unknown component"),
        (
            {"controls": ["placebo"], "objective": {"recipe": "mae_cpu", "steps": 4, "batch_size": 8}},
            "controls[0]: must not be 'placebo' with recipe 'mae_cpu', which drops patches: its row would move",
        ),
        (
            {"controls": ["repeat"], "ablate": {"components": ["norm"], "placebo_position": [0, 0]}},
            "ablate.placebo_position: needs 'placebo' in ablate.tokens or controls",
        ),
    ],
)
def test_a_control_that_cannot_be_is_told_by_file_line_and_field(
    sections: dict[str, Any], message: str, make_sweep: Make
) -> None:
    with pytest.raises(SweepFileError) as caught:
        make_sweep(**sections)
    assert message in str(caught.value)
    assert re.search(r"tiny\.yaml:\d+: (controls|ablate)", str(caught.value))


def test_the_json_schema_knows_controls() -> None:
    schema = sweep_json_schema()["properties"]["controls"]
    jsonschema.validate(["repeat", "placebo", "placebo:norm@all"], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(["again"], schema)
