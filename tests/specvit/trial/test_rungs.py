"""When a trial looks at what it has learnt so far, by which probes and on which images."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from specvit.data import Dataset
from specvit.probes import PROBES
from specvit.probing import pretrained_on, rung_probes, rung_splits
from specvit.trial import rung_steps

from .small_trials import ALL, ALL_METRICS, BATCH_SIZE, LEARNT, RECIPES, STEPS, make_config, run_watched


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
    probes = {"knn": {}, "linear": {}, "segmentation": {}}
    assert list(rung_probes(make_config(probes=probes))) == ["knn", "segmentation"]
    assert list(rung_probes(make_config(probes={"linear": {}}))) == ["linear"]
    assert list(rung_probes(make_config(probes={"segmentation": {}}))) == ["segmentation"]
    rungs = {"count": 1, "probes": ["segmentation", "linear"]}
    assert list(rung_probes(make_config(rungs=rungs, probes=ALL))) == ["segmentation", "linear"]
    assert rung_probes(make_config(probes={})) == {}


def test_rungs_look_at_the_training_split_alone(dataset: Dataset, poisoned: Dataset) -> None:
    config = make_config(rungs={"count": 2, "num_images": 32, "probes": list(PROBES)}, probes=ALL)
    (result, observer), (other, observer_other) = run_watched(config, dataset), run_watched(config, poisoned)
    assert set(observer.rungs[2]) == ALL_METRICS | {"loss"} | LEARNT["deit3_cpu"]
    assert observer_other.rungs == observer.rungs
    # What is reported does look at the other split.
    assert other.metrics["miou"] != result.metrics["miou"]
    assert other.metrics["loss"] == result.metrics["loss"]


def test_rungs_score_a_quarter_of_their_images_and_fit_on_the_others(dataset: Dataset) -> None:
    fitted, scored = rung_splits(make_config(rungs={"num_images": 32}), dataset.train)
    assert (len(fitted), len(scored)) == (24, 8)
    assert fitted.targets == dataset.train.targets
    images = np.concatenate([fitted.images, scored.images]).reshape(32, -1)
    assert len(np.unique(images, axis=0)) == 32
    known = {image.tobytes() for image in dataset.train.images}
    assert all(image.tobytes() in known for image in (*fitted.images, *scored.images))
    # The same for every arm, other ones for another seed.
    arm = make_config(rungs={"num_images": 32}, treatment={"specialize": "qkv@all"})
    np.testing.assert_array_equal(rung_splits(arm, dataset.train)[1].images, scored.images)
    other = rung_splits(make_config(rungs={"num_images": 32}, seed=1), dataset.train)[1]
    assert (other.images != scored.images).any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_rungs_for_which_no_image_is_held_out_do_not_change_what_is_learnt(recipe: str, dataset: Dataset) -> None:
    with_rungs, without = (
        run_watched(make_config(recipe, rungs={"count": count, "held_out": recipe != "deit3_cpu"}), dataset)[0]
        for count in (3, 0)
    )
    assert with_rungs == without


RUNGS = {"count": 2, "num_images": 32}
"""Of the 64 images of training 24 are fitted on, and 8 are scored."""


@pytest.fixture(scope="module")
def spoilt(dataset: Dataset) -> Dataset:
    """Other pixels, labels and masks of the images that rungs score."""
    train = dataset.train
    assert train.labels is not None
    assert train.masks is not None
    scored = {image.tobytes() for image in rung_splits(make_config(rungs=RUNGS), train)[1].images}
    rows = np.array([image.tobytes() in scored for image in train.images])
    assert rows.sum() == 8
    images, labels, masks = train.images.copy(), train.labels.copy(), train.masks.copy()
    images[rows] = 255 - images[rows]
    labels[rows] = (labels[rows] + 1) % len(dataset.class_names)
    masks[rows] = (masks[rows] + 1) % len(dataset.mask_names)
    changed = dataclasses.replace(train, images=images, labels=labels, masks=masks)
    return dataclasses.replace(dataset, train=changed)


@pytest.mark.parametrize(
    ("objective", "learns_from_them"),
    [
        pytest.param({"recipe": "deit3_dense_cpu"}, False, marks=pytest.mark.long),
        ({"recipe": "deit3_cpu", "epochs": 2.0}, False),
        pytest.param({"recipe": "mae_cpu"}, True, marks=pytest.mark.long),
        pytest.param({"recipe": "dinov2_cpu"}, True, marks=pytest.mark.long),
    ],
)
def test_a_supervised_pretraining_sees_no_image_that_its_rungs_score(
    objective: dict[str, Any], learns_from_them: bool, dataset: Dataset, spoilt: Dataset
) -> None:
    length = {} if "epochs" in objective else {"steps": STEPS}
    config = make_config(objective={"batch_size": BATCH_SIZE, **length, **objective}, rungs=RUNGS, probes={"knn": {}})
    (result, observer), (other, observer_other) = run_watched(config, dataset), run_watched(config, spoilt)
    assert (result.metrics["loss"] != other.metrics["loss"]) == learns_from_them
    learnt = {name: value for name, value in result.metrics.items() if "loss" in name}
    assert ({name: other.metrics[name] for name in learnt} != learnt) == learns_from_them
    # What is scored has changed.
    assert any(observer.rungs[step]["knn_top1"] != observer_other.rungs[step]["knn_top1"] for step in observer.rungs)
    # 2 epochs of 56 images in batches of 8 are 14 steps, of all 64 they would be 16.
    assert observer.steps[-1][1] == (14 if "epochs" in objective else STEPS)


def test_a_supervised_pretraining_sees_them_where_it_is_said_to(dataset: Dataset, spoilt: Dataset) -> None:
    config = make_config(rungs={**RUNGS, "held_out": False}, probes={"knn": {}})
    losses = {run_watched(config, images)[0].metrics["loss"] for images in (dataset, spoilt)}
    assert len(losses) == 2


def test_arms_of_a_seed_leave_out_the_same_images_and_learn_from_all_others(dataset: Dataset) -> None:
    config = make_config(rungs=RUNGS)
    train, images = pretrained_on(config, dataset.train)
    assert images is not None
    assert len(set(images.tolist())) == 56
    assert train is dataset.train
    arm = make_config(rungs=RUNGS, treatment={"specialize": "qkv@all"})
    np.testing.assert_array_equal(pretrained_on(arm, dataset.train)[1], images)
    other = pretrained_on(make_config(rungs=RUNGS, seed=1), dataset.train)[1]
    assert other is not None
    assert set(other.tolist()) != set(images.tolist())
    assert pretrained_on(make_config("mae_cpu", rungs=RUNGS), dataset.train) == (dataset.train, None)
    assert pretrained_on(make_config(rungs={"count": 0}), dataset.train) == (dataset.train, None)
