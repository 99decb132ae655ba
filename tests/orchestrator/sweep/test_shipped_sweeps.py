"""The sweep files that come with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.sweep.grid import expand
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.schema import sweep_json_schema
from orchestrator.sweep.yaml_reader import read_document

SWEEPS = Path(__file__).parents[3] / "sweeps"

# Arms with the baseline (and floors) x groups x seeds, from each file's question.
NUM_TRIALS = {
    "blocks": (13 + 1) * 6 + 2 * 4,
    "camvid": (4 + 2) * 4,
    "camvid_long": (1 + 2) * 2,
    "cifar10": (4 + 2) * 4,
    "cifar10_long": (1 + 2) * 2,
    "claims/blocks": (11 + 1 + 2) * 8,
    "claims/camvid": (4 + 1 + 2) * 8,
    "claims/cifar10": (4 + 1 + 2) * 8,
    "claims/cifar10_learnt": (2 + 1 + 2) * 8,
    "claims/comparators": (6 + 1 + 2) * 8,
    "claims/components": (11 + 2 + 2) * 8,
    "claims/high_norm": (3 + 3 + 5 + 3 * (1 + 2)) * 8,
    "claims/layerscale": (4 + 1 + 2) * 8,
    "claims/probes": (3 + 1 + 2) * 8,
    "claims/recipes": (3 + 1 + 2) * 4 * 8,
    "claims/scales": (3 + 1 + 2) * 3 * 8,
    "components": (2**3 + 1 + 2 + 2) * 4,
    "comparators": (6 + 1) * 6 + 2 * 4,
    "learning": (1 + 2) * 5,
    "high_norm": (3 + 3 + 5) * 6 + 3 * 2 * 4,
    "modes": (9 + 1) * 6 + 2 * 4,
    "paper/blocks": (7 + 1) * 3 * 4,
    "paper/components": (12 + 1) * 3 * 4,
    "paper/high_norm": (2 * (3 + 1) + (5 + 1)) * 3 * 4,
    "paper/modes": (11 + 1) * 3 * 4,
    "probes": 3 * 6 + 2 * 4,
    "quick": (3 + 2) * 2,
    "recipes": (2 + 2) * 3 * 4,
    "scales": (3 + 2) * 3 * 4,
}


def test_every_sweep_file_has_its_number_of_trials_here() -> None:
    assert {str(path.relative_to(SWEEPS).with_suffix("")) for path in SWEEPS.rglob("*.yaml")} == set(NUM_TRIALS)


@pytest.mark.parametrize("name", sorted(NUM_TRIALS))
def test_sweep_file_loads_and_expands_to_its_number_of_trials(name: str) -> None:
    assert len(expand(load_sweep(SWEEPS / f"{name}.yaml"))) == NUM_TRIALS[name]


def test_every_sweep_file_is_accepted_by_the_json_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(sweep_json_schema())
    paths = [SWEEPS / f"{name}.yaml" for name in NUM_TRIALS]
    assert [path for path in paths if not validator.is_valid(read_document(path).value)] == []


@pytest.mark.parametrize("name", sorted(NUM_TRIALS))
def test_sweep_file_opens_with_its_baseline_trials_cost_and_command(name: str) -> None:
    head = (SWEEPS / f"{name}.yaml").read_text().split("\n\n")[0]
    for word in ("components" if name in ("camvid", "cifar10") else "?", "Baseline:", "Trials:", "Cost:"):
        assert word in head
    assert f"specsweep run sweeps/{name}.yaml" in head
    assert f" {NUM_TRIALS[name]}." in head or "(specsweep plan says how many)" in head
