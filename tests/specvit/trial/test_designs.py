"""Comparators, options of recipes and own weights in whole trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specvit.checkpoints import load_model
from specvit.comparators import COMPARATORS
from specvit.data import Dataset
from specvit.errors import ConfigError
from specvit.models.config import VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.trial import run_trial

from .small_trials import BATCH_SIZE, CPU, RECIPES, STEPS, Watching, make_config, run_watched


def pairs_of_comparators() -> Iterator[Any]:
    """Yield every comparator with every recipe, of which the short run has one of each comparator and two of one."""
    for index, name in enumerate(COMPARATORS):
        for number, recipe in enumerate(RECIPES):
            yield pytest.param(name, recipe, marks=() if index % len(RECIPES) == number else pytest.mark.long)


@pytest.mark.parametrize(("name", "recipe"), [*pairs_of_comparators()])
def test_a_comparator_trains_and_repeats_and_differs_from_the_baseline(
    name: str, recipe: str, dataset: Dataset
) -> None:
    treatment = {"kind": "comparator", "comparator": {"comparator": name}}
    config = make_config(recipe, treatment=treatment, probes={"knn": {}}, rungs={"count": 1, "num_images": 32})
    (result, observer), (again, _) = run_watched(config, dataset), run_watched(config, dataset)
    assert again == result
    assert all(np.isfinite(value) for value in (*result.metrics.values(), *observer.rungs[3].values()))
    baseline, _ = run_watched(make_config(recipe, probes={}), dataset)
    assert result.metrics["loss"] != baseline.metrics["loss"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_patch_diversification_adds_its_terms_to_the_loss(recipe: str, dataset: Dataset) -> None:
    objective = dataclasses.asdict(make_config(recipe).objective) | {"steps": 1}

    def first_loss(**weights: float) -> float:
        treatment = {"kind": "comparator", "comparator": {"comparator": "patch_diversification", **weights}}
        config = make_config(objective=objective, treatment=treatment, probes={}, rungs={"count": 0})
        return run_watched(config, dataset)[0].metrics["loss"]

    plain = make_config(objective=objective, probes={}, rungs={"count": 0})
    off = run_watched(plain, dataset)[0].metrics["loss"]
    cosine = first_loss(cosine_weight=1.0, contrast_weight=0.0) - off
    contrast = first_loss(cosine_weight=0.0, contrast_weight=1.0) - off
    assert 0 < cosine <= 1
    assert contrast > 0
    assert first_loss(cosine_weight=2.0, contrast_weight=1.0) - off == pytest.approx(2 * cosine + contrast, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"dense_weight": 0.5},
        {"crop": "simple", "dense_weight": 1.0},
        {"optimizer": "lamb", "lr": 4e-3},
        {"repeats": 4},
    ],
)
def test_options_of_deit3_train_and_repeat_and_change_what_is_learnt(changes: dict[str, Any], dataset: Dataset) -> None:
    plain: dict[str, Any] = {"recipe": "deit3_cpu", "steps": STEPS, "batch_size": BATCH_SIZE}
    optional = make_config(objective={**plain, **changes}, probes={"knn": {}}, rungs={"count": 0})
    (result, _), (again, _) = run_watched(optional, dataset), run_watched(optional, dataset)
    assert again == result
    assert np.isfinite(result.metrics["loss"])
    baseline, _ = run_watched(make_config(objective=plain, probes={}), dataset)
    assert result.metrics["loss"] != baseline.metrics["loss"]


def test_the_mixing_loss_trains_with_deit3_and_is_refused_with_dinov2(dataset: Dataset) -> None:
    weights = {"cosine_weight": 0.0, "contrast_weight": 0.0, "mixing_weight": 1.0}
    treatment = {"kind": "comparator", "comparator": {"comparator": "patch_diversification", **weights}}
    mixing, _ = run_watched(make_config(treatment=treatment, probes={}), dataset)
    plain, _ = run_watched(make_config(probes={}), dataset)
    # A positive term on top of a loss that has hardly moved within a few steps.
    assert mixing.metrics["loss"] > plain.metrics["loss"] + 1.0
    with pytest.raises(ConfigError, match="mixing_weight must be 0"):
        run_watched(make_config("dinov2_cpu", treatment=treatment, probes={}), dataset)


def test_own_weights_learn_at_the_rate_of_the_treatment(dataset: Dataset, tmp_path: Path) -> None:
    # Steps of a 1e-12th are lost in the rounding of the weights: own ones stay the copies that they begin as.
    treatment = {"specialize": "fc1@all", "own_lr": 1e-12}
    run_trial(make_config(treatment=treatment, rungs={"count": 0}), dataset, Watching(), device=CPU, weights=tmp_path)
    state = load_model(tmp_path / "backbone.safetensors").state_dict()
    plain = VitConfig(SCALES["nano"], image_size=16, patch_size=4, cls_position=False)
    before = build_vit(plain, seed=0).state_dict()
    assert torch.equal(state["blocks.0.mlp.fc1.own.fc1.weight"], before["blocks.0.mlp.fc1.weight"])
    assert not torch.equal(state["blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.fc1.weight"])


@pytest.mark.parametrize("recipe", ["deit3_cpu", pytest.param("dinov2_cpu", marks=pytest.mark.long)])
def test_a_repeat_differs_from_its_baseline_by_rounding_alone_and_repeats(recipe: str, dataset: Dataset) -> None:
    def train(perturbation: float) -> dict[str, float]:
        config = make_config(recipe, treatment={"perturbation": perturbation}, probes={}, rungs={"count": 0})
        return dict(run_watched(config, dataset)[0].metrics)

    baseline, repeat = train(0.0), train(1e-6)
    assert repeat == train(1e-6)
    assert repeat["loss"] != baseline["loss"]
    assert repeat["loss"] == pytest.approx(baseline["loss"], rel=1e-4)
