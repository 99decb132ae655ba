"""How a sweep file declares its comparison: what is read, what it changes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from orchestrator.sweep.declared.comparison import DEFAULT, ComparisonSettings, read_comparison
from orchestrator.sweep.grid import expand
from orchestrator.sweep.problems import SweepFileError
from orchestrator.sweep.resolved import Sweep
from orchestrator.sweep.schema import sweep_json_schema

Make = Callable[..., Sweep]
UNBLOCKED = {"model": "unblocked"}


def test_by_default_arms_are_compared_within_seeds_by_one_variance(make_sweep: Make) -> None:
    assert make_sweep().file.comparison == DEFAULT == read_comparison({})
    assert (DEFAULT.model, DEFAULT.variance) == ("blocked", "pooled")
    assert read_comparison({"variance": "moderated"}) == ComparisonSettings(variance="moderated")


@pytest.mark.parametrize("comparison", [UNBLOCKED, {"variance": "moderated"}])
def test_a_comparison_changes_no_trial_and_no_name(comparison: dict[str, str], make_sweep: Make) -> None:
    plain, declared = make_sweep(), make_sweep(comparison=comparison)
    assert expand(declared) == expand(plain)
    assert declared.name == plain.name


def test_seeds_of_the_baseline_alone_follow_the_largest_and_are_trials_of_it_alone(make_sweep: Make) -> None:
    plain = expand(make_sweep(seeds=[7, 3]))
    trials = expand(make_sweep(seeds=[7, 3], comparison=UNBLOCKED, baseline_seeds=4, controls=["repeat"]))
    assert [(trial.arm, trial.seed) for trial in trials if trial.seed > 7] == [("none", 8), ("none", 9)]
    assert {trial.trial_id for trial in plain} < {trial.trial_id for trial in trials}
    assert len(trials) == len(plain) + 2 + 2


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"comparison": {"variance": "own"}}, "comparison.variance: must be pooled or moderated, not 'own'"),
        ({"comparison": {"models": "blocked"}}, "comparison.models: unknown field; known: model, variance"),
        (
            {"comparison": {"model": "unblocked", "variance": "moderated"}},
            "comparison.variance: must be 'pooled' where model is 'unblocked'",
        ),
        ({"baseline_seeds": 4}, "baseline_seeds: needs comparison: {model: unblocked}; with seeds as blocks"),
        (
            {"baseline_seeds": 2, "comparison": UNBLOCKED},
            "baseline_seeds: must be more than those of the arms, 2, not 2",
        ),
        (
            {"seeds": {"start": 4}, "comparison": {"variance": "moderated"}},
            "comparison: must be left out where seeds grow, whose looks are judged by blocks and a pooled variance",
        ),
        ({"seeds": {"start": 4}, "baseline_seeds": 99}, "baseline_seeds: must be left out where seeds grow"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_field(
    sections: dict[str, Any], message: str, make_sweep: Make
) -> None:
    with pytest.raises(SweepFileError) as caught:
        make_sweep(**sections)
    assert message in str(caught.value)


def test_the_json_schema_knows_the_comparison() -> None:
    document = sweep_json_schema()
    schema = {**document["properties"]["comparison"], "$defs": document["$defs"]}
    jsonschema.validate({"variance": "moderated"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"variance": "own"}, schema)
