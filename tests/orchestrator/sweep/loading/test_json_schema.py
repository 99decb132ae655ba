"""The JSON schema of sweep files accepts what is loaded."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import yaml

from orchestrator.sweep.schema import sweep_json_schema

from .malformed_texts import MALFORMED
from .sweep_texts import MINIMAL, VALID, Load


@cache
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = sweep_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def schema_errors(text: str) -> list[str]:
    return [error.message for error in validator().iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize(
    "text",
    [
        VALID,
        MINIMAL,
        MINIMAL + "seeds: 3\n",
        "objective: {steps: 9}\nprobes: {knn: }\nvary: {objective.recipe: [dinov2_cpu, deit3_cpu]}\n",
        MINIMAL + "vary:\n- {model.scale: nano, objective.lr: 1e-3}\n- {model.scale: [micro, mini], objective.lr: 1}\n",
        MINIMAL + "pruning: {pruner: hyperband, max_resource: 4}\n",
        MINIMAL + "pruning: true\n",
        MINIMAL + "pruning: {}\n",
        "objective: {recipe: dinov2_cpu}\nprobes: {depth: {protocol: bins, steps: 9}}\nfloors: [raw_pixels]\n",
        "objective: {recipe: dinov2_cpu}\nprobes: {depth: }\ndata: {source: depth, root: /d, max_depth_m: 10.0}\n",
        "objective: {recipe: dinov2_cpu}\nprobes: {depth: }\ndata: {source: nyuv2, root: /d, eigen_crop: false}\n",
    ],
)
def test_sweep_json_schema_valid_file_is_accepted(load: Load, text: str) -> None:
    load(text)
    assert schema_errors(text) == []


@pytest.mark.parametrize(
    "case",
    [
        *("misspelt_field", "wrong_type", "unknown_floor", "negative_seed", "unknown_recipe"),
        *("vary_text", "empty_joint_setting", "joint_setting_no_mapping"),
    ],
)
def test_sweep_json_schema_malformed_file_is_refused(case: str) -> None:
    assert schema_errors(str(MALFORMED[case][0])) != []


@pytest.mark.parametrize(
    "text",
    [
        "seeds: 3\n",
        "objective: {lr: 0.001}\nprobes: {segmentation: , knn: false}\n",
        "data: {train_split: x}\nablate: null\nvary: null\n",
        "data: {root: /a}\npruning: {n_startup_trials: 4}\n",
    ],
)
def test_sweep_json_schema_a_file_that_extends_another_may_say_a_part(text: str) -> None:
    assert schema_errors(f"extends: other.yaml\n{text}") == []
    assert schema_errors("extends: 3\n") != []
    assert schema_errors("seeds: 3\n") == ["'objective' is a required property", "'probes' is a required property"]


def test_sweep_json_schema_a_field_that_groups_give_may_be_absent(load: Load) -> None:
    text = MINIMAL + "data: {source: image_folder}\nvary: [{data.root: /a}]\n"
    load(text)
    assert schema_errors(text) == []


def test_sweep_json_schema_every_field_is_described() -> None:
    schema = sweep_json_schema()
    assert all(field["description"] for field in schema["properties"].values())
    assert schema["$schema"].startswith("https://json-schema.org/")
