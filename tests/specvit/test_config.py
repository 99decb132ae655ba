"""The settings of a trial: what they accept, and that they cannot change."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from specvit.config import ModelSettings, RungSettings, Treatment, TrialConfig
from specvit.data.sources.scenes import Scenes
from specvit.probes import PROBES
from specvit.recipes.deit3.settings import DeiT3Cpu
from specvit.recipes.dinov2.settings import DinoV2


def _document(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "treatment": {"specialize": "norm@all"},
        "model": {"scale": "micro", "patch_size": 8},
        "data": {"source": "scenes", "num_train": 64},
        "objective": {"recipe": "deit3_cpu", "steps": 10},
        "probes": {"knn": {}, "segmentation": {"balance": 0.5}},
        "rungs": {"count": 1},
        "seed": 3,
    }
    return {**document, **changes}


def _config(**changes: Any) -> TrialConfig:
    return TypeAdapter(TrialConfig).validate_python(_document(**changes))


def test_a_document_becomes_the_typed_settings_that_it_names() -> None:
    config = _config()
    assert config.treatment == Treatment(kind="specialize", specialize="norm@all", init="copy")
    assert config.model == ModelSettings(scale="micro", patch_size=8)
    assert config.data == Scenes(num_train=64)
    assert config.objective == DeiT3Cpu(steps=10)
    assert config.rungs == RungSettings(count=1, num_images=512, probes=())
    assert config.seed == 3


def test_settings_written_out_and_read_again_are_equal() -> None:
    adapter = TypeAdapter(TrialConfig)
    assert adapter.validate_json(adapter.dump_json(_config())) == _config()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"model": {"scale": "huge"}}, ("model", "scale")),
        ({"model": {"scale": "nano", "patch": 4}}, ("model", "patch")),
        ({"model": {"patch_size": 0}}, ("model", "patch_size")),
        ({"model": {"patch_size": 4.0}}, ("model", "patch_size")),
        ({"seed": -1}, ("seed",)),
        ({"seed": True}, ("seed",)),
        ({"treatment": {"specialize": "norm@all", "own_lr": 0}}, ("treatment", "own_lr")),
        ({"treatment": {"specialize": "norm@all", "own_weight_decay": -1}}, ("treatment", "own_weight_decay")),
        ({"treatment": {"own_lr": 0.5}}, ("treatment",)),
        ({"treatment": {"kind": "nothing"}}, ("treatment", "kind")),
        ({"treatment": {"init": "zero"}}, ("treatment", "init")),
        ({"treatment": {"kind": "comparator"}}, ("treatment",)),
        ({"treatment": {"comparator": {"comparator": "jumbo"}}}, ("treatment",)),
        ({"rungs": {"count": -1}}, ("rungs", "count")),
        ({"probes": {"knnn": {}}}, ("probes", "knnn")),
        ({"objective": {"recipe": "dino"}}, ("objective",)),
        ({"objective": {"recipe": "dinov2", "lr": 0}}, ("objective", "dinov2", "lr")),
        ({"objective": {"recipe": "dinov2", "lr": float("nan")}}, ("objective", "dinov2", "lr")),
        ({"objective": {"recipe": "dinov2", "mask_probability": 1.5}}, ("objective", "dinov2", "mask_probability")),
        ({"objective": {"recipe": "dinov2", "global_scale": [0.5, 0.2]}}, ("objective", "dinov2", "global_scale")),
        ({"objective": {"recipe": "deit3", "crop_scale": [0.0, 1.0]}}, ("objective", "deit3", "crop_scale")),
        ({"objective": {"recipe": "deit3", "num_locals": 2}}, ("objective", "deit3", "num_locals")),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(changes: dict[str, Any], place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        _config(**changes)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_the_rule_of_ranges_names_the_field_and_the_values() -> None:
    with pytest.raises(ValidationError, match=r"mask_ratio\n.*must be \[low, high\] with .* not \[0.0, 0.5\]"):
        DinoV2(mask_ratio=(0.0, 0.5))


def test_floors_are_not_trained() -> None:
    kinds = ("specialize", "random_init", "raw_pixels")
    assert [Treatment(kind=kind).is_trained for kind in kinds] == [True, False, False]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _config().seed = 4  # type: ignore[misc]


def test_selected_probes_are_those_that_are_named_in_the_order_of_the_table() -> None:
    config = _config(probes={"segmentation": {"balance": 0.5}, "knn": {}})
    assert config.probes == (PROBES["knn"](), PROBES["segmentation"](balance=0.5))


def test_reading_settings_does_not_import_torch() -> None:
    code = "import sys, specvit.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
