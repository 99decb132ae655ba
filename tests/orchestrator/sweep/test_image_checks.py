"""What a sweep asks of its images; lengths in epochs are tried in ``tests/orchestrator/run/test_epochs.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator.run import load_datasets
from orchestrator.sweep.grid import expand
from orchestrator.sweep.image_checks import check_images
from orchestrator.sweep.resolved import Sweep
from specvit.data import Dataset, DataSource
from specvit.errors import DataError

Make = Callable[..., Sweep]
SCENES = {"source": "scenes", "num_train": 8, "num_val": 8}
OWN = {**SCENES, "seed": 5}


def changed(sweep: Sweep, **targets: Callable[[Any], Any]) -> Mapping[DataSource, Dataset]:
    """Return the images of the first source of a sweep with targets of the training split changed, the others whole."""
    datasets = dict(load_datasets(expand(sweep)))
    dataset = datasets[sweep.groups[0].data]
    arrays = {name: change(getattr(dataset.train, name)) for name, change in targets.items()}
    datasets[sweep.groups[0].data] = replace(dataset, train=replace(dataset.train, **arrays))
    return datasets


def one_class(labels: Any) -> Any:
    return np.full_like(labels, 2)


def binary(masks: Any) -> Any:
    return np.where(masks > 0, np.uint8(255), np.uint8(0))


@pytest.mark.parametrize(
    ("probes", "targets", "message"),
    [
        ({"knn": {}}, {"labels": one_class}, r"tiny\.yaml: probes\.knn: must have at least 2 classes in the labels of"),
        ({"linear": {}}, {"labels": one_class}, r"dinov2, .*probes\.linear: \{data: \{source: \.\., root: \.\.\}"),
        (
            {"segmentation": {}},
            {"masks": binary},
            r"probes\.segmentation: must .* 2 classes in the masks .* not 'ground' alone and pixels to ignore \(255\)",
        ),
        ({"depth": {}}, {"depth": lambda depth: depth * 0 + 2}, r"at least 2 depths in the depth .* not 2 alone"),
        ({"detection": {}}, {"boxes": lambda boxes: boxes * 0 - 1}, r"at least 1 box in the boxes .* not none"),
    ],
)
def test_probe_whose_target_is_the_same_everywhere_is_refused(
    probes: dict[str, Any], targets: dict[str, Any], message: str, make_sweep: Make
) -> None:
    sweep = make_sweep(data=SCENES, probes=probes)
    check_images(sweep, load_datasets(expand(sweep)))
    with pytest.raises(DataError, match=message):
        check_images(sweep, changed(sweep, **targets))


def test_recipe_that_learns_from_a_single_class_is_refused(make_sweep: Make) -> None:
    objective = {"recipe": "deit3_cpu", "steps": 4, "batch_size": 8}
    sweep = make_sweep(data=SCENES, probes={"segmentation": {}}, objective=objective)
    with pytest.raises(DataError, match=r"objective\.recipe: must have at least 2 classes in the labels"):
        check_images(sweep, changed(sweep, labels=one_class))


def test_images_of_one_class_are_pretrained_on_where_probes_have_their_own(make_sweep: Make) -> None:
    sweep = make_sweep(data=SCENES, probes={"knn": {"data": OWN}})
    check_images(sweep, changed(sweep, labels=one_class))
    own = sweep.file.probes[0].data
    assert own is not None
    datasets = load_datasets(expand(sweep))
    train = datasets[own].train
    single = replace(datasets[own], train=replace(train, labels=one_class(train.labels)))
    with pytest.raises(DataError, match=r"probes\.knn: must have at least 2 classes"):
        check_images(sweep, {**datasets, own: single})


def test_a_single_kind_of_object_is_something_to_detect(make_sweep: Make) -> None:
    def one_kind(boxes: Any) -> Any:
        boxes = boxes.copy()
        boxes[..., 4] = np.minimum(boxes[..., 4], 0)
        return boxes

    sweep = make_sweep(data=SCENES, probes={"detection": {}})
    check_images(sweep, changed(sweep, boxes=one_kind))


def test_sources_that_were_not_loaded_are_not_checked(make_sweep: Make) -> None:
    check_images(make_sweep(), {})
