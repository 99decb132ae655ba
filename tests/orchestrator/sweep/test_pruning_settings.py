from __future__ import annotations

import inspect

import optuna
import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.sweep.pruning_settings import (
    AnyPruner,
    HyperbandPruning,
    MedianPruning,
    NoPruning,
    PercentilePruning,
    Pruner,
    SuccessiveHalvingPruning,
    WilcoxonPruning,
)

ADAPTER = TypeAdapter(AnyPruner)
OPTUNA = {
    MedianPruning: optuna.pruners.MedianPruner,
    PercentilePruning: optuna.pruners.PercentilePruner,
    SuccessiveHalvingPruning: optuna.pruners.SuccessiveHalvingPruner,
    HyperbandPruning: optuna.pruners.HyperbandPruner,
    WilcoxonPruning: optuna.pruners.WilcoxonPruner,
}


@pytest.mark.parametrize("settings", OPTUNA)
def test_pruner_settings_have_exactly_the_arguments_of_optunas_pruner(settings: type[Pruner]) -> None:
    arguments = set(inspect.signature(OPTUNA[settings].__init__).parameters) - {"self"}
    assert set(settings.__dataclass_fields__) - {"pruner", "metric"} == arguments


@pytest.mark.parametrize("settings", [NoPruning, *OPTUNA])
def test_any_pruner_given_a_name_alone_gives_the_defaults(settings: type[Pruner]) -> None:
    assert ADAPTER.validate_python({"pruner": settings().pruner}) == settings()


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (True, WilcoxonPruning()),
        ({}, WilcoxonPruning()),
        ({"metric": "miou"}, WilcoxonPruning(metric="miou")),
        ({"p_threshold": 0.1}, WilcoxonPruning(p_threshold=0.1)),
        (False, NoPruning()),
    ],
)
def test_any_pruner_given_no_name_is_wilcoxons(given: object, settings: Pruner) -> None:
    assert ADAPTER.validate_python(given) == settings


@pytest.mark.parametrize(
    "given",
    [
        {"pruner": "medain"},
        {"pruner": "median", "n_startup_trails": 3},
        {"pruner": "median", "n_startup_trials": -1},
        {"pruner": "median", "interval_steps": 0},
        {"pruner": "percentile", "percentile": 101.0},
        {"pruner": "successive_halving", "reduction_factor": 1},
        {"pruner": "hyperband", "max_resource": "all"},
        {"pruner": "hyperband", "min_resource": 4, "max_resource": 3},
        {"pruner": "wilcoxon", "p_threshold": 1.5},
        {"pruner": "none", "n_startup_trials": 3},
    ],
)
def test_any_pruner_given_what_optuna_would_refuse_or_not_know_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(given)
