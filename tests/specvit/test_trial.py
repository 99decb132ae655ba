"""A whole trial on a few small scenes."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from specvit import probing, trial
from specvit.checkpoints import load_model
from specvit.comparators import COMPARATORS
from specvit.config import TrialConfig
from specvit.data import Dataset
from specvit.data.sources.scenes import Scenes
from specvit.device import Device
from specvit.errors import ConfigError
from specvit.models.config import HighNorm, VitConfig
from specvit.models.scales import SCALES
from specvit.models.vit import build_vit
from specvit.probes import PROBES
from specvit.probing import Probing, rung_probes, rung_splits
from specvit.specialization.token_rows import PatchRow
from specvit.training.checkpoint import Checkpoint
from specvit.trial import TrialResult, run_trial, rung_steps

CPU = Device(torch.device("cpu"))
STEPS = 6
BATCH_SIZE = 8
DATA = Scenes(image_size=16, num_train=64, num_val=32)
CHEAP: Mapping[str, Any] = {"knn": {}, "segmentation": {}}
"""Those that run at rungs."""
ALL: Mapping[str, Any] = {name: {} for name in PROBES} | {
    "detection": {"steps": 2, "batch_size": 8, "width": 4},
    "attentive": {"lrs": [0.1, 0.01], "weight_decays": [1e-3], "epochs": 2},
    "linear": {"cs": [0.1, 1.0]},
}
LEARNT: Mapping[str, set[str]] = {
    "dinov2_cpu": {
        *("dino_loss", "dino_loss_trivial", "ibot_loss", "ibot_loss_trivial", "koleo_loss"),
        *("teacher_entropy", "teacher_spread", "teacher_agreement"),
    },
    "deit3_cpu": {"bce_loss", "bce_loss_trivial"},
    "mae_cpu": {"pixels_loss", "pixels_loss_trivial"},
}
"""What a recipe records of what was learnt."""
RECIPES = tuple(LEARNT)
ALL_METRICS = {metric.name for probe in PROBES.values() for metric in probe.metrics}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return DATA.load()


@pytest.fixture(scope="module")
def poisoned(dataset: Dataset) -> Dataset:
    """Another reported split: other images, every label and every pixel's class changed."""
    val = dataset.val
    assert val.labels is not None
    assert val.masks is not None
    assert val.boxes is not None
    boxes = val.boxes.copy()
    boxes[..., 4] = np.where(boxes[..., 4] < 0, -1, (boxes[..., 4] + 1) % len(dataset.box_names))
    assert val.depth is not None
    changed = dataclasses.replace(
        val,
        images=255 - val.images[::-1],
        labels=(val.labels + 1) % len(dataset.class_names),
        masks=((val.masks.astype(np.int64) + 1) % len(dataset.mask_names)).astype(np.uint8),
        boxes=boxes,
        depth=val.depth[::-1] / np.float16(2),
    )
    return dataclasses.replace(dataset, val=changed)


def _config(
    recipe: str = "deit3_cpu", *, treatment: Mapping[str, Any] | None = None, **changes: Any
) -> TrialConfig:
    objective: dict[str, Any] = {"recipe": recipe, "steps": STEPS, "batch_size": BATCH_SIZE}
    if recipe == "dinov2_cpu":
        objective |= {"local_size": 8, "num_prototypes": 16, "head_hidden": 16, "head_bottleneck": 8}
    document = {
        "treatment": treatment or {},
        "model": {"scale": "nano", "patch_size": 4},
        "data": {"source": "scenes", "image_size": 16, "num_train": 64, "num_val": 32},
        "objective": objective,
        "probes": CHEAP,
        "rungs": {"count": 2, "num_images": 32},
        "seed": 0,
        **changes,
    }
    return TypeAdapter(TrialConfig).validate_python(document)


