"""Data sets of the package ``datasets``, as it writes them itself: saved, Parquet, Arrow, image folders, streams."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specvit.data import Counts, Dataset, file_source
from specvit.data.encoded import EncodedImages
from specvit.data.extras import hugging_face_tables
from specvit.data.reading.counting import Deadline
from specvit.data.sources.hugging_face import HuggingFace
from specvit.data.sources.masks import Masks
from specvit.errors import DataError

from .small_images import COUNTS, SIZE, assert_expected, encoded, load, mask_of


def test_a_saved_data_set_is_what_its_images_are_in_a_folder(saved: Path, expected: Dataset) -> None:
    dataset = load(saved)
    assert_expected(dataset, expected)
    assert dataset.train.labels is not None
    assert dataset.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert_expected(load(saved, label_column="name"), expected)


def test_a_folder_of_parquet_files_is_what_its_images_are_in_a_folder(parquet: Path, expected: Dataset) -> None:
    assert_expected(load(parquet), expected)


def test_a_folder_of_arrow_files_is_what_its_images_are_in_a_folder(
    saved: Path, tmp_path: Path, expected: Dataset
) -> None:
    (tmp_path / "arrow").mkdir()
    for split in COUNTS:
        shutil.copy(saved / split / "data-00000-of-00001.arrow", tmp_path / "arrow" / f"{split}.arrow")
    assert_expected(load(tmp_path / "arrow"), expected)


def test_a_folder_of_images_is_what_our_own_source_makes_of_it(image_folder: Path, expected: Dataset) -> None:
    assert_expected(load(image_folder), expected)


@pytest.mark.parametrize("tree", ["parquet", "image_folder"])
def test_images_that_stay_encoded_are_those_that_are_decoded(tree: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(tree)
    dataset, expected = load(path, keep="encoded"), load(path)
    for split in ("train", "val"):
        images = getattr(dataset, split).images
        assert isinstance(images, EncodedImages)
        assert images.places.name(1).endswith(", row 1")
        np.testing.assert_array_equal(images[:], getattr(expected, split).images)
        np.testing.assert_array_equal(images.take(np.array([1]))[:], images[np.array([1])])
        np.testing.assert_array_equal(getattr(dataset, split).labels, getattr(expected, split).labels)


def test_rows_without_an_image_are_refused_or_skipped(hf: Any, tmp_path: Path) -> None:
    for split in COUNTS:
        rows = [{"bytes": encoded(split, number), "path": None} for number in range(COUNTS[split])]
        rows[1] = {"bytes": None, "path": "gone.png"} if split == "train" else {"bytes": None, "path": None}
        columns = {"image": rows, "label": [number % 2 for number in range(COUNTS[split])]}
        hf.Dataset.from_dict(columns).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"2 images cannot be used:\n.*row 1.*\n.*row 1"):
        load(tmp_path, keep="encoded")
    data = load(tmp_path, keep="encoded", on_bad_image="skip")
    for split, wanted in ((data.train, [0, 2, 2, 3, 4, 5]), (data.val, [0, 2, 2, 3])):
        assert split.read(slice(None))[1].tolist() == wanted
        assert split.labels is not None
        assert split.labels.tolist() == [number % 2 for number in range(len(wanted))]


@pytest.mark.parametrize("tree", ["parquet", "image_folder"])
def test_a_stream_is_what_the_whole_is(tree: str, request: pytest.FixtureRequest, expected: Dataset) -> None:
    path: Path = request.getfixturevalue(tree)
    # More than there are: the stream ends before.
    streamed = load(path, streaming=True, num_train=100, num_val=100)
    assert_expected(streamed, expected)
    assert streamed.fingerprint == load(path).fingerprint


@pytest.mark.parametrize("streaming", [False, True])
def test_the_first_images_are_taken_where_a_number_is_given(parquet: Path, streaming: bool) -> None:
    dataset, whole = load(parquet, num_train=5, num_val=1, streaming=streaming), load(parquet)
    np.testing.assert_array_equal(dataset.train.images, whole.train.images[:5])
    np.testing.assert_array_equal(dataset.val.images, whole.val.images[:1])
    assert dataset.fingerprint != whole.fingerprint


def test_masks_are_what_the_source_masks_makes_of_the_same_files(saved: Path, tmp_path: Path) -> None:
    root = tmp_path / "masks"
    for split, folder in (("train", "train"), ("validation", "val")):
        for kind, content in (("images", encoded), ("masks", mask_of)):
            (root / kind / folder).mkdir(parents=True)
            for number in range(COUNTS[split]):
                (root / kind / folder / f"{number}.png").write_bytes(content(split, number))
    ours, theirs = Masks(root=str(root), image_size=SIZE).load(), load(saved, mask_column="mask")
    assert theirs.mask_names == ours.mask_names == tuple(f"class {index}" for index in range(5))
    for found, wanted in ((theirs.train, ours.train), (theirs.val, ours.val)):
        assert found.targets == {"labels", "masks"}
        np.testing.assert_array_equal(found.images, wanted.images)
        np.testing.assert_array_equal(found.masks, wanted.masks)
    named = load(saved, mask_column="mask", label_column=None, mask_names=tuple("abcde"))
    assert named.mask_names == tuple("abcde")
    assert (named.class_names, named.train.targets) == ((), {"masks"})
    with pytest.raises(DataError, match=r"mask of split 'train' .*row \d+ must hold indices below 4.*data\.mask_names"):
        load(saved, mask_column="mask", mask_names=tuple("abcd"))


def test_rows_of_a_folder_are_counted_before_they_are_read(
    saved: Path, parquet: Path, image_folder: Path, tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hugging_face_tables.Table, "rows", None)

    def counted(path: Path | str, **fields: Any) -> Counts | None:
        return HuggingFace(path=str(path), image_size=SIZE, **fields).count_images()

    for path in (saved, parquet):
        assert counted(path) == Counts(COUNTS["train"], COUNTS["validation"])
        assert counted(path, num_train=2, num_val=99) == Counts(2, COUNTS["validation"])
        assert counted(path, val_split="test") is None
        assert counted(path / "gone") is None
    assert counted(parquet, val_split="validation[:2]") is None
    assert counted(image_folder) is None
    assert counted("owner/name") is None
    assert counted("owner/name", streaming=True, num_train=7, num_val=3) == Counts(7, 3)
    with monkeypatch.context() as patch:  # as if the package were not installed
        patch.setattr(HuggingFace, "extra", ("no_such_package", "data"))
        patch.setitem(sys.modules, hugging_face_tables.__name__, None)
        assert counted(parquet) is None
    with monkeypatch.context() as patch:  # an import takes what it takes
        patch.setattr(file_source, "Deadline", partial(Deadline, 1.0, clock=chain([0.0], repeat(9.0)).__next__))
        assert counted(parquet) == Counts(COUNTS["train"], COUNTS["validation"])
    with monkeypatch.context() as patch:
        patch.setattr(file_source, "Deadline", partial(Deadline, -1.0))
        assert counted(parquet) is None
    with monkeypatch.context() as patch:  # of many files even their kinds are not asked for
        patch.setattr(hugging_face_tables, "_MOST_FILES", 1)
        patch.setattr(hugging_face_tables.datasets, "load_dataset_builder", None)
        assert counted(parquet) is None
    (parquet / "train-00000-of-00001.parquet").write_bytes(b"nothing")
    assert counted(parquet) is None


def test_targets_follow_from_the_columns() -> None:
    assert HuggingFace(path="x").targets == {"labels"}
    assert HuggingFace(path="x", label_column=None).targets == frozenset()
    assert HuggingFace(path="x", mask_column="mask").targets == {"labels", "masks"}


@pytest.mark.parametrize(
    ("tree", "fields"),
    [("saved", {}), ("parquet", {}), ("image_folder", {"streaming": True, "num_train": 5, "num_val": 9})],
)
def test_on_disk_it_is_what_it_is_in_memory(
    tree: str, fields: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(tree)
    memory = load(path, **fields)
    for _ in range(2):
        disk = load(path, cache="disk", cache_folder=str(tmp_path / "cache"), **fields)
        assert (disk.fingerprint, disk.class_names) == (memory.fingerprint, memory.class_names)
        assert isinstance(disk.train.images, np.memmap)
        for one, other in ((disk.train, memory.train), (disk.val, memory.val)):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_fingerprint_follows_images_and_classes(hf: Any, tables: Any, saved: Path, tmp_path: Path) -> None:
    first = load(saved).fingerprint
    assert load(shutil.move(saved, tmp_path / "moved")).fingerprint == first
    other = tables["validation"].select([0, 1, 3, 2])
    hf.DatasetDict(train=tables["train"], validation=other).save_to_disk(str(tmp_path / "other"))
    assert load(tmp_path / "other").fingerprint != first
    assert load(tmp_path / "moved", label_column=None).fingerprint != first
