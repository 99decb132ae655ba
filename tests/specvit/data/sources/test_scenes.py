"""The procedural source as its users see it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from specvit.data import DATA_SOURCES, Dataset, Split
from specvit.data.sources.scenes import Scenes


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Scenes(num_train=600, num_val=200).load()


def _assert_equal(left: Split, right: Split) -> None:
    for field in dataclasses.fields(Split):
        np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))


def test_scenes_are_found_by_name() -> None:
    assert DATA_SOURCES["scenes"] is Scenes


def test_importing_the_sources_does_not_import_torch() -> None:
    code = "import sys, specvit.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_arrays_of_both_splits_have_the_documented_shapes_and_ranges(dataset: Dataset) -> None:
    for split, num_images in ((dataset.train, 600), (dataset.val, 200)):
        assert split.targets == Scenes.targets
        assert split.images.shape == (num_images, 3, 32, 32)
        assert split.images.dtype == np.uint8
        assert split.labels is not None
        assert split.labels.shape == (num_images,)
        assert split.labels.dtype == np.int64
        assert set(split.labels) == set(range(len(dataset.class_names)))
        assert split.masks is not None
        assert split.masks.shape == (num_images, 32, 32)
        assert split.masks.dtype == np.uint8
        assert set(np.unique(split.masks)) == set(range(len(dataset.mask_names)))
        assert split.depth is not None
        assert split.depth.shape == (num_images, 32, 32)
        assert split.depth.dtype == np.float16
        assert split.depth.min() > 0.5
        assert split.depth.max() < 15
        assert split.boxes is not None
        assert split.boxes.shape == (num_images, 3, 5)
        assert split.boxes.dtype == np.int16
        assert split.boxes[..., 4].min() == -1
        assert split.boxes[..., :4].max() == 32
    assert len(dataset.class_names) == 8
    assert dataset.mask_names == ("ground", *dataset.class_names)


def test_label_of_every_image_is_the_object_category_with_most_pixels(dataset: Dataset) -> None:
    assert dataset.train.labels is not None
    assert dataset.train.masks is not None
    for label, mask in zip(dataset.train.labels, dataset.train.masks, strict=True):
        counts = np.bincount(mask.ravel(), minlength=9)[1:]
        assert counts[label] == counts.max()


def test_main_object_covers_twice_the_pixels_of_the_next_in_most_images(dataset: Dataset) -> None:
    assert dataset.train.masks is not None
    counts = np.stack([np.count_nonzero(dataset.train.masks == index, axis=(1, 2)) for index in range(1, 9)])
    second, first = np.sort(counts, axis=0)[-2:]
    assert np.mean(first >= 2 * second) > 0.95


def test_every_image_holds_as_many_boxes_as_mask_classes(dataset: Dataset) -> None:
    assert dataset.val.boxes is not None
    assert dataset.val.masks is not None
    for boxes, mask in zip(dataset.val.boxes, dataset.val.masks, strict=True):
        assert {int(box[4]) + 1 for box in boxes if box[4] >= 0} == set(np.unique(mask)) - {0}


def test_objects_lie_before_the_ground(dataset: Dataset) -> None:
    assert dataset.val.depth is not None
    assert dataset.val.masks is not None
    assert dataset.val.depth[dataset.val.masks > 0].max() < dataset.val.depth[dataset.val.masks == 0].min()


def test_scenes_from_equal_settings_are_equal(dataset: Dataset) -> None:
    again = Scenes(num_train=600, num_val=200).load()
    _assert_equal(again.train, dataset.train)
    _assert_equal(again.val, dataset.val)
    assert again.fingerprint == dataset.fingerprint


def test_scenes_of_another_seed_differ(dataset: Dataset) -> None:
    other = Scenes(num_train=600, num_val=200, seed=1).load()
    assert other.fingerprint != dataset.fingerprint
    assert not np.array_equal(other.train.images, dataset.train.images)
    assert not np.array_equal(other.train.labels, dataset.train.labels)


def test_images_do_not_depend_on_how_many_are_made(dataset: Dataset) -> None:
    fewer = Scenes(num_train=77, num_val=5).load()
    for few, many in ((fewer.train, dataset.train), (fewer.val, dataset.val)):
        for name in Split.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[: len(few)])


def test_images_do_not_depend_on_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> None:
    monkeypatch.setattr("specvit.data.sources.scenes._PIXELS_A_CHUNK", 7 * 32 * 32)
    _assert_equal(Scenes(num_train=100, num_val=200).load().val, dataset.val)


def test_train_and_val_share_no_image(dataset: Dataset) -> None:
    train, val = ({image.tobytes() for image in split.images} for split in (dataset.train, dataset.val))
    assert len(train) == 600
    assert len(val) == 200
    assert not train & val


def test_fingerprint_of_a_small_set_is_pinned() -> None:
    # Another value means other images under the same settings: raise PROTOCOL_VERSION with it.
    assert Scenes(num_train=8, num_val=8, image_size=16).load().fingerprint == "ecb3312491458794"


def test_larger_images_show_the_same_scenes(dataset: Dataset) -> None:
    large = Scenes(num_train=40, num_val=1, image_size=64).load().train
    assert large.masks is not None
    assert dataset.train.masks is not None
    agreement = large.masks[:, ::2, ::2] == dataset.train.masks[:40]
    assert agreement.mean() > 0.93


def test_noise_setting_is_the_standard_deviation_of_the_pixels() -> None:
    settings = {"num_train": 50, "num_val": 1, "light": 0.0}
    clean = Scenes(**settings, noise=0.0).load().train.images.astype(float)
    noisy = Scenes(**settings, noise=0.04).load().train.images.astype(float)
    inner = (clean > 30) & (clean < 225)
    assert (noisy - clean)[inner].std() == pytest.approx(0.04 * 255, rel=0.02)


@pytest.mark.long
def test_raw_pixels_tell_little_of_the_class() -> None:
    data = Scenes(num_train=2000, num_val=500).load()
    train, val = (normalize(split.images.reshape(len(split), -1).astype(float)) for split in (data.train, data.val))
    knn = KNeighborsClassifier(20).fit(train, data.train.labels)
    assert knn.score(val, data.val.labels) < 2 / 8


def test_mean_colours_tell_nothing_of_the_class() -> None:
    data = Scenes(num_train=2000, num_val=500).load()
    train, val = (split.images.mean(axis=(2, 3)) for split in (data.train, data.val))
    knn = KNeighborsClassifier(20).fit(train, data.train.labels)
    assert knn.score(val, data.val.labels) < 0.2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_objects", (3, 2), r"1 <= low <= high <= 8, not \[3, 2\]"),
        ("num_objects", (2, 9), r"1 <= low <= high <= 8, not \[2, 9\]"),
        ("num_objects", (0, 2), "greater than 0"),
        ("image_size", 12, "at least 16 for scenes, not 12"),
        ("noise", 1.5, "less than or equal to 1"),
        ("light", -0.1, "greater than or equal to 0"),
        ("num_train", 0, "greater than 0"),
        ("seed", -1, "greater than or equal to 0"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Scenes(**{field: value})