class Watching:
    """Record what an observer hears; order to stop after a step."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.steps: list[tuple[int, int]] = []
        self.rungs: dict[int, dict[str, float]] = {}
        self.num_asked = 0

    def progress(self, *, step: int, steps: int, images_per_s: float) -> None:
        assert images_per_s >= 0
        self.steps.append((step, steps))

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        self.rungs[step] = dict(metrics)

    def should_stop(self) -> bool:
        self.num_asked += 1
        return self.stop_after is not None and self.num_asked >= self.stop_after


def _run(config: TrialConfig, dataset: Dataset, **watching: Any) -> tuple[TrialResult, Watching]:
    observer = Watching(**watching)
    return run_trial(config, dataset, observer, device=CPU), observer


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_trial_reports_every_metric_and_repeats_to_the_last_bit(recipe: str, dataset: Dataset) -> None:
    config = _config(recipe, treatment={"specialize": "norm@all+qkv@first-third"}, probes=ALL)
    (result, observer), (again, observer_again) = _run(config, dataset), _run(config, dataset)
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


def test_a_trial_of_some_epochs_is_the_trial_of_as_many_steps(dataset: Dataset) -> None:
    objective = dataclasses.asdict(_config("dinov2_cpu").objective)
    del objective["steps"]
    epochs = STEPS * objective["batch_size"] / len(dataset.train)
    config = _config(objective={**objective, "epochs": epochs}, probes={"knn": {}})
    (result, observer), (expected, watched) = (
        _run(each, dataset) for each in (config, _config("dinov2_cpu", probes={"knn": {}}))
    )
    assert result == expected
    assert observer.steps[-1] == (STEPS, STEPS)
    assert observer.rungs == watched.rungs


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_arm_differs_from_its_baseline_in_the_end(recipe: str, dataset: Dataset) -> None:
    baseline, arm = (
        _run(_config(recipe, treatment={"specialize": text}, probes={}), dataset)[0] for text in ("none", "norm+qkv")
    )
    assert baseline.metrics["loss"] != arm.metrics["loss"]


def test_a_trial_logs_what_it_trains_its_steps_with_their_terms_and_that_it_probes(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="specvit"):
        _run(_config("dinov2_cpu"), dataset)
    start, first, last, end = caplog.messages
    assert start.startswith(f"training on CPU: dinov2_cpu, {STEPS} steps of {BATCH_SIZE} images, ")
    assert re.fullmatch(rf"step 1/{STEPS}: loss (\S+) = dino (\S+) \+ ibot (\S+) \+ koleo (\S+), \d+ images/s", first)
    loss, *terms = map(float, re.findall(r"-?\d+\.\d+(?:e-\d+)?", first))
    assert loss == pytest.approx(sum(terms), rel=2e-3)
    assert last.startswith(f"step {STEPS}/{STEPS}: ")
    assert end == "the training is done; probing"


def test_the_random_floor_probes_the_backbone_that_every_arm_starts_from(dataset: Dataset) -> None:
    result, observer = _run(_config(treatment={"kind": "random_init"}, probes=ALL), dataset)
    assert set(result.metrics) == ALL_METRICS
    assert observer.rungs == {}
    assert set(observer.steps) == {(0, 0)}
    # A run that learns nothing probes the same features.
    objective = {"recipe": "deit3_cpu", "steps": 1, "batch_size": BATCH_SIZE, "lr": 1e-30, "min_lr": 0.0}
    still, _ = _run(_config(objective=objective, probes=ALL, rungs={"count": 0}), dataset)
    assert {name: still.metrics[name] for name in ALL_METRICS} == dict(result.metrics)


def test_a_trial_is_diagnosed_at_its_end_where_asked_without_changing_its_metrics(dataset: Dataset) -> None:
    changes: dict[str, Any] = {"probes": {"knn": {}}, "rungs": {"count": 0}}
    for treatment in ({"specialize": "norm@all"}, {"kind": "random_init"}):
        asked, plain = (
            _run(_config(treatment=treatment, diagnostics=on, **changes), dataset)[0] for on in (True, False)
        )
        assert asked.metrics == plain.metrics
        assert plain.diagnostics == ()
        assert {reading.block for reading in asked.diagnostics} == set(range(7))  # nano has 6, and the final norm
    pixels, _ = _run(_config(treatment={"kind": "raw_pixels"}, diagnostics=True, **changes), dataset)
    assert pixels.diagnostics == ()


def test_the_random_floor_depends_on_the_seed_and_the_pixel_floor_repeats(dataset: Dataset) -> None:
    def metrics(kind: str, seed: int) -> Mapping[str, float]:
        return _run(_config(treatment={"kind": kind}, probes=ALL, seed=seed), dataset)[0].metrics

    assert metrics("random_init", 0) != metrics("random_init", 1)
    pixels = metrics("raw_pixels", 0)
    assert set(pixels) == ALL_METRICS
    assert pixels == metrics("raw_pixels", 0)


@pytest.mark.parametrize(
    ("steps", "count", "rungs"),
    [
        (200, 3, (50, 100, 150)),
        (100, 4, (20, 40, 60, 80)),
        (10, 0, ()),
        (6, 2, (2, 4)),
        (7, 2, (2, 5)),  # 2.33 and 4.67, rounded
        (3, 8, (1, 2)),  # more rungs than steps: each step once, the end left out
        (1, 3, ()),
    ],
)
def test_rungs_are_spread_evenly_and_leave_out_the_end(steps: int, count: int, rungs: tuple[int, ...]) -> None:
    assert rung_steps(steps, count) == rungs


def test_rungs_run_the_probes_asked_for_or_those_that_are_cheap() -> None:
    assert list(rung_probes(_config(probes={"knn": {}, "linear": {}, "segmentation": {}}))) == ["knn", "segmentation"]
    assert list(rung_probes(_config(probes={"linear": {}}))) == ["linear"]
    assert list(rung_probes(_config(probes={"segmentation": {}}))) == ["segmentation"]
    rungs = {"count": 1, "probes": ["segmentation", "linear"]}
    assert list(rung_probes(_config(rungs=rungs, probes=ALL))) == ["segmentation", "linear"]
    assert rung_probes(_config(probes={})) == {}


def test_rungs_look_at_the_training_split_alone(dataset: Dataset, poisoned: Dataset) -> None:
    config = _config(rungs={"count": 2, "num_images": 32, "probes": list(PROBES)}, probes=ALL)
    (result, observer), (other, observer_other) = _run(config, dataset), _run(config, poisoned)
    assert set(observer.rungs[2]) == ALL_METRICS | {"loss"} | LEARNT["deit3_cpu"]
    assert observer_other.rungs == observer.rungs
    # What is reported does look at the other split.
    assert other.metrics["miou"] != result.metrics["miou"]
    assert other.metrics["loss"] == result.metrics["loss"]


def test_rungs_score_a_quarter_of_their_images_and_fit_on_the_others(dataset: Dataset) -> None:
    fitted, scored = rung_splits(_config(rungs={"num_images": 32}), dataset.train)
    assert (len(fitted), len(scored)) == (24, 8)
    assert fitted.targets == dataset.train.targets
    images = np.concatenate([fitted.images, scored.images]).reshape(32, -1)
    assert len(np.unique(images, axis=0)) == 32
    known = {image.tobytes() for image in dataset.train.images}
    assert all(image.tobytes() in known for image in (*fitted.images, *scored.images))
    # The same for every arm, other ones for another seed.
    arm = _config(rungs={"num_images": 32}, treatment={"specialize": "qkv@all"})
    np.testing.assert_array_equal(rung_splits(arm, dataset.train)[1].images, scored.images)
    other = rung_splits(_config(rungs={"num_images": 32}, seed=1), dataset.train)[1]
    assert (other.images != scored.images).any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_rungs_do_not_change_what_is_learnt(recipe: str, dataset: Dataset) -> None:
    with_rungs, without = (_run(_config(recipe, rungs={"count": count}), dataset)[0] for count in (3, 0))
    assert with_rungs == without


def test_an_order_to_stop_is_obeyed_before_the_next_step(dataset: Dataset) -> None:
    result, observer = _run(_config(), dataset, stop_after=3)
    assert result == TrialResult({}, stopped_at=3)
    assert list(observer.rungs) == [2]


def test_an_order_to_stop_after_the_last_step_comes_too_late(dataset: Dataset) -> None:
    result, observer = _run(_config(), dataset, stop_after=STEPS)
    assert observer.num_asked == STEPS - 1
    assert result.stopped_at is None
    assert "knn_top1" in result.metrics


def test_the_trained_backbone_is_built_as_the_configuration_says(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[VitConfig, dict[str, Any]]] = []
    build = trial.build_vit
    monkeypatch.setattr(trial, "build_vit", lambda of, **given: seen.append((of, given)) or build(of, **given))
    objective = {"recipe": "deit3", "steps": 1, "batch_size": 4, "drop_path": 0.1, "layer_scale": 0.5}
    treatment = {"specialize": "mlp@1:3", "init": "independent", "tokens": "placebo"}
    model = {"high_norm": "registers:2"}
    _run(_config(objective=objective, treatment=treatment, model=model, probes={}, seed=4), dataset)
    ((config, given),) = seen
    assert config == VitConfig(
        SCALES["nano"],
        image_size=16,
        patch_size=4,
        specialization="mlp@1:3",
        rows=PatchRow(num_prefix=3, grid=(4, 4), position=(2, 2)),
        high_norm=HighNorm(num_registers=2),
        drop_path=0.1,
        layer_scale=0.5,
        cls_position=False,
    )
    assert given == {"init": "independent", "seed": 4, "pretrained": None, "pretrained_sha256": None}


def _pairs() -> Iterator[Any]:
    """Yield every comparator with every recipe, of which the short run has one of each comparator and two of one."""
    for index, name in enumerate(COMPARATORS):
        for number, recipe in enumerate(RECIPES):
            yield pytest.param(name, recipe, marks=() if index % len(RECIPES) == number else pytest.mark.long)


@pytest.mark.parametrize(("name", "recipe"), [*_pairs()])
def test_a_comparator_trains_and_repeats_and_differs_from_the_baseline(
    name: str, recipe: str, dataset: Dataset
) -> None:
    treatment = {"kind": "comparator", "comparator": {"comparator": name}}
    config = _config(recipe, treatment=treatment, probes={"knn": {}}, rungs={"count": 1, "num_images": 32})
    (result, observer), (again, _) = _run(config, dataset), _run(config, dataset)
    assert again == result
    assert all(np.isfinite(value) for value in (*result.metrics.values(), *observer.rungs[3].values()))
    baseline, _ = _run(_config(recipe, probes={}), dataset)
    assert result.metrics["loss"] != baseline.metrics["loss"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_patch_diversification_adds_its_terms_to_the_loss(recipe: str, dataset: Dataset) -> None:
    objective = dataclasses.asdict(_config(recipe).objective) | {"steps": 1}

    def first_loss(**weights: float) -> float:
        treatment = {"kind": "comparator", "comparator": {"comparator": "patch_diversification", **weights}}
        config = _config(objective=objective, treatment=treatment, probes={}, rungs={"count": 0})
        return _run(config, dataset)[0].metrics["loss"]

    plain = _config(objective=objective, probes={}, rungs={"count": 0})
    off = _run(plain, dataset)[0].metrics["loss"]
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
    optional = _config(objective={**plain, **changes}, probes={"knn": {}}, rungs={"count": 0})
    (result, _), (again, _) = _run(optional, dataset), _run(optional, dataset)
    assert again == result
    assert np.isfinite(result.metrics["loss"])
    baseline, _ = _run(_config(objective=plain, probes={}), dataset)
    assert result.metrics["loss"] != baseline.metrics["loss"]


def test_the_mixing_loss_trains_with_deit3_and_is_refused_with_dinov2(dataset: Dataset) -> None:
    weights = {"cosine_weight": 0.0, "contrast_weight": 0.0, "mixing_weight": 1.0}
    treatment = {"kind": "comparator", "comparator": {"comparator": "patch_diversification", **weights}}
    mixing, _ = _run(_config(treatment=treatment, probes={}), dataset)
    plain, _ = _run(_config(probes={}), dataset)
    # A positive term on top of a loss that has hardly moved within a few steps.
    assert mixing.metrics["loss"] > plain.metrics["loss"] + 1.0
    with pytest.raises(ConfigError, match="mixing_weight must be 0"):
        _run(_config("dinov2_cpu", treatment=treatment, probes={}), dataset)


class _Interrupted(Watching):
    """Break off, as a machine that is taken away, in the middle of telling of a step or of a rung."""

    def __init__(self, *, at_question: int = 0, at_rung: int = 0) -> None:
        super().__init__()
        self.at_question, self.at_rung = at_question, at_rung

    def rung(self, *, step: int, metrics: Mapping[str, float]) -> None:
        if len(self.rungs) + 1 == self.at_rung:
            raise KeyboardInterrupt
        super().rung(step=step, metrics=metrics)

    def should_stop(self) -> bool:
        if self.num_asked + 1 == self.at_question:
            raise KeyboardInterrupt
        return super().should_stop()


def _checkpoint(path: Path, **changes: Any) -> Checkpoint:
    return Checkpoint(**{"path": path, "identity": "trial", "every_s": None, "every_steps": 1, **changes})


@pytest.mark.parametrize(
    ("recipe", "interrupted"),
    [
        *(("deit3_cpu", interrupted) for interrupted in ({"at_question": 2}, {"at_rung": 2}, {"at_question": 5})),
        *((recipe, {"at_rung": 2}) for recipe in ("dinov2_cpu", "mae_cpu")),
        *(
            pytest.param(recipe, {"at_question": number}, marks=pytest.mark.long)
            for recipe in ("dinov2_cpu", "mae_cpu")
            for number in (2, 5)
        ),
    ],
)
def test_a_trial_that_was_interrupted_continues_to_the_last_bit_and_tells_every_rung_once(
    recipe: str, interrupted: dict[str, int], dataset: Dataset, tmp_path: Path
) -> None:
    config = _config(recipe, treatment={"specialize": "norm@all"}, probes={"knn": {}})
    expected, watching = _run(config, dataset)
    path = tmp_path / "folder" / "state"
    with pytest.raises(KeyboardInterrupt):
        run_trial(config, dataset, _Interrupted(**interrupted), device=CPU, checkpoint=_checkpoint(path))
    again = _Interrupted()
    result = run_trial(config, dataset, again, device=CPU, checkpoint=_checkpoint(path))
    assert result == expected
    assert again.rungs == watching.rungs
    assert list(again.rungs) == [2, 4]
    assert again.steps[-1] == (STEPS, STEPS)
    assert again.num_asked < STEPS - 1  # it did not begin anew


def test_a_rung_of_before_is_told_as_it_was_and_not_probed_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _checkpoint(tmp_path / "state", every_steps=3)
    with pytest.raises(KeyboardInterrupt):
        run_trial(_config(), dataset, first := _Interrupted(at_question=5), device=CPU, checkpoint=checkpoint)
    assert list(first.rungs) == [2, 4]
    eval_backbone: list[int] = []
    probe = Probing.rung
    monkeypatch.setattr(Probing, "rung", lambda *args, **kwargs: eval_backbone.append(1) or probe(*args, **kwargs))
    # Of the same object too, whose notes hold a rung that came after the state was saved.
    again = _Interrupted()
    run_trial(_config(), dataset, again, device=CPU, checkpoint=checkpoint)
    assert again.rungs == first.rungs
    assert len(eval_backbone) == 1
    assert again.steps[0] == (3, STEPS)


def test_a_trial_whose_state_is_damaged_begins_anew_with_the_same_numbers(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    expected, watching = _run(_config(), dataset)
    with pytest.raises(KeyboardInterrupt):
        run_trial(_config(), dataset, _Interrupted(at_question=5), device=CPU, checkpoint=_checkpoint(path))
    whole = path.read_bytes()
    for data, identity in ((whole[:-1], "trial"), (whole, "another")):
        path.write_bytes(data)
        again = _Interrupted()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            result = run_trial(_config(), dataset, again, device=CPU, checkpoint=_checkpoint(path, identity=identity))
        assert result == expected
        assert again.rungs == watching.rungs
        assert again.num_asked == STEPS - 1
        assert [record.message.rpartition("; ")[2] for record in caplog.records] == ["training begins anew"]


def test_a_trial_that_is_stopped_by_its_observer_saves_no_more(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "state"
    observer = Watching(stop_after=1)
    result = run_trial(_config(), dataset, observer, device=CPU, checkpoint=_checkpoint(path))
    assert result.stopped_at == 1
    assert not path.exists()


def test_floors_keep_no_state(dataset: Dataset, tmp_path: Path) -> None:
    for kind in ("random_init", "raw_pixels"):
        config = _config(treatment={"kind": kind}, probes={"knn": {}})
        run_trial(config, dataset, Watching(), device=CPU, checkpoint=_checkpoint(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


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
    config = _config(
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
        config = _config(treatment={"kind": "random_init"}, probes={"knn": {}, "linear": linear})
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
    config = _config(recipe, treatment={"specialize": "norm@all"}, probes={"knn": {}}, rungs={"count": 0})
    config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, **changes))  # type: ignore[type-var]
    folder = tmp_path / "weights" / "trial"
    result = run_trial(config, dataset, Watching(), device=CPU, weights=folder)
    assert sorted(path.stem for path in folder.iterdir()) == names
    kept = load_model(folder / f"{names[0]}.safetensors")  # the student is what this recipe probes
    found = probing.Probing(config, dataset, {}).backbone(kept, device=CPU)
    assert found == {"knn_top1": result.metrics["knn_top1"]}
    weights = [load_model(folder / f"{name}.safetensors").state_dict()["cls_token"] for name in names]
    assert len(names) == 1 or not torch.equal(*weights)


def test_own_weights_learn_at_the_rate_of_the_treatment(dataset: Dataset, tmp_path: Path) -> None:
    # Steps of a 1e-12th are lost in the rounding of the weights: own ones stay the copies that they begin as.
    treatment = {"specialize": "fc1@all", "own_lr": 1e-12}
    run_trial(_config(treatment=treatment, rungs={"count": 0}), dataset, Watching(), device=CPU, weights=tmp_path)
    state = load_model(tmp_path / "backbone.safetensors").state_dict()
    plain = VitConfig(SCALES["nano"], image_size=16, patch_size=4, cls_position=False)
    before = build_vit(plain, seed=0).state_dict()
    assert torch.equal(state["blocks.0.mlp.fc1.own.fc1.weight"], before["blocks.0.mlp.fc1.weight"])
    assert not torch.equal(state["blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.fc1.weight"])
