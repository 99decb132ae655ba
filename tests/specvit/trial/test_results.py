"""What a trial computes and reports, from its backbone to its metrics, and that it repeats."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specvit import probing, trial
from specvit.checkpoints import load_model
from specvit.data import Dataset
from specvit.models.config import HighNorm, VitConfig
from specvit.models.scales import SCALES
from specvit.probes import PROBES
from specvit.specialization.token_rows import PatchRow
from specvit.trial import run_trial

from .small_trials import ALL, ALL_METRICS, BATCH_SIZE, CPU, LEARNT, RECIPES, STEPS, Watching, make_config, run_watched


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_trial_reports_every_metric_and_repeats_to_the_last_bit(recipe: str, dataset: Dataset) -> None:
    config = make_config(recipe, treatment={"specialize": "norm@all+qkv@first-third"}, probes=ALL)
    (result, observer), (again, observer_again) = run_watched(config, dataset), run_watched(config, dataset)
    assert set(result.metrics) == ALL_METRICS | {"loss"} | LEARNT[recipe]
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert all(0 <= result.metrics[name] <= 100 for name in ("knn_top1", "linear_top1", "miou", "ap", "ap50"))
    assert result.stopped_at is None
    assert again == result
    assert observer_again.rungs == observer.rungs
    assert list(observer.rungs) == [2, 4]
    expected = {"knn_top1", "miou", "loss"} | LEARNT[recipe]
    assert all(set(metrics) == expected for metrics in observer.rungs.values())
    assert observer.steps[-1] == (STEPS, STEPS)


@pytest.mark.long
def test_a_trial_of_some_epochs_is_the_trial_of_as_many_steps(dataset: Dataset) -> None:
    objective = dataclasses.asdict(make_config("dinov2_cpu").objective)
    del objective["steps"]
    epochs = STEPS * objective["batch_size"] / len(dataset.train)
    config = make_config(objective={**objective, "epochs": epochs}, probes={"knn": {}})
    (result, observer), (expected, watched) = (
        run_watched(each, dataset) for each in (config, make_config("dinov2_cpu", probes={"knn": {}}))
    )
    assert result == expected
    assert observer.steps[-1] == (STEPS, STEPS)
    assert observer.rungs == watched.rungs


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_arm_differs_from_its_baseline_in_the_end(recipe: str, dataset: Dataset) -> None:
    baseline, arm = (
        run_watched(make_config(recipe, treatment={"specialize": text}, probes={}), dataset)[0]
        for text in ("none", "norm+qkv")
    )
    assert baseline.metrics["loss"] != arm.metrics["loss"]


def test_a_trial_logs_what_it_trains_its_steps_with_their_terms_and_that_it_probes(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="specvit"):
        run_watched(make_config("dinov2_cpu"), dataset)
    start, first, last, end, probes = caplog.messages
    assert start.startswith(f"training on CPU: dinov2_cpu, {STEPS} steps of {BATCH_SIZE} images, ")
    assert re.fullmatch(rf"step 1/{STEPS}: loss (\S+) = dino (\S+) \+ ibot (\S+) \+ koleo (\S+), \d+ images/s", first)
    loss, *terms = map(float, re.findall(r"-?\d+\.\d+(?:e-\d+)?", first))
    assert loss == pytest.approx(sum(terms), rel=2e-3)
    assert last.startswith(f"step {STEPS}/{STEPS}: ")
    assert end == "the training is done; probing"
    assert probes.startswith("probing knn, segmentation: features of ")


def test_the_random_floor_probes_the_backbone_that_every_arm_starts_from(dataset: Dataset) -> None:
    result, observer = run_watched(make_config(treatment={"kind": "random_init"}, probes=ALL), dataset)
    assert set(result.metrics) == ALL_METRICS
    assert observer.rungs == {}
    assert set(observer.steps) == {(0, 0)}
    # A run that learns nothing probes the same features.
    objective = {"recipe": "deit3_cpu", "steps": 1, "batch_size": BATCH_SIZE, "lr": 1e-30, "min_lr": 0.0}
    still, _ = run_watched(make_config(objective=objective, probes=ALL, rungs={"count": 0}), dataset)
    assert {name: still.metrics[name] for name in ALL_METRICS} == dict(result.metrics)


def test_a_trial_is_diagnosed_at_its_end_where_asked_without_changing_its_metrics(dataset: Dataset) -> None:
    changes: dict[str, Any] = {"probes": {"knn": {}}, "rungs": {"count": 0}}
    for treatment in ({"specialize": "norm@all"}, {"kind": "random_init"}):
        asked, plain = (
            run_watched(make_config(treatment=treatment, diagnostics=on, **changes), dataset)[0] for on in (True, False)
        )
        assert asked.metrics == plain.metrics
        assert plain.diagnostics == ()
        assert {reading.block for reading in asked.diagnostics} == set(range(7))  # nano has 6, and the final norm
    pixels, _ = run_watched(make_config(treatment={"kind": "raw_pixels"}, diagnostics=True, **changes), dataset)
    assert pixels.diagnostics == ()


def test_the_random_floor_depends_on_the_seed_and_the_pixel_floor_repeats(dataset: Dataset) -> None:
    def metrics(kind: str, seed: int) -> Mapping[str, float]:
        return run_watched(make_config(treatment={"kind": kind}, probes=ALL, seed=seed), dataset)[0].metrics

    assert metrics("random_init", 0) != metrics("random_init", 1)
    pixels = metrics("raw_pixels", 0)
    assert set(pixels) == ALL_METRICS
    assert pixels == metrics("raw_pixels", 0)


def test_the_trained_backbone_is_built_as_the_configuration_says(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[VitConfig, dict[str, Any]]] = []
    build = trial.build_vit
    monkeypatch.setattr(trial, "build_vit", lambda of, **given: seen.append((of, given)) or build(of, **given))
    objective = {"recipe": "deit3", "steps": 1, "batch_size": 4, "drop_path": 0.1, "layer_scale": 0.5}
    treatment = {"specialize": "mlp@1:3", "init": "independent", "tokens": "placebo"}
    model = {"high_norm": "registers:2"}
    run_watched(make_config(objective=objective, treatment=treatment, model=model, probes={}, seed=4), dataset)
    ((config, given),) = seen
    assert config == VitConfig(
        SCALES["nano"],
        image_size=16,
        patch_size=4,
        specialization="mlp@1:3",
        rows=PatchRow(num_prefix=3, grid=(4, 4), position=(2, 2)),
        high_norm=HighNorm(num_registers=2),
        drop_path=0.1,
        drop_path_uniform=True,
        layer_scale=0.5,
        cls_position=False,
        cls_std=0.02,
    )
    assert given == {"init": "independent", "seed": 4, "pretrained": None, "pretrained_sha256": None}


@pytest.mark.parametrize(
    "treatment",
    [
        {"specialize": "norm@all+final_norm+qkv@first-third"},
        {"kind": "comparator", "comparator": {"comparator": "class_attention"}},
        {"kind": "comparator", "comparator": {"comparator": "jumbo", "slots": 2}},
        {"kind": "comparator", "comparator": {"comparator": "token_pooling"}},
        {"kind": "random_init"},
        {"kind": "raw_pixels"},
    ],
    ids=str,
)
def test_a_probe_of_the_last_blocks_gets_them_in_every_arm_at_rungs_and_at_the_end(
    dataset: Dataset, treatment: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...] | None] = []
    linear = PROBES["linear"]
    evaluate = linear.evaluate

    def spy(self: Any, train: Any, val: Any, **arguments: Any) -> dict[str, float]:
        seen.extend(
            None if part.intermediate_cls is None else tuple(part.intermediate_cls.shape) for part in (train, val)
        )
        return evaluate(self, train, val, **arguments)

    monkeypatch.setattr(linear, "evaluate", spy)
    config = make_config(
        treatment=treatment,
        model={"scale": "nano", "patch_size": 4, "high_norm": "registers:2"},
        probes={"linear": {"protocol": "sgd", "epochs": 2}},
        rungs={"count": 1, "num_images": 32, "probes": ["linear"]},
    )

    result = run_trial(config, dataset, Watching(), device=CPU)

    blocks = 2 if treatment.get("comparator", {}).get("comparator") == "class_attention" else 4
    at_end, at_rung = [(64, blocks, 64), (32, blocks, 64)], [(24, blocks, 64), (8, blocks, 64)]
    kind = treatment.get("kind", "specialize")
    assert seen == ([None, None] if kind == "raw_pixels" else at_end if kind == "random_init" else at_rung + at_end)
    assert 0 <= result.metrics["linear_top1"] <= 100


def test_features_of_earlier_blocks_are_not_kept_where_no_probe_reads_them(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    features = probing.backbone_features

    def spy(*arguments: Any, num_blocks: int, **others: Any) -> Any:
        asked.append(num_blocks)
        return features(*arguments, num_blocks=num_blocks, **others)

    monkeypatch.setattr(probing, "backbone_features", spy)
    for linear in ({}, {"protocol": "sgd", "last_blocks": [3, 1], "epochs": 1}):
        config = make_config(treatment={"kind": "random_init"}, probes={"knn": {}, "linear": linear})
        run_trial(config, dataset, Watching(), device=CPU)
    assert asked == [0, 0, 3, 3]


@pytest.mark.parametrize(
    ("recipe", "changes", "names"),
    [
        ("dinov2_cpu", {}, ["student", "teacher"]),
        # Blocks that are left out in training are kept as what they are afterwards.
        ("dinov2_cpu", {"drop_path": 0.2, "drop_path_uniform": True, "drop_path_subset": True}, ["student", "teacher"]),
        ("mae_cpu", {}, ["backbone"]),
    ],
)
def test_kept_weights_are_those_of_the_trained_backbones(
    recipe: str, changes: dict[str, Any], names: list[str], dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(recipe, treatment={"specialize": "norm@all"}, probes={"knn": {}}, rungs={"count": 0})
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, **changes))  # type: ignore[type-var]
    folder = tmp_path / "weights" / "trial"
    result = run_trial(config, dataset, Watching(), device=CPU, weights=folder)
    assert sorted(path.stem for path in folder.iterdir()) == names
    kept = load_model(folder / f"{names[0]}.safetensors")  # the student is what this recipe probes
    found = probing.Probing(config, dataset, {}).backbone(kept, device=CPU)
    assert found == {"knn_top1": result.metrics["knn_top1"]}
    weights = [load_model(folder / f"{name}.safetensors").state_dict()["cls_token"] for name in names]
    assert len(names) == 1 or not torch.equal(*weights)
