"""The parameters of Optuna's trials, and how important they are."""

from __future__ import annotations

import itertools
from pathlib import Path

import optuna
import pytest
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from orchestrator.trials.records import TrialRecord

from .studies import Make, done, loaded


def test_there_is_a_parameter_for_each_component_and_none_for_arm_seed_or_role(
    make: Make, records: list[TrialRecord]
) -> None:
    (study,) = make(records)
    nowhere = dict.fromkeys(("norm", "qkv", "proj", "mlp"), "none")
    own = [{}, {}, *[{"norm": "all"}] * 2, *[{"qkv": "all"}] * 2, *[{"mlp": "all"}] * 2, {"proj": "all"}]
    assert [trial.params for trial in study.trials] == [nowhere | changed for changed in own]
    assert {trial.distributions["norm"] for trial in study.trials} == {
        optuna.distributions.CategoricalDistribution(("none", "all"))
    }


def factorial(**effects: float) -> list[TrialRecord]:
    """Make all arms of three components with their effects, and two floors; seeds differ, their means do not."""
    arms = [
        tuple(itertools.compress(("norm", "qkv", "mlp"), chosen))
        for chosen in itertools.product((False, True), repeat=3)
    ]
    records = done("raw pixels", 1.0, 2.0, 3.0, role="floor")
    for own in arms:
        value = 50 + sum(effects.get(name, 0.0) for name in own)
        records += done("+".join(f"{name}@all" for name in own) or "none", value, value + 1, value - 1)
    return records


def test_importances_of_a_factorial_are_those_of_its_axes(make: Make, tmp_path: Path) -> None:
    (study,) = loaded(tmp_path, make(factorial(qkv=4.0)))
    assert get_param_importances(study) == pytest.approx({"norm": 0.0, "qkv": 1.0, "mlp": 0.0}, abs=0.02)


def test_importances_are_the_shares_of_the_variance_over_arms(make: Make) -> None:
    (group,) = make(factorial(norm=4.0, mlp=2.0))
    study = optuna.create_study(direction="maximize")
    study.add_trials(group.trials)
    importances = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    # Of two levels, half of the trials at each, the variance is (effect / 2)^2: 4 and 1.
    assert importances == pytest.approx({"norm": 0.8, "mlp": 0.2, "qkv": 0.0}, abs=0.05)
