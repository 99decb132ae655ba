"""WebDataset shards as a source: classes, corrupt entries, and entries that must never be run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from specvit.data import DATA_SOURCES, Counts, file_source
from specvit.data.encoded import EncodedImages
from specvit.data.reading import tar_shards
from specvit.data.reading.counting import Deadline
from specvit.data.sources.image_folder import ImageFolder
from specvit.data.sources.webdataset import IMAGE_KINDS, WebDatasetShards
from specvit.errors import DataError

SIZE = 8


def encode(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, *samples: dict[str, bytes]) -> None:
    """Write a shard; the keys are the numbers of the samples."""
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples):
            for kind, content in sample.items():
                if kind in IMAGE_KINDS:
                    content += f"{path.name} {number}".encode()  # another file each
                info = tarfile.TarInfo(f"{number:05}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make two shards to train on, of 2 and 1 images, and one to report on."""
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "train-000000.tar", {"png": encode(0), "cls": b"0"}, {"jpg": encode(1, "JPEG"), "cls": b"2\n"})
    write(folder / "train-000001.tar", {"webp": encode(2, "WEBP"), "cls": b"1"})
    write(folder / "val-000000.tar", {"png": encode(3), "cls": b"1"})
    return folder


def test_samples_are_counted_before_they_are_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(**fields: Any) -> Counts | None:
        return WebDatasetShards(root=str(root), image_size=SIZE, **fields).count_images()

    assert counted() == Counts(3, 1)
    assert counted(class_names=("a", "b", "c")) == Counts(3, 1, 3)
    assert counted(val="gone-*.tar") is None
    monkeypatch.setattr(file_source, "Deadline", partial(Deadline, -1.0))
    assert counted() is None
    # A clock that goes on by a second at each look, of which there is one for each of eight entries.
    monkeypatch.setattr(tar_shards, "_STEP", 1)
    for within_s, known in ((8.0, True), (7.5, False), (1.5, False)):
        monkeypatch.setattr(file_source, "Deadline", partial(Deadline, within_s, clock=count().__next__))
        assert (counted() is not None) == known


def load(root: Path, **fields: Any) -> Any:
    return WebDatasetShards(root=str(root), image_size=SIZE, **fields).load()


def test_source_is_found_by_name_and_needs_no_extra() -> None:
    assert DATA_SOURCES["webdataset"] is WebDatasetShards
    assert WebDatasetShards.extra is None
    assert WebDatasetShards.path_fields == {"root", "cache", "cache_folder", "max_pixels", "max_shared", "workers"}


def test_samples_come_in_the_order_of_the_shards(root: Path) -> None:
    dataset = load(root)
    assert dataset.train.labels.tolist() == [0, 2, 1]
    assert dataset.val.labels.tolist() == [1]
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.train.images.shape == (3, 3, SIZE, SIZE)
    ranges = {"train": "shards/train-{000000..000001}.tar", "val": "shards/val-*.tar"}
    named = load(root.parent, **ranges, class_names=("a", "b", "c"))
    assert named.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(named.train.images, dataset.train.images)


def test_images_are_those_of_an_image_folder_of_the_same_files(root: Path, tmp_path: Path) -> None:
    for split, contents in (("train", (encode(0), encode(1, "JPEG"))), ("val", (encode(3), encode(3)))):
        for number, content in enumerate(contents):
            path = tmp_path / "folder" / split / str(number) / "x.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
    folder = ImageFolder(root=str(tmp_path / "folder"), image_size=SIZE).load()
    dataset = load(root)
    np.testing.assert_array_equal(dataset.train.images[:2], folder.train.images)
    np.testing.assert_array_equal(dataset.val.images, folder.val.images[:1])


def test_classes_come_from_a_field_of_the_json_entry(root: Path) -> None:
    for path, label in ((root / "train-000000.tar", 1), (root / "train-000001.tar", 0), (root / "val-000000.tar", 0)):
        write(path, {"png": encode(label), "json": json.dumps({"id": 9, "label": label}).encode()})
    assert load(root, json_field="label").train.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"00000' must have in json, field 'class', a class index from 0 to 999999"):
        load(root, json_field="class")


def test_on_disk_it_is_what_it_is_in_memory(root: Path, tmp_path: Path) -> None:
    memory = load(root)
    for _ in range(2):
        disk = load(root, cache="disk", cache_folder=str(tmp_path / "cache"))
        assert disk.fingerprint == memory.fingerprint
        assert disk.class_names == memory.class_names
        assert isinstance(disk.train.images, np.memmap)
        np.testing.assert_array_equal(disk.train.images, memory.train.images)
        np.testing.assert_array_equal(disk.train.labels, memory.train.labels)


