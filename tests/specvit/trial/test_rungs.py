"""When a trial looks at what it has learnt so far, by which probes and on which images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from specvit.data import Dataset
from specvit.probes import PROBES
from specvit.probing import rung_probes, rung_splits
from specvit.trial import rung_steps

from .small_trials import ALL, ALL_METRICS, LEARNT, RECIPES, make_config, run_watched


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
def test_rungs_do_not_change_what_is_learnt(recipe: str, dataset: Dataset) -> None:
    with_rungs, without = (run_watched(make_config(recipe, rungs={"count": count}), dataset)[0] for count in (3, 0))
    assert with_rungs == without