def test_encoded_images_are_read_from_their_place_in_the_shards(root: Path) -> None:
    decoded, encoded = load(root), load(root, keep="encoded")
    for split in ("train", "val"):
        images = getattr(encoded, split).images
        assert isinstance(images, EncodedImages)
        np.testing.assert_array_equal(images[:], getattr(decoded, split).images)
        np.testing.assert_array_equal(getattr(encoded, split).labels, getattr(decoded, split).labels)
    assert encoded.class_names == decoded.class_names
    content = (root / "train-000000.tar").read_bytes()
    (root / "train-000000.tar").write_bytes(content.replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    with pytest.raises(DataError, match=r"train-000000.tar: 00001.jpg"):
        encoded.train.images[:]


def test_fingerprint_follows_images_and_classes_and_not_the_place(root: Path, tmp_path: Path) -> None:
    first = load(root).fingerprint
    moved = root.rename(tmp_path / "moved")
    assert load(moved).fingerprint == first
    write(moved / "val-000000.tar", {"png": encode(3), "cls": b"2"})
    labelled = load(moved).fingerprint
    write(moved / "val-000000.tar", {"png": encode(4), "cls": b"1"})
    assert len({first, labelled, load(moved).fingerprint}) == 3


class Exploit:
    """Make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pyd", "pickle", "pkl", "pth", "npy"])
def test_an_entry_that_would_run_code_is_not_run(kind: str, root: Path, tmp_path: Path) -> None:
    expected = load(root).train.images
    harmed = tmp_path / "harmed"
    content = pickle.dumps(Exploit(harmed))
    write(
        root / "train-000000.tar",
        {"png": encode(0), kind: content, "cls": b"0"},
        {kind: content, "jpg": encode(1, "JPEG"), "cls": b"2"},
    )
    np.testing.assert_array_equal(load(root).train.images, expected)
    assert not harmed.exists()
    write(root / "train-000000.tar", {"png": content, "cls": b"0"})
    with pytest.raises(DataError, match="content is not JPEG or PNG"):
        load(root)
    write(root / "train-000000.tar", {"png": encode(0), "cls": content})
    with pytest.raises(DataError, match="must have in cls a class index"):
        load(root)
    assert not harmed.exists()
    pickle.loads(content)  # noqa: S301
    assert harmed.exists()  # so it would have shown


@pytest.mark.parametrize(("kind", "form"), [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")])
def test_a_truncated_image_is_refused_by_shard_and_key(kind: str, form: str, root: Path) -> None:
    content = encode(0, form)
    write(root / "train-000001.tar", {kind: content, "cls": b"0"}, {kind: content[: len(content) // 2], "cls": b"0"})
    with pytest.raises(DataError, match=rf"cannot read the image '.*shards/train-000001\.tar: 00001\.{kind}'"):
        load(root)


@pytest.mark.parametrize(
    ("sample", "rule"),
    [
        ({"cls": b"0"}, r"val-000000\.tar: 00000' must have one image \(jpg, jpeg, png, webp\), but has none"),
        ({"png": encode(0), "jpg": encode(0), "cls": b"0"}, "but has jpg, png"),
        ({"png": encode(0)}, "must have an entry 'cls', the class"),
        ({"png": encode(0), "cls": b"cat"}, "must have in cls a class index from 0 to 999999, not b'cat'"),
        ({"png": encode(0), "cls": b"-1"}, "from 0 to 999999, not b'-1'"),
        ({"png": encode(0), "cls": b"1000000"}, "from 0 to 999999, not b'1000000'"),
        ({"png": encode(0), "cls": b"1" * 5000}, "from 0 to 999999"),
    ],
)
def test_a_sample_that_is_not_whole_is_refused_by_shard_and_key(
    sample: dict[str, bytes], rule: str, root: Path
) -> None:
    write(root / "val-000000.tar", sample)
    with pytest.raises(DataError, match=rule):
        load(root)


@pytest.mark.parametrize("label", ["true", '"1"', "1.0", "null", "[" * 100_000])
def test_a_json_field_that_is_no_index_is_refused(label: str, root: Path) -> None:
    for path in root.iterdir():
        write(path, {"png": encode(0), "json": f'{{"label": {label}}}'.encode()})
    with pytest.raises(DataError, match="must have in json, field 'label', a class index"):
        load(root, json_field="label")


def test_an_index_without_a_name_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"00001' must have in cls a class index from 0 to 1, as data\.class_names has"):
        load(root, class_names=("a", "b"))


def test_a_file_about_the_shard_is_passed_over(root: Path) -> None:
    expected = load(root)
    with tarfile.open(root / "val-000000.tar", "a") as tar:
        info = tarfile.TarInfo("README.md")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"about"))
    np.testing.assert_array_equal(load(root).val.images, expected.val.images)


def test_splits_must_not_share_a_shard(root: Path) -> None:
    rule = r"data\.train and data\.val must not share a shard, as they do '.*train-000001\.tar'"
    with pytest.raises(DataError, match=rule):
        load(root, train="train-{000000..000001}.tar", val="train-000001.tar")
    with pytest.raises(DataError, match=rule):
        load(root, train="*.tar", val="*-000001.tar")


def test_a_shard_without_samples_is_refused(root: Path) -> None:
    write(root / "val-000000.tar")
    with pytest.raises(DataError, match=r"data\.val: no sample in '.*val-000000\.tar'"):
        load(root)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"train": "/x/a.tar"}, r"train must start at data\.root"),
        ({"val": "../a-*.tar"}, r"val must start at data\.root and stay within it, not '\.\./a-\*\.tar'"),
        ({"train": "a.tar", "val": "./a.tar"}, r"val must differ from train, not be '\./a\.tar' too"),
        ({"class_names": ("a", "a")}, "not repeat 'a'"),
    ],
)
def test_settings_that_break_a_rule_are_refused(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        WebDatasetShards(root="/x", **fields)


def test_copy_of_a_training_shard_under_another_name_is_refused(root: Path) -> None:
    shutil.copy(root / "train-000000.tar", root / "val-000000.tar")
    with pytest.raises(DataError, match=r"2 of 2 images .*val-000000\.tar: 0.*, which is .*train-000000\.tar: 0"):
        load(root)
    assert len(load(root, max_shared=2).val) == 2
